"""What a version before has written goes on: its topics, tables, checkpoints, ledgers, progress and replays.

`tests/fixtures/make_upgrade.py` says what the archives hold, and makes one for another version.
"""

import io
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from pyspark.sql import DataFrame, SparkSession

from conf import ROOT
from conf.errors import TidemarkError
from conf.settings import Settings, load
from jobs import catalog
from jobs.arguments import parse_maintain
from jobs.connectors.kafka import source_sink
from jobs.operations.checkpoint_doctor.diagnosis import Diagnosis, Doctor
from jobs.operations.maintenance.commands import reports
from jobs.operations.replay.commands import Steps
from jobs.operations.replay.live_job import live_queries
from jobs.operations.replay.plan import ReplayRequest, plan_range
from jobs.operations.replay.record import Replay, Replays
from jobs.operations.replay.row_comparison import align_all, align_columns, differences
from jobs.pipeline.outputs import Output, RowSelector
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import supervise
from local.broker import Cluster
from local.cli import COMMANDS
from producers.flights.data_set import load_source
from tests.kinds import of_a_kind

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

JOB, REPLAYED = "flights.everything", "flights.hourly_delays"
ARCHIVES = sorted((ROOT / "tests" / "fixtures").glob("upgrade-*.tar.xz"))
FIRST_DAYS, THIRD_DAY = ("2013-01-01", "2013-01-03"), ("2013-01-03", "2013-01-04")
TOPICS = {"departures": 4, "arrivals": 4, "cancellations": 2, "weather": 2, "planes": 1, "delay_alerts": 2}
LATE_AIRPORT = "ZZZ"  # of the two flights that came too late, and of no other
WITH_WATERMARK = {
    *("flights.unique_departures", "flights.hourly_delays", "flights.rolling_delays", "flights.weather_impact"),
    *("flights.disruptions", "flights.busiest_routes", "flights.overdue"),
}


@dataclass
class Upgraded:
    """What was unpacked, and what the commands of this version make of it."""

    spark: SparkSession
    folder: Path
    servers: str

    @property
    def overrides(self) -> dict[str, str]:
        paths = {f"paths.{name}": str(self.folder / name) for name in ("tables", "checkpoints", "logs")}
        registry = str(self.folder / "registry")
        return {"kafka.bootstrap_servers": self.servers, "registry.path": registry} | paths

    @property
    def settings(self) -> Settings:
        return load("local", [f"{key}={value}" for key, value in self.overrides.items()])

    def command(self, name: str, *words: str) -> tuple[int, str]:
        """The exit code of `local/tidemark NAME WORDS`, and what it has printed."""
        module, _, function = COMMANDS[name].target.partition(":")
        sets = [word for key, value in self.overrides.items() for word in ("--set", f"{key}={value}")]
        with redirect_stdout(io.StringIO()) as printed:
            code = getattr(import_module(module), function)([*words, *sets])
        return int(code), printed.getvalue()

    def publish(self, first: str, end: str, *more: str) -> str:
        code, printed = self.command("publish", "flights", "--from", first, "--to", end, "--exactly-once", *more)
        assert code == 0
        return printed

    def ends(self) -> dict[str, int]:
        """The end offset of each topic, summed up over its partitions."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "upgrade"})
        ends = {
            topic: sum(consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=60)[1] for n in range(count))
            for topic, count in TOPICS.items()
        }
        consumer.close()
        return ends

    def repeat_newest(self) -> int:
        """Send the newest departure of each partition again; how many were sent."""
        own = {"group.id": "upgrade", "isolation.level": "read_committed", "enable.partition.eof": True}
        consumer = Consumer({"bootstrap.servers": self.servers, **own})
        producer = Producer({"bootstrap.servers": self.servers})
        for number in range(TOPICS["departures"]):
            consumer.assign([TopicPartition("departures", number, 0)])
            newest = max(until_end(consumer), key=lambda message: message.timestamp()[1])
            producer.produce("departures", newest.value(), newest.key(), number, timestamp=newest.timestamp()[1])
        consumer.close()
        assert producer.flush(60) == 0
        return TOPICS["departures"]

    def run(self) -> None:
        """Every job, until it has caught up."""
        run = Run(self.spark, self.settings, JOB)
        catalog.load(JOB).build(run)
        supervise(self.spark, run.starts(continuous=False), at_once=self.settings.spark.queries_at_once)
        run.settle()

    def diagnoses(self) -> list[Diagnosis]:
        run = Run(self.spark, self.settings, JOB)
        catalog.load(JOB).build(run)
        return list(Doctor(self.spark, self.settings, run).diagnoses())

    def table(self, name: str) -> DataFrame:
        return self.spark.read.format("delta").load(f"{self.settings.paths.tables}/{name}")

    def steps(self, replay: Replay) -> Steps:
        return Steps(self.spark, self.settings, catalog.load(replay.job).build, print, lambda: None)


def until_end(consumer: Consumer) -> Iterator[Message]:
    while message := consumer.poll(60):
        if error := message.error():
            assert error.code() == KafkaError._PARTITION_EOF, error
            return
        yield message


def unpack(archive: Path, folder: Path) -> None:
    """Files are as new as if they had been written now: what is old enough is removed by Delta, and by `maintain`."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter=lambda member, path: tarfile.data_filter(member.replace(mtime=0), path))
    for path in folder.rglob("*"):
        path.touch()
    relocate(folder)


def relocate(folder: Path) -> None:
    """Spark writes into the state of transformWithState, and nowhere else, in which folder the checkpoint lies."""
    for path in folder.glob("checkpoints/*/*/state/*/_metadata/v2/*"):
        if path.is_file() and (text := path.read_text(errors="ignore")).startswith("v"):
            path.write_text(re.sub(r"(?<=\")[^\"]*(?=/checkpoints/)", f"file:{folder}", text))
            path.with_name(f".{path.name}.crc").unlink(missing_ok=True)


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name)
def unpacked(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Iterator[Upgraded]:
    folder = tmp_path_factory.mktemp("upgrade")
    unpack(request.param, folder)
    sys.path.insert(0, str(folder))  # its data set is a part of the installed one
    with Cluster(folder / "broker", folder / "logs", attached=True) as broker:
        yield Upgraded(spark, folder, broker.bootstrap_servers)
    sys.path.remove(str(folder))


@dataclass
class GoneOn:
    """`upgraded` after its jobs have gone on, and what was seen on the way."""

    upgraded: Upgraded
    before: list[Diagnosis]
    repeated: int
    ends: list[dict[str, int]]

    def table(self, name: str) -> DataFrame:
        return self.upgraded.table(name)


@pytest.fixture(scope="module")
def gone_on(unpacked: Upgraded) -> GoneOn:
    """The doctor was asked; what was cut short was published and redriven; every job has gone on."""
    before = unpacked.diagnoses()
    repeated = unpacked.repeat_newest()
    ends = [unpacked.ends()]
    for act in (
        lambda: unpacked.publish(*FIRST_DAYS, "--duplicates", "0.02"),
        lambda: unpacked.publish(*THIRD_DAY),
        lambda: unpacked.command("quarantine", "redrive", "--all"),
        lambda: unpacked.command("quarantine", "redrive", "--all"),
        unpacked.run,
    ):
        act()
        ends.append(unpacked.ends())
    return GoneOn(unpacked, before, repeated, ends)


def test_the_doctor_finds_every_checkpoint_safe(gone_on: GoneOn) -> None:
    answers = {diagnosis.query: (diagnosis.answer, diagnosis.reasons) for diagnosis in gone_on.before}
    assert set(answers.values()) == {("safe", ())}, answers
    assert {query.partition("/")[0] for query in answers} > WITH_WATERMARK


def test_what_was_published_under_a_name_is_not_published_again(gone_on: GoneOn) -> None:
    assert gone_on.ends[1] == gone_on.ends[0]


def test_a_publication_that_was_cut_short_goes_on_and_sends_each_event_once(gone_on: GoneOn) -> None:
    third_day = "scheduled_departure_at >= '2013-01-03 05:00' AND scheduled_departure_at < '2013-01-04 05:00'"
    departures = [row.flight_id for row in gone_on.table("silver/departures").where(third_day).collect()]
    flights = load_source().flights.to_pandas()
    flown = flights[(flights.month == 1) & (flights.day == 3) & flights.dep_time.notna()]
    assert (len(set(departures)), len(departures)) == (len(flown), len(flown) + gone_on.repeated)


def test_a_reject_is_redriven_once(gone_on: GoneOn) -> None:
    _, _, published, redriven, again, _ = gone_on.ends
    assert again == redriven != published
    sent = [of for topic in ("departures", "arrivals") for of in redrives(gone_on.table(f"bronze/{topic}"))]
    assert Counter(sent).most_common(1)[0][1] == 1
    open_before = gone_on.table("quarantine").where("quarantined_at < current_timestamp()")
    rejected = {f"{row.topic}/{row.partition}/{row.offset}" for row in open_before.collect()}
    assert set(sent) <= rejected


def redrives(bronze: DataFrame) -> list[str]:
    """The coordinates of the rejects that records were sent for."""
    headers = bronze.selectExpr("explode(headers) AS header").where("header.key = 'tidemark.redrive.of'")
    return [bytes(row.header.value).decode() for row in headers.collect()]


def test_every_record_is_in_every_table_and_output_topic_once(gone_on: GoneOn) -> None:
    code, printed = gone_on.upgraded.command("coverage", "check", "--complete")
    assert code == 0, printed


def test_rows_that_came_late_are_listed_once_those_of_the_run_that_was_killed_too(gone_on: GoneOn) -> None:
    listed = gone_on.table("late").where(f"row LIKE '%{LATE_AIRPORT}%'").select("job", "offset").collect()
    assert Counter(map(tuple, listed)).most_common(1)[0][1] == 1
    assert {job: sum(row.job == job for row in listed) for job in WITH_WATERMARK} == dict.fromkeys(WITH_WATERMARK, 2)


@pytest.mark.exhaustive
def test_the_tables_and_the_topic_hold_what_one_batch_over_all_records_gives(gone_on: GoneOn) -> None:
    upgraded = gone_on.upgraded
    batch = Run(upgraded.spark, upgraded.settings, JOB, ("earliest", "latest"))
    catalog.load(JOB).build(batch)
    batch.write_range()
    compared = [
        require_same(upgraded, batch, output, rows)
        for output in batch.outputs
        for rows in output.tables
        if output.topic or rows.can_select or rows.keys
    ]
    assert len(compared) >= len(batch.outputs)
    assert min(compared) > 0, compared


def require_same(upgraded: Upgraded, batch: Run, output: Output, rows: RowSelector) -> int:
    """Compare what `output` has written with the batch's, without late rows and windows that are open; the rows."""
    path = f"{batch.tables_root}/{rows.table}"
    if not Path(path).exists():
        return 1
    expected = upgraded.spark.read.format("delta").load(path)
    if output.topic:
        subscription = source_sink.Subscription((output.topic,))
        settings = upgraded.settings
        found = source_sink.read_batch(upgraded.spark, settings.kafka, settings.source, subscription)
        found = found.withColumn("key", found.key.cast("string"))
    else:
        found = upgraded.table(rows.table)
    where = " AND ".join(
        [
            f"origin <> '{LATE_AIRPORT}'" if "origin" in expected.columns else "true",
            f"`{rows.event_time}` < TIMESTAMP '{closed(upgraded.settings, output)}'"
            if output.mode == "append" and rows.event_time and output.job in WITH_WATERMARK
            else "true",
        ]
    )
    expected, found = expected.where(where), found.where(where)
    found = align_columns(found, expected) if output.topic else found
    expected, found = align_all((expected, found), rows.stamps)
    differing = differences(expected, found, rows.keys)
    assert not (shown := differing.limit(3).collect()), (output.query, rows.table, shown)
    return expected.count()


def closed(settings: Settings, output: Output) -> str:
    """Up to where the stream has written all rows."""
    (live,) = (live for live in live_queries(settings, output.job) if live.manifest.query == output.query)
    assert live.watermark
    return (live.watermark - live.manifest.reach.back - live.manifest.reach.ahead).isoformat(sep=" ")


@pytest.mark.exhaustive
def test_a_replay_that_older_code_planned_is_abandoned_and_planned_again(gone_on: GoneOn) -> None:
    upgraded = gone_on.upgraded
    planned = {replay.job: replay for replay in Replays(upgraded.settings).all()}
    assert {replay.state for replay in planned.values()} == {"planned"}
    for replay in planned.values():
        with pytest.raises(TidemarkError, match="CODE_CHANGED"):
            upgraded.steps(replay).run(replay)
        assert upgraded.steps(replay).abandon(replay).state == "abandoned"
    request = planned[REPLAYED].request
    again = plan_range(upgraded.settings, ReplayRequest(REPLAYED, request["from"], request["to"]))
    steps = upgraded.steps(again)
    ran, found = steps.verify(steps.run(Replays(upgraded.settings).keep(again)))
    assert [(finding.unlike_check, finding.unexplained) for finding in found] == [(0, 0)]
    assert late_departures(upgraded) == []
    done = steps.cut_over(ran, accept=False)
    assert late_departures(upgraded) == [2]
    assert upgraded.command("coverage", "check", "--complete")[0] == 0
    steps.undo(done)
    assert late_departures(upgraded) == []


def late_departures(upgraded: Upgraded) -> list[int]:
    """Those of the hour in which both late flights left."""
    return [row.departures for row in upgraded.table("hourly_delays").where(f"origin = '{LATE_AIRPORT}'").collect()]


@pytest.mark.parametrize("action", of_a_kind(["tables", "checkpoints", "ledgers", "state"], ["checkpoints", "ledgers"]))
def test_maintenance_goes_on(action: str, gone_on: GoneOn) -> None:
    upgraded = gone_on.upgraded
    found = list(reports(upgraded.spark, upgraded.settings, parse_maintain([action])))
    failures = [report for report in found if getattr(report, "failed", "") or getattr(report, "problem", "")]
    assert (found != [], failures) == (True, [])
