"""The line a micro-batch prints, from queries that run."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import functions as F
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    StreamingQueryProgress,
)

from conf.rules import Range
from jobs.ingest import job
from jobs.pipeline import progress as pipeline_progress
from jobs.pipeline.progress import Counted, ProgressLines, offsets_of_batch, progress_line
from jobs.pipeline.run import Run
from local.processes import wait_for
from tests.jobs.connectors.avro.framed import events_of
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
        found.extend(line for line in printed if line[10:].startswith(f"{run.outputs[0].query} "))
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
    assert re.match(r"\d\d:\d\d:\d\dZ probe\.levels ", first)
    assert "  2 rows  " in first
    assert " rows/s  lag 1  rejected 1" in first
    assert "batch 1  1 rows" in second
    assert "lag 0  rejected 0" in second
    assert "watermark" not in first + second
    assert "state" not in first + second


@pytest.mark.slow
def test_watermark_state_and_late_rows_of_a_stateful_query_are_shown(
    scratch: Scratch, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = scratch.topic()
    reading = scratch.reading(topic, "a", 1)
    scratch.send(topic, *(Record(reading.value, timestamp=T0 + minute * 60_000) for minute in (0, 90, 90, 90, 1, 95)))
    run = scratch.run("source.max_offsets_per_trigger=2")
    events = events_of(run.decode(run.records(topic), topic), F.col("timestamp"))
    hours = events.withWatermark("timestamp", "0 seconds").groupBy(F.window("timestamp", "1 hour")).count()
    run.append(hours.select("window.start", "count"), "hours")
    # A row is late by the watermark that the batch before last has brought.
    first, second, third = lines(scratch, run, capsys, 3)
    assert "lag 4  state 2 rows  late 0  rejected 0" in first  # no watermark yet
    assert "watermark 2013-01-01 07:30  state 1 rows  late 0" in second
    assert "late 1" in third


@pytest.mark.slow
def test_an_output_that_reads_its_batch_twice_shows_each_record_once_and_what_failed_which_rule(
    scratch: Scratch, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = scratch.topic()
    scratch.declare(topic, Range(name="low", on_failure="warn", field="level", max=0))
    scratch.send(topic, scratch.reading(topic, "a", 1), Record(b"bad"))
    run = scratch.run(f"ingest.topics={topic}", job="ingest")
    job.build(run)
    (line,) = lines(scratch, run, capsys, 1)
    assert f"Z ingest.{topic} " in line
    assert "batch 0  2 rows" in line
    assert line.endswith("rejected 1  rules low 1")
    size = sum(len(part or b"") for row in scratch.rows(f"bronze/{topic}", "key", "value") for part in row)
    assert list(run.counted.values()) == [Counted(2, 1, {"low": 1}, {"BAD_FRAMING": 1}, size)]


def progress(**parts: Any) -> StreamingQueryProgress:
    """A micro-batch as Spark reports it, with what a test says of it."""
    whole = {
        "id": "00000000-0000-0000-0000-000000000001",
        "runId": "00000000-0000-0000-0000-000000000002",
        "name": "probe.levels",
        "timestamp": "2026-01-31T12:00:00.000Z",
        "batchId": 3,
        "batchDuration": 2000,
        "numInputRows": 10,
        "inputRowsPerSecond": 5.0,
        "processedRowsPerSecond": 5.0,
        "durationMs": {"triggerExecution": 2000},
        "eventTime": {},
        "stateOperators": [],
        "sources": [],
        "sink": {"description": "", "numOutputRows": 10, "metrics": {}},
        "observedMetrics": {},
    }
    return StreamingQueryProgress.fromJson(whole | parts)


def source(end: str | None, latest: str | None) -> dict[str, Any]:
    return {
        "description": "KafkaV2",
        "startOffset": None,
        "endOffset": end,
        "latestOffset": latest,
        "numInputRows": 10,
        "inputRowsPerSecond": 5.0,
        "processedRowsPerSecond": 5.0,
        "metrics": {},
    }


def state(rows: int, metrics: dict[str, int]) -> dict[str, Any]:
    names = ("numRowsUpdated", "allUpdatesTimeMs", "numRowsRemoved", "allRemovalsTimeMs", "commitTimeMs")
    counts = dict.fromkeys((*names, "numRowsDroppedByWatermark"), 0)
    places = {"numShufflePartitions": 2, "numStateStoreInstances": 2}
    known = {"operatorName": "transformWithState", "numRowsTotal": rows, "memoryUsedBytes": 2_500_000}
    return {**counts, **places, **known, "customMetrics": metrics}


END, LATEST = '{"t":{"0":5,"1":5}}', '{"t":{"0":9,"1":5}}'


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"sources": [source(END, LATEST)]}, "rows/s  lag 4  rejected 0"),
        # Run again after a kill: its offsets come from the checkpoint, the topics' ends are not known.
        ({"sources": [source(END, None)]}, "rows/s  rejected 0"),
        ({"sources": [source(END, LATEST), source(END, None)]}, "rows/s  rejected 0"),
        ({"sources": [source(None, None)]}, "rows/s  lag 0  rejected 0"),
        ({"eventTime": {"watermark": "1970-01-01T00:00:00.000Z"}}, "rows/s  lag 0  rejected 0"),
        (
            {"eventTime": {"watermark": "1970-01-01T00:00:01.000Z"}},
            "rows/s  lag 0  watermark 1970-01-01 00:00  rejected 0",
        ),
        (
            {"eventTime": {"watermark": "20000-01-01T00:00:00.000Z"}},
            "rows/s  lag 0  watermark 20000-01-01T00:00:00.000Z  rejected 0",
        ),
        ({"stateOperators": [state(7, {})]}, "rows/s  lag 0  state 7 rows  late 0  rejected 0"),
        ({"stateOperators": [state(0, {})]}, "rows/s  lag 0  state 0 rows  late 0  rejected 0"),
        # RocksDB does not count its rows here.
        ({"stateOperators": [state(0, {"rocksdbPutCount": 7})]}, "rows/s  lag 0  state 2.5 MB  late 0  rejected 0"),
    ],
)
def test_what_is_not_known_is_left_out(parts: dict[str, Any], expected: str) -> None:
    assert progress_line(progress(**parts)) == f"{'probe.levels':<28} batch 3  10 rows  5 {expected}"


def test_an_idle_query_says_so_once_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(datetime(2026, 1, 31, 12, minute, second, tzinfo=UTC) for minute in range(9) for second in (0, 20, 40))
    monkeypatch.setattr(pipeline_progress, "datetime", SimpleNamespace(now=lambda zone: next(clock)))
    lines, batch = ProgressLines({}), progress(sources=[source(END, END)])
    lines.onQueryStarted(QueryStartedEvent(batch.id, batch.runId, "probe.levels", batch.timestamp, set()))  # 12:00:00
    lines.onQueryProgress(QueryProgressEvent(batch))  # 12:00:20
    for _ in range(7):  # 12:00:40 to 12:02:40
        lines.onQueryIdle(QueryIdleEvent(batch.id, batch.runId, batch.timestamp))
    _, *idle = capsys.readouterr().err.splitlines()
    assert idle == [
        f"12:01:20Z {'probe.levels':<28} idle since 12:00:20Z",
        f"12:02:20Z {'probe.levels':<28} idle since 12:00:20Z",
    ]


def test_of_a_topic_that_is_joined_with_itself_each_unread_record_is_one() -> None:
    first, second = source('{"t":{"0":5,"1":5}}', LATEST), source('{"t":{"0":7,"1":5}}', LATEST)
    assert "  lag 4  " in progress_line(progress(sources=[first, second]))
    spans = offsets_of_batch({"from": [{"t": {"0": 2}}, {"t": {"0": 1}}], "until": [{"t": {"0": 5}}, {"t": {"0": 7}}]})
    assert spans == [{"topic": "t", "partition": 0, "start": 1, "end": 5}]
