"""How many topics may one `ingest` have?

It is started as users start it, with so many topics of few records. `catch-up`: by
`./spark-submit.sh ingest --until-caught-up`, whose queries take turns. `continuous`: all queries at once, for
RUN_SECONDS from when each topic has had a batch; each topic gets PULSE records with each trigger.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from bench.growth.process import Watched
from bench.growth.workbench import Row, Workbench, summary
from bench.ingest import read_all
from conf import ROOT
from conf.settings import Settings
from conf.topics import subject_of
from jobs.pipeline.monitoring.micro_batch_table import micro_batches
from local.demo import records_in
from schemas.registry import FileRegistry

POINTS, SMALL, ARMS = (1, 10, 50), (1, 3), ("catch-up", "continuous")
RECORDS, PULSE = 400, 40  # of a topic, and of a topic and trigger
TRIGGER_SECONDS, RUN_SECONDS, START_SECONDS = 5, 60, 300
WEEK = "2013-01-08"
Values = Sequence[tuple[bytes, bytes]]


def measure(bench: Workbench, arm: str, points: Sequence[int]) -> Iterator[Row]:
    bench.publish_flights(WEEK)
    kafka = bench.settings().kafka
    values = read_all(kafka, records_in(bench.settings(), "departures"))[:RECORDS]
    for count in points:
        topics = [bench.create(f"small_{arm}_{count}_{number}") for number in range(count)]
        sets = _settings(bench, topics, f"topics/{arm}-{count}")
        yield {"arm": arm, "topics": count} | MEASURES[arm](bench, sets, values)


def _settings(bench: Workbench, topics: Sequence[str], name: str) -> list[str]:
    """The settings of an `ingest` of topics whose schema is that of departures."""
    registry = FileRegistry(bench.folder / "registry")
    departures = FileRegistry(ROOT / "schemas" / "registry").latest(subject_of("departures")).text
    for topic in topics:
        registry.register(subject_of(topic), departures)
    own = [f"ingest.topics={','.join(topics)}", f"registry.path={bench.folder / 'registry'}"]
    return [*own, *bench.places(name), f"spark.trigger={TRIGGER_SECONDS} seconds"]


def _catch_up(bench: Workbench, sets: Sequence[str], values: Values) -> dict[str, Any]:
    settings = bench.settings(*sets)
    for topic in settings.ingest.topics:
        bench.publish(topic, values)
    with Watched(_command(bench, sets, "--until-caught-up"), bench.folder / "said") as run:
        run.wait_for_end()
    return _row(settings, run, run.seconds, datetime.fromtimestamp(0, UTC), len(settings.ingest.topics))


def _continuous(bench: Workbench, sets: Sequence[str], values: Values) -> dict[str, Any]:
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
        row = _row(settings, run, until_all_began, since, len(topics) * RUN_SECONDS // TRIGGER_SECONDS)
        run.end()
    return row


MEASURES = {"catch-up": _catch_up, "continuous": _continuous}


def _command(bench: Workbench, sets: Sequence[str], *words: str) -> list[str]:
    return [str(ROOT / "spark-submit.sh"), "ingest", *bench.words(*sets), *words]


def _row(settings: Settings, run: Watched, seconds: float, since: datetime, due: int) -> dict[str, Any]:
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
