"""The line a micro-batch prints, from queries that run."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyspark.sql import functions as F

from conf.rules import Range
from jobs import ingest
from jobs.connectors import avro
from jobs.progress import Counted, ProgressLines
from jobs.run import Run
from local.processes import wait_for
from tests.jobs.scratch import Scratch
from tests.sent import T0, Record


@contextmanager
def printing(run: Run) -> Iterator[None]:
    listener = ProgressLines(run.counted)
    run.spark.streams.addListener(listener)
    try:
        yield
    finally:
        run.spark.streams.removeListener(listener)


def lines(scratch: Scratch, run: Run, capsys: pytest.CaptureFixture[str], count: int) -> list[str]:
    """The first `count` lines of the run's output; the listener hears of a batch a little after it, of others' too."""
    found: list[str] = []

    def enough() -> bool:
        printed = capsys.readouterr().err.splitlines()
        found.extend(line for line in printed if line.startswith(f"{run.outputs[0].query} "))
        return len(found) >= count

    with printing(run):
        scratch.catch_up(run)
        wait_for(enough, 30, lambda: AssertionError(found))
    return found[:count]


def test_rows_lag_and_rejects_of_each_batch_are_shown(scratch: Scratch, capsys: pytest.CaptureFixture[str]) -> None:
    topic = scratch.topic()
    scratch.send(topic, scratch.reading(topic, "a", 1), Record(b"bad"), scratch.reading(topic, "b", 2))
    run = scratch.run("source.max_offsets_per_trigger=2")
    run.append(run.read(topic), "levels")
    first, second = lines(scratch, run, capsys, 2)
    assert first.startswith("probe.levels ")
    assert "  2 rows  " in first
    assert " rows/s  lag 1  rejected 1" in first
    assert "batch 1  1 rows" in second
    assert "lag 0  rejected 0" in second
    assert "watermark" not in first + second
    assert "state" not in first + second


def test_watermark_state_and_late_rows_of_a_stateful_query_are_shown(
    scratch: Scratch, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = scratch.topic()
    reading = scratch.reading(topic, "a", 1)
    scratch.send(topic, *(Record(reading.value, timestamp=T0 + minute * 60_000) for minute in (0, 90, 90, 90, 1, 95)))
    run = scratch.run("source.max_offsets_per_trigger=2")
    events = avro.accepted(run.decode(run.records(topic), topic), F.col("timestamp"))
    hours = events.withWatermark("timestamp", "0 seconds").groupBy(F.window("timestamp", "1 hour")).count()
    run.append(hours.select("window.start", "count"), "hours")
    # A row is late by the watermark that the batch before last has brought.
    first, second, third = lines(scratch, run, capsys, 3)
    assert "state 2 rows  late 0  rejected 0" in first
    assert "watermark 2013-01-01 07:30  state 1 rows  late 0" in second
    assert "late 1" in third


def test_an_output_that_reads_its_batch_twice_shows_each_record_once_and_what_failed_which_rule(
    scratch: Scratch, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = scratch.topic()
    scratch.declare(topic, Range(name="low", on_failure="warn", field="level", max=0))
    scratch.send(topic, scratch.reading(topic, "a", 1), Record(b"bad"))
    run = scratch.run(f"ingest.topics={topic}", job="ingest")
    ingest.build(run)
    (line,) = lines(scratch, run, capsys, 1)
    assert line.startswith(f"ingest.{topic} ")
    assert "batch 0  2 rows" in line
    assert line.endswith("rejected 1  rules low 1")
    assert list(run.counted.values()) == [Counted(2, 1, {"low": 1})]
