"""A pytest plug-in: a job says the same, row for row, however it is run. For a job of your own:

    def test_warmth_is_the_same_however_it_is_run(equivalence: Equivalence) -> None:
        equivalence.publish("sensors", events)  # dicts, in the order in which they come
        equivalence.check("sensors.warmth")

It needs a real broker, real Spark and some minutes: mark it `slow`. What is compared:

- one batch over all records;
- a stream that is cut into micro-batches at random places, by records that come in portions and by random limits;
- a run by spark-submit that is killed (SIGKILL) at a random moment and started again;
- a replay, cut over into a live table that had lost its rows.

Rows of windows that the stream has still open at the end are left out. `TIDEMARK_SEED` makes the random choices others;
without it they are the same each time, and a change of the job is judged by its own merits.
"""

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf import ROOT
from conf.settings import Settings, load
from conf.topics import Topic, load_topics
from jobs import catalog
from jobs.connectors.kafka import source_sink
from jobs.connectors.kafka.offsets import Position, resolve_offsets
from jobs.operations.replay.commands import Steps
from jobs.operations.replay.cutover import HEADER
from jobs.operations.replay.live_job import live_queries
from jobs.operations.replay.plan import ReplayRequest, plan_range
from jobs.operations.replay.record import Replays
from jobs.operations.replay.row_comparison import align_all, align_columns, differences, fingerprint
from jobs.operations.replay.verify import read_rows, row_selection
from jobs.pipeline import paths
from jobs.pipeline.outputs import Output, RowSelector
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from local.broker import Cluster
from local.processes import end_group, wait_for
from schemas.codec import Encoder
from schemas.open_registry import open_registry
from tests.again import SEEDED, VARIABLE
from tests.jvm import OPTIONS
from tests.sent import Record, send

PORTIONS = 3
KILLS = 1
UNDECLARED_PARTITIONS = 2
SHOWN = 5
Publish = Callable[[Settings], object]


class Equivalence:
    """Runs a job in every way, on topics of a broker of its own, and compares what it gives."""

    def __init__(self, spark: SparkSession, broker: Cluster, folder: Path, seed: int) -> None:
        self._spark, self._broker, self._folder = spark, broker, folder
        self._random = random.Random(seed)
        self._portions: list[Publish] = []
        self._topics = load_topics()
        self._published: dict[str, Position] = {}
        shutil.copytree(ROOT / "schemas" / "registry", folder / "registry")

    def publish(self, topic: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Let `events` of the topic's newest schema come, in this order, in portions of random size."""
        self._topics.setdefault(topic, Topic(topic, UNDECLARED_PARTITIONS, key=""))
        edges = sorted(self._random.sample(range(1, len(events)), min(PORTIONS, len(events)) - 1))
        self.publish_by(
            *(
                partial(self._send, topic, events[start:end])
                for start, end in zip([0, *edges], [*edges, len(events)], strict=True)
            )
        )

    def publish_by(self, *portions: Publish) -> None:
        """Let records come in portions of your own: each function is called with the settings once."""
        self._portions += portions

    def check(self, job: str, *overrides: str) -> None:
        """Run `job` in every way, with these settings; fails with the rows that are not the same."""
        batch, live = self._run_streams(job, *overrides)
        self._lose_and_replay(job, batch, live)
        self._compare(job, batch, live, "a replay that was cut over")

    def _run_streams(self, job: str, *overrides: str) -> tuple[Run, Settings]:
        """Compare all ways but the replay; what ran in one batch, and the settings of the stream."""
        self._make_topics()
        live = self._settings("live", *overrides)
        for portion in self._portions:
            portion(live)
            limit = f"source.max_offsets_per_trigger={self._random.randint(200, 2000)}"
            run = Run(self._spark, self._settings("live", *overrides, limit), job)
            catalog.load(job).build(run)
            await_all(self._spark, run.start(continuous=False))
            run.settle()
        batch = Run(self._spark, self._settings("batch", *overrides), job, ("earliest", "latest"))
        catalog.load(job).build(batch)
        batch.write_range()
        self._compare(job, batch, live, "a stream in random micro-batches")
        killed = self._settings("killed", *overrides)
        self._run_and_kill(job, killed, overrides)
        self._compare(job, batch, killed, "a run that was killed at a random moment")
        return batch, live

    def _settings(self, name: str, *overrides: str) -> Settings:
        return load("local", [*self._own(name), *overrides])

    def _own(self, name: str) -> list[str]:
        own = {
            "kafka.bootstrap_servers": self._broker.bootstrap_servers,
            "registry.path": self._folder / "registry",
            "paths.tables": self._folder / name / "tables",
            "paths.checkpoints": self._folder / name / "checkpoints",
            "ledger.application": name,
            "spark.driver_java_options": OPTIONS,
        }
        return [f"{key}={value}" for key, value in own.items()]

    def _make_topics(self) -> None:
        admin = AdminClient({"bootstrap.servers": self._broker.bootstrap_servers, "log_level": 0})
        wanted = [NewTopic(topic.name, topic.partitions, 1) for topic in self._topics.values()]
        wanted = [topic for topic in wanted if topic.topic not in admin.list_topics(timeout=10).topics]
        for made in admin.create_topics(wanted).values() if wanted else ():
            made.result()

    def _send(self, topic: str, events: Sequence[Mapping[str, Any]], settings: Settings) -> None:
        declared = self._topics[topic]
        newest = open_registry(settings.registry).latest(declared.subject)
        encode = Encoder(newest.id, newest.text)
        records = []
        for number, event in enumerate(events):
            key = str(event[declared.key] if declared.key else number).encode()
            at = event[declared.event_time] if declared.event_time else None
            time = int(at.timestamp() * 1000) if at else 0
            records.append(Record(encode(event), key, crc32(key) % declared.partitions, time))
        send(self._broker, topic, *records)

    def _run_and_kill(self, job: str, settings: Settings, overrides: Sequence[str]) -> None:
        words = [word for each in [*self._own("killed"), *overrides] for word in ("--set", each)]
        limit = ["--set", f"source.max_offsets_per_trigger={self._random.randint(500, 2000)}"]
        command = [str(ROOT / "spark-submit.sh"), job, "--until-caught-up", *words, *limit]
        for number in range(KILLS + 1):
            log = self._folder / f"submitted-{number}.log"
            with log.open("w") as output:
                process = subprocess.Popen(command, stdout=output, stderr=output, text=True, process_group=0)
            try:
                if number < KILLS:
                    self._kill_sometime(process, log, settings)
                else:
                    assert process.wait(300) == 0, log.read_text()
            finally:
                end_group(process)

    def _kill_sometime(self, process: "subprocess.Popen[str]", log: Path, settings: Settings) -> None:
        """After a random number of its micro-batches have ended, at no particular step of the next."""
        batches = self._random.randint(1, 6)

        def has_come() -> bool:
            return process.poll() is not None or log.read_text().count(" batch ") >= batches

        wait_for(has_come, 240, lambda: AssertionError(log.read_text()))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    def _lose_and_replay(self, job: str, batch: Run, settings: Settings) -> None:
        for name in dict.fromkeys(output.job for output in batch.outputs):
            planned = plan_range(settings, ReplayRequest(name))
            replay = Replays(settings).keep(planned)
            for part in replay.parts:
                for each in (table for table in part.tables if table.rows.can_select):
                    path = paths.table(settings.paths.tables, each.rows.table)
                    where = row_selection(replay, part, each)
                    if Path(path).exists():
                        self._spark.sql(f"DELETE FROM delta.`{path}` WHERE {where}")
            steps = Steps(self._spark, settings, catalog.load(name).build, print, lambda: None)
            replay, found = steps.verify(steps.run(replay))
            assert [each for each in found if each.unlike_check] == []
            steps.cut_over(replay, accept=True)

    def _compare(self, job: str, batch: Run, settings: Settings, way: str) -> None:
        for output in batch.outputs:
            for rows in output.tables:
                if output.topic and "replay" not in way:
                    self._compare_records(batch, output, rows, settings, way)
                elif rows.can_select or rows.keys:
                    self._compare_table(batch, output, rows, settings, way)

    def _compare_table(self, batch: Run, output: Output, rows: RowSelector, settings: Settings, way: str) -> None:
        closed = self._closed(output, rows, settings)
        where = f"`{rows.event_time}` < TIMESTAMP '{closed}'" if rows.event_time and closed else "true"
        expected = read_rows(self._spark, f"{batch.tables_root}/{rows.table}", where)
        found = read_rows(self._spark, paths.table(settings.paths.tables, rows.table), where)
        if expected is None and found is None:
            return
        expected, found = align_all((expected, found), rows.stamps)
        self._require_same(
            expected,
            found,
            f"{output.query}: table {rows.table} of {way}",
            rows.keys,
            self._late(output, settings),
        )
        told = f"{rows.table} is empty: nothing was compared; is every event rejected?"
        assert rows.table == "quarantine" or not expected.isEmpty(), told

    def _closed(self, output: Output, rows: RowSelector, settings: Settings) -> str | None:
        """Up to where the stream has written all rows; None where it writes them as they come."""
        lives = [each for each in live_queries(settings, output.job) if each.manifest.query == output.query]
        (live,) = lives
        if live.watermark is None or output.mode == "update":
            return None
        return (live.watermark - live.manifest.reach.back - live.manifest.reach.ahead).isoformat(sep=" ")

    def _compare_records(self, batch: Run, output: Output, rows: RowSelector, settings: Settings, way: str) -> None:
        """What this way has published, records that a replay has marked aside, and those of windows that are open."""
        topic = str(output.topic)
        since = self._published.get(topic, "earliest")
        subscription = source_sink.Subscription((topic,))
        found = source_sink.read_batch(self._spark, settings.kafka, settings.source, subscription, since)
        marked = F.exists(
            F.coalesce("headers", F.array().cast(source_sink.HEADERS)), lambda header: header.key == HEADER
        )
        expected = self._spark.read.format("delta").load(f"{batch.tables_root}/{topic}")
        ours = align_columns(found.where(~marked).withColumn("key", F.col("key").cast("string")), expected)
        closed = self._closed(output, rows, settings)
        if closed and source_sink.TIMESTAMP in expected.columns:
            is_closed = f"{source_sink.TIMESTAMP} < TIMESTAMP '{closed}'"
            expected, ours = expected.where(is_closed), ours.where(is_closed)
            assert not expected.isEmpty(), f"{topic}: no window was closed: nothing was compared"
        self._require_same(expected, ours, f"{output.query}: topic {topic} of {way}", ())
        self._published[topic] = resolve_offsets(settings.kafka, topic, "latest")

    def _late(self, output: Output, settings: Settings) -> int:
        late = read_rows(self._spark, paths.table(settings.paths.tables, paths.LATE), f"query = '{output.query}'")
        return late.count() if late is not None else 0

    def _require_same(
        self, expected: DataFrame, found: DataFrame, what: str, keys: tuple[str, ...], late: int = 0
    ) -> None:
        if fingerprint(expected) == fingerprint(found):
            return
        differing = differences(expected, found, keys)
        shown = "\n".join(map(str, differing.limit(SHOWN).collect()))
        count = differing.count()
        told = f"{what}: {count} rows are not those of a batch (left); rows that were too late: {late}"
        assert not count, f"{told}\n{shown}"


@pytest.fixture
def equivalence(
    spark: SparkSession, generated_code: None, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Equivalence]:
    """With a broker of its own, whose topics have the declared names."""
    seed = request.node.stash[SEEDED] = int(os.environ.get(VARIABLE, "1"))
    with Cluster(tmp_path / "broker", tmp_path / "logs", attached=True) as cluster:
        yield Equivalence(spark, cluster, tmp_path, seed)
