"""Measures how jobs grow that are started as users start them: `ingest` with its topics, a cluster with executors."""

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pyspark

from bench.workbench import WEEK, YEAR, Record, Row, Workbench, cpu_seconds, summary
from conf import ROOT
from conf.settings import Settings
from conf.topics import subject_of
from jobs.pipeline.monitoring.micro_batch_table import micro_batches
from local.processes import wait_for
from schemas.registry import FileRegistry
from tests.standalone import standalone_cluster

POLL_SECONDS = 0.5
RECORDS, PULSE = 400, 40  # of a topic, and of a topic and trigger
TRIGGER_SECONDS, RUN_SECONDS, START_SECONDS = 5, 60, 300
EXECUTORS_BATCH = {"ingest": 40_000, "flights.hourly_delays": 80_000}
EXECUTORS_OPTIONS = ["--executor-memory", "800m", "--conf", "spark.driver.host=127.0.0.1"]


def measure_topics(bench: Workbench, arm: str, points: Sequence[int]) -> Iterator[Row]:
    """Measure how many topics one `ingest` may have.

    It is started as users start it, with so many topics of few records. `catch-up`: by
    `./spark-submit.sh ingest --until-caught-up`, whose queries take turns. `continuous`: all queries at once, for
    RUN_SECONDS from when each topic has had a batch; each topic gets PULSE records with each trigger.
    """
    bench.publish_flights(WEEK)
    values = bench.read_topic("departures")[:RECORDS]
    for count in points:
        topics = [bench.create(f"small_{arm}_{count}_{number}") for number in range(count)]
        sets = _ingest_settings(bench, topics, f"topics/{arm}-{count}")
        yield {"arm": arm, "topics": count} | (_catch_up if arm == "catch-up" else _continuous)(bench, sets, values)


def _ingest_settings(bench: Workbench, topics: Sequence[str], name: str) -> list[str]:
    """The settings of an `ingest` of topics whose schema is that of departures."""
    registry = FileRegistry(bench.folder / "registry")
    departures = FileRegistry(ROOT / "schemas" / "registry").latest(subject_of("departures")).text
    for topic in topics:
        registry.register(subject_of(topic), departures)
    sets = [f"ingest.topics={','.join(topics)}", f"registry.path={bench.folder / 'registry'}"]
    return [*sets, *bench.places(name), f"spark.trigger={TRIGGER_SECONDS} seconds"]


def _catch_up(bench: Workbench, sets: Sequence[str], values: Sequence[Record]) -> dict[str, Any]:
    settings = bench.settings(*sets)
    for topic in settings.ingest.topics:
        bench.publish(topic, values)
    with Watched(_command(bench, sets, "--until-caught-up"), bench.folder / "said") as run:
        run.wait_for_end()
    return _topics_row(settings, run, run.seconds, datetime.fromtimestamp(0, UTC), len(settings.ingest.topics))


def _continuous(bench: Workbench, sets: Sequence[str], values: Sequence[Record]) -> dict[str, Any]:
    settings = bench.settings(*sets)
    topics = settings.ingest.topics
    for topic in topics:
        bench.publish(topic, values[:PULSE])
    with Watched(_command(bench, sets), bench.folder / "said") as run:
        run.wait(lambda: len(_batches(settings)) >= len(topics), START_SECONDS)
        until_all_began, began, since = run.seconds, time.monotonic(), datetime.now(UTC)
        run.begin()
        for number in range(1, RUN_SECONDS // TRIGGER_SECONDS + 1):
            for topic in topics:
                bench.publish(topic, values[:PULSE])
            due = began + number * TRIGGER_SECONDS
            run.wait(lambda due=due: time.monotonic() >= due, RUN_SECONDS)  # type: ignore[misc]
        row = _topics_row(settings, run, until_all_began, since, len(topics) * RUN_SECONDS // TRIGGER_SECONDS)
        run.end()
    return row


def _command(bench: Workbench, sets: Sequence[str], *words: str) -> list[str]:
    return [str(ROOT / "spark-submit.sh"), "ingest", *bench.words(*sets), *words]


def _topics_row(settings: Settings, run: "Watched", seconds: float, since: datetime, due: int) -> dict[str, Any]:
    """`seconds`: of the whole, or, of a continuous run, until each topic had had a batch; the others are of the time
    after that."""
    batches = [batch for batch in _batches(settings) if batch["ended_at"] and batch["began_at"] >= since]
    cpu = run.cpu_seconds()
    return {
        "seconds": seconds,
        "batches": len(batches),
        "due": due,
        **summary([float(dict(batch["phases"])["triggerExecution"]) for batch in batches]),
        "cpu_s": cpu,
        "cpu_s_a_batch": cpu / len(batches),
        "mb": run.most_bytes / 1e6,
        "threads": run.most_threads,
    }


def _batches(settings: Settings) -> list[dict[str, Any]]:
    """The micro-batches of the run with records, as its journal has them."""
    queries = {f"ingest.{topic}" for topic in settings.ingest.topics}
    return [row for row in micro_batches(settings).to_pylist() if row["query"] in queries and row["rows_in"]]


def measure_executors(bench: Workbench, arm: str, points: Sequence[int]) -> Iterator[Row]:
    """Measure what another executor gives.

    A backlog is read by a standalone cluster on loopback with so many workers of one core. `ingest` reads, checks and
    appends, without a shuffle; `flights.hourly_delays` shuffles, keeps state and merges. Rows a second are those of the
    batches after the first, which compiles code. On a machine whose cores are fewer than executors, driver and broker,
    what counts is how much of processors a record takes with more executors: with cores to spare a run is as much
    faster as that stays the same.
    """
    os.environ.setdefault("SPARK_HOME", str(Path(pyspark.__file__).parent))
    bench.publish_flights(YEAR)
    for executors in points:
        folder = bench.folder / f"cluster-{arm}-{executors}"
        folder.mkdir()
        with standalone_cluster(folder, executors) as master:
            yield {"job": arm, "executors": executors} | _executors_row(bench, arm, executors, master)


def _executors_row(bench: Workbench, job: str, executors: int, master: str) -> dict[str, float]:
    sets = [*bench.places(f"executors/{job}-{executors}"), "ingest.topics=departures"]
    sets += [f"jobs.{job}.max_offsets_per_trigger={EXECUTORS_BATCH[job]}", f"spark.shuffle_partitions={executors}"]
    command = [str(ROOT / "spark-submit.sh"), job, "--until-caught-up", *bench.words(*sets)]
    before = _cluster_seconds()
    with Watched([*command, "--", "--master", master, *EXECUTORS_OPTIONS], bench.folder / "said") as run:
        run.wait_for_end()
    # What they used is told once they have ended, and their workers have waited for them.
    executor = "CoarseGrainedExecutorBackend"
    family = psutil.Process().children
    wait_for(lambda: not _named(executor, family(recursive=True)), 30, lambda: AssertionError("executors go on"))
    of_executors = _cluster_seconds() - before
    batches = micro_batches(bench.settings(*sets)).to_pylist()
    first, *others = [row for row in batches if row["query"].startswith(job) and row["rows_in"]]
    warm = sum(dict(row["phases"])["triggerExecution"] for row in others) / 1_000
    records = sum(row["rows_in"] for row in others)
    return {
        "seconds": run.seconds,
        "first_s": dict(first["phases"])["triggerExecution"] / 1_000,
        "records_s": records / warm,
        "driver_cpu_s": run.cpu_seconds(),
        "executor_cpu_s": of_executors,
        "cpu_s_a_million": (run.cpu_seconds() + of_executors) / (records + first["rows_in"]) * 1e6,
    }


def _cluster_seconds() -> float:
    """What master, workers, and executors that have ended, used of processors."""
    daemons = _named("org.apache.spark.deploy", psutil.Process().children())
    return sum(sum(daemon.cpu_times()[:4]) for daemon in daemons)


def _named(word: str, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have a word in their command line, and have not ended."""
    named = []
    for process in processes:
        with suppress(psutil.Error):
            named += [process] if any(word in part for part in process.cmdline()) else []
    return named


class Watched:
    """A context manager that starts a command, and ends it where it still runs; what it says goes to a file.

    `wait_for_end` and `wait` watch it; both raise SystemExit where it fails or takes too long.

    Attributes:
        most_bytes, most_threads: of all its processes, resident, at the same moment.
    """

    def __init__(self, command: Sequence[str], said: Path) -> None:
        self._command, self._said = command, said
        self.most_bytes = self.most_threads = 0
        self._used_before = 0.0
        self._used = 0.0
        self._ended = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        with self._said.open("w") as said:
            self._process = psutil.Popen(self._command, stdout=said, stderr=said)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if not self._ended:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except psutil.TimeoutExpired:
                self._process.kill()

    @property
    def seconds(self) -> float:
        """Since it was started; until its end, once that was waited for."""
        return (self._ended or time.monotonic()) - self._began

    def begin(self) -> None:
        """Let `cpu_seconds` count from now on."""
        self._used_before = cpu_seconds(self._family())

    def cpu_seconds(self) -> float:
        """What its processes used of processors; of one that has ended, all that it used."""
        return (self._used or cpu_seconds(self._family())) - self._used_before

    def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        """Watch until the condition holds."""
        due = time.monotonic() + seconds
        while not condition():
            if self._process.poll() is not None or time.monotonic() > due:
                raise self._failure()
            self._look()
            time.sleep(POLL_SECONDS)

    def wait_for_end(self) -> None:
        """Watch until it has ended well."""
        if self._wait_for_end():
            raise self._failure()

    def end(self) -> None:
        """End it in order, whatever its exit code says of that."""
        self._process.send_signal(signal.SIGTERM)
        self._wait_for_end()

    def _wait_for_end(self) -> int:
        while True:
            # By wait4, which tells what it and those that it waited for have used.
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                break
            self._look()
            time.sleep(POLL_SECONDS)
        self._ended, self._used = time.monotonic(), usage.ru_utime + usage.ru_stime
        return status

    def _failure(self) -> SystemExit:
        return SystemExit(f"{' '.join(self._command)}: {self._said.read_text()[-2000:]}")

    def _look(self) -> None:
        with suppress(psutil.Error):
            family = self._family()
            self.most_bytes = max(self.most_bytes, sum(process.memory_info().rss for process in family))
            self.most_threads = max(self.most_threads, sum(process.num_threads() for process in family))

    def _family(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]
