"""The table `late` over whole runs: it holds what Spark counts as dropped, each row once, with its record."""

import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.streaming.listener import StreamingQueryProgress

from conf.errors import TidemarkError
from jobs.flights.overdue_state import SCHEMA, ArrivalsBoard
from jobs.pipeline.late_rows import LateRows
from jobs.pipeline.outputs import OutputMode
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from tests.jobs.scratch import Row, Scratch
from tests.kinds import of_a_kind
from tests.sent import T0

Transform = Callable[[DataFrame], DataFrame]
MINUTE_MS = 60_000
BEGAN = datetime.fromtimestamp(T0 / 1000, UTC)


def send(scratch: Scratch, topic: str, *readings: tuple[str, int, int]) -> list[Row]:
    """Send readings (id, minute of the event, partition); each record's (partition, offset, minute)."""
    records = [scratch.reading(topic, id, 1, partition, at=T0 + at * MINUTE_MS) for id, at, partition in readings]
    placed = scratch.send(topic, *records)
    return [(*place, at) for place, (_, at, _) in zip(placed, readings, strict=True)]


def without_repeats(events: DataFrame) -> DataFrame:
    return events.dropDuplicatesWithinWatermark(["id", "at"])


def hourly(events: DataFrame) -> DataFrame:
    return events.groupBy(F.window("at", "1 hour"), "id").count()


def rolling(events: DataFrame) -> DataFrame:
    return without_repeats(events).groupBy(F.window("at", "1 hour", "20 minutes"), "id").count()


def declared(scratch: Scratch, topic: str, transform: Transform, batch_size: int, mode: OutputMode = "append") -> Run:
    # Heap state cannot hold what transformWithState keeps.
    store = "rocksdb" if transform is board else "heap"
    run = scratch.run(f"source.max_offsets_per_trigger={batch_size}", f"jobs.probe.state_store={store}")
    events = run.read(topic)
    events = events if transform is through_python else events.withWatermark("at", "0 seconds")
    run.write(transform(events), "probe", lambda batch: batch.frame.write.format("noop").mode("append").save(), mode)
    return run


def progress_of(scratch: Scratch, run: Run) -> list[StreamingQueryProgress]:
    """Run until caught up; what Spark says of each micro-batch."""
    queries = run.start(continuous=False)
    await_all(scratch.spark, queries)
    run.settle()
    return list(queries[0].recentProgress)


def counted(progress: list[StreamingQueryProgress]) -> dict[int, int]:
    """Spark's own count, by batch."""
    late = {each.batchId: sum(op.numRowsDroppedByWatermark for op in each.stateOperators) for each in progress}
    return {batch: count for batch, count in late.items() if count}


def listed(scratch: Scratch) -> dict[int, int]:
    """What the table has for that count, by batch."""
    counts: Counter[int] = Counter()
    for batch, dropped in scratch.rows("late", "batch", "dropped"):
        counts[batch] += dropped
    return dict(counts)


def dropped_by_hand(progress: list[StreamingQueryProgress], sent: list[Row]) -> list[Row]:
    """(batch, partition, offset) of the records whose event time the watermark of the batch before had passed."""
    found, watermark = [], datetime.fromtimestamp(0, UTC)
    for each in progress:
        (source,) = each.sources
        starts, ends = (_offsets(text) for text in (source.startOffset, source.endOffset))
        for partition, offset, minute in sent:
            is_in_batch = starts.get(partition, 0) <= offset < ends.get(partition, 0)
            if is_in_batch and BEGAN + timedelta(minutes=minute) <= watermark:
                found.append((each.batchId, partition, offset))
        watermark = datetime.fromisoformat(each.eventTime["watermark"])
    return sorted(found)


def _offsets(text: str | None) -> dict[int, int]:
    (partitions,) = (json.loads(text or "null") or {"": {}}).values()
    return {int(partition): offset for partition, offset in partitions.items()}


@pytest.mark.slow
def test_each_dropped_row_is_listed_with_its_record_and_the_watermark(scratch: Scratch) -> None:
    topic = scratch.topic(2, event_time="at")
    send(scratch, topic, ("a", 0, 0), ("b", 200, 1))
    send(scratch, topic, ("c", 201, 0), ("d", 202, 1))
    late = send(scratch, topic, ("e", 5, 0), ("f", 6, 1))
    progress = progress_of(scratch, declared(scratch, topic, lambda f: hourly(without_repeats(f)), 2))
    assert counted(progress) == {2: 2}
    watermark = BEGAN.replace(tzinfo=None) + timedelta(minutes=200)
    columns = ("batch", "operator", "watermark", "topic", "partition", "offset", "event_time", "row", "dropped", "note")
    expected = [
        (2, "DeduplicateWithinWatermark", watermark, topic, partition, offset, at, row, 1, None)
        for (partition, offset, minute), id in zip(late, "ef", strict=True)
        for at in [BEGAN.replace(tzinfo=None) + timedelta(minutes=minute)]
        for row in [f'{{"id":"{id}","at":"{at.isoformat()}.000Z"}}']
    ]
    assert scratch.rows("late", *columns) == sorted(expected, key=str)
    (names,) = {tuple(row) for row in scratch.rows("late", "job", "query")}
    assert names == ("probe", "probe")


@pytest.mark.slow
def test_a_query_without_state_has_no_table_of_late_rows_and_no_mark_in_its_checkpoint(scratch: Scratch) -> None:
    topic = scratch.topic(event_time="at")
    send(scratch, topic, ("a", 100, 0), ("b", 0, 0), ("c", 0, 0))
    progress_of(scratch, declared(scratch, topic, lambda events: events.where("level > 0"), 1))
    assert scratch.rows("late") == []
    assert not (scratch.folder / "checkpoints" / "probe" / "probe" / "tidemark" / "late.json").exists()


def joined(events: DataFrame) -> DataFrame:
    others = events.select(F.col("id").alias("other"), F.col("at").alias("other_at"))
    return events.join(others, F.expr("id = other AND at BETWEEN other_at AND other_at + INTERVAL 10 minutes"))


def by_session(events: DataFrame) -> DataFrame:
    return events.groupBy(F.session_window("at", "5 minutes"), "id").agg(F.count("*").alias("count"))


def board(events: DataFrame) -> DataFrame:
    """Repeats and, beside them, all readings as reports: one side of the board has passed an operator before."""
    reports = [each.selectExpr("at", *REPORT) for each in (without_repeats(events), events)]
    destinations = reports[0].union(reports[1]).groupBy("destination")
    return destinations.transformWithStateInPandas(ArrivalsBoard(), SCHEMA, "Append", "EventTime")


def with_names(events: DataFrame) -> DataFrame:
    names = events.sparkSession.createDataFrame([("a", "x"), ("b", "y"), ("c", "z")], "id string, name string")
    return without_repeats(events.join(F.broadcast(names), "id"))


def doubled(events: DataFrame) -> DataFrame:
    twice = events.where(F.current_timestamp() > F.col("at")).withColumn("part", F.explode(F.array(F.lit(1), F.lit(2))))
    return twice.dropDuplicatesWithinWatermark(["id", "at", "part"])


def through_a_function(events: DataFrame) -> DataFrame:
    upper = F.udf(str.upper, "string")
    return events.withColumn("name", upper("id")).dropDuplicatesWithinWatermark(["name", "at"])


def through_python(events: DataFrame) -> DataFrame:
    """What a function makes of rows is rows that nobody can tell the record of; the watermark comes after it."""
    made = events.mapInPandas(lambda frames: frames, events.schema)
    return without_repeats(made.withWatermark("at", "0 seconds"))


REPORT = (
    "concat(id, unix_millis(at)) AS flight_id",
    "'UA' AS carrier",
    "level AS flight",
    "CAST(NULL AS string) AS tail_number",
    "'EWR' AS origin",
    "id AS destination",
    "true AS is_departure",
    "unix_millis(at) AS happened_ms",
    "unix_millis(at) AS waits_until_ms",
)
TRANSFORMS: dict[str, tuple[Transform, OutputMode]] = {
    "repeats": (without_repeats, "append"),
    "repeats by key": (lambda events: events.dropDuplicates(["id", "at"]), "append"),
    "hours": (hourly, "update"),
    "hours of one id": (lambda events: hourly(events).where("id = 'a'"), "append"),
    "rolling hours": (lambda events: events.groupBy(F.window("at", "1 hour", "20 minutes"), "id").count(), "append"),
    "rolling hours without repeats": (rolling, "update"),
    "all hours": (hourly, "complete"),
    "sessions": (by_session, "append"),
    "join": (joined, "append"),
    "join of repeats": (lambda events: joined(without_repeats(events)), "append"),
    "board": (board, "append"),
    "repeats with names": (with_names, "append"),
    "doubled": (doubled, "append"),
    "repeats of a function": (through_a_function, "append"),
    "python": (through_python, "append"),
}
OF_EACH_OPERATOR = ("hours", "sessions", "join", "board")


@pytest.mark.slow
@pytest.mark.parametrize("name", of_a_kind(TRANSFORMS, OF_EACH_OPERATOR))
def test_the_table_has_what_spark_counts_however_batches_are_cut(name: str, scratch: Scratch) -> None:
    transform, mode = TRANSFORMS[name]
    chance = random.Random(name)
    topic = scratch.topic(2, event_time="at")
    readings = [
        (chance.choice("abc"), max(0, 24 * step + chance.randint(-400, 10)), chance.randint(0, 1)) for step in range(30)
    ]
    # Rows are dropped behind the watermark of two batches ago: the first batch's is past 0, and the last has rows at 0.
    first, last = [("a", 120, each) for each in (0, 1)], [(id, 0, each) for id in "ab" for each in (0, 1)]
    sent = send(scratch, topic, *first, *readings, *last)
    run = declared(scratch, topic, transform, chance.randint(4, 12), mode)
    progress = progress_of(scratch, run)
    assert listed(scratch) == counted(progress)
    assert bool(counted(progress)) is (mode != "complete")
    assert {note for (note,) in scratch.rows("late", "note")} <= {None}
    places = scratch.rows("late", "batch", "partition", "offset")
    assert all((None in place) is (name == "python") for place in places)
    if name.startswith("repeats"):
        assert sorted(places) == dropped_by_hand(progress, sent)


def late_in_the_last_batch(scratch: Scratch, partitions: int = 1) -> tuple[str, list[Row]]:
    """A topic whose third batch of two has two late readings."""
    topic = scratch.topic(partitions, event_time="at")
    send(scratch, topic, ("a", 0, 0), ("b", 200, 0), ("c", 201, 0), ("d", 202, 0))
    return topic, send(scratch, topic, ("e", 5, 0), ("f", 6, 0))


def offsets(scratch: Scratch) -> list[int]:
    return [offset for (offset,) in scratch.rows("late", "offset")]


@pytest.mark.slow
@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_driver_that_dies_around_the_listing_leaves_each_late_row_once(
    dies: str, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, _ = late_in_the_last_batch(scratch)
    send(scratch, topic, ("g", 203, 0), ("h", 204, 0))
    listing = LateRows.before

    def die(late: LateRows, session: Any, batch: int) -> None:
        if batch == 3 and dies == "after":
            listing(late, session, batch)
        if batch == 3:
            raise OSError("power cut")
        listing(late, session, batch)

    with monkeypatch.context() as patched, pytest.raises(TidemarkError, match="power cut"):
        patched.setattr(LateRows, "before", die)
        progress_of(scratch, declared(scratch, topic, without_repeats, 2))
    assert offsets(scratch) == ([4, 5] if dies == "after" else [])
    progress_of(scratch, declared(scratch, topic, without_repeats, 2))
    assert offsets(scratch) == [4, 5]
    progress_of(scratch, declared(scratch, topic, without_repeats, 2))
    assert offsets(scratch) == [4, 5]


@pytest.mark.slow
def test_what_a_run_left_unsettled_the_next_one_lists_though_nothing_has_come_since(scratch: Scratch) -> None:
    topic, _ = late_in_the_last_batch(scratch)
    await_all(scratch.spark, declared(scratch, topic, without_repeats, 2).start(continuous=False))
    assert offsets(scratch) == []
    progress_of(scratch, declared(scratch, topic, without_repeats, 2))
    assert offsets(scratch) == [4, 5]
    # A mark that is cut short is none.
    mark = scratch.folder / "checkpoints" / "probe" / "probe" / "tidemark" / "late.json"
    mark.write_text('{"ba')
    mark.with_name(".late.json.crc").unlink(missing_ok=True)
    progress_of(scratch, declared(scratch, topic, without_repeats, 2))
    assert offsets(scratch) == [4, 5]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_rows_are_late_by_the_same_watermark_after_a_restart(scratch: Scratch) -> None:
    topic, _ = late_in_the_last_batch(scratch)
    first = progress_of(scratch, declared(scratch, topic, without_repeats, 2))
    send(scratch, topic, ("i", 7, 0), ("j", 203, 0), ("k", 203, 0), ("l", 202, 0))
    second = progress_of(scratch, declared(scratch, topic, without_repeats, 2))
    assert listed(scratch) == counted([*first, *second])
    assert sum(listed(scratch).values()) == 4


@pytest.mark.exhaustive
@pytest.mark.slow
def test_late_rows_whose_records_retention_has_taken_are_counted_without_them(
    scratch: Scratch, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, _ = late_in_the_last_batch(scratch)
    monkeypatch.setattr(LateRows, "before", lambda *_: None)
    run = declared(scratch, topic, without_repeats, 2)
    await_all(scratch.spark, run.start(continuous=False))
    admin = AdminClient({"bootstrap.servers": run.settings.kafka.bootstrap_servers, "log_level": 0})
    for deleted in admin.delete_records([TopicPartition(topic, 0, 5)]).values():
        deleted.result()
    run.settle()
    assert scratch.rows("late", "batch", "dropped", "offset", "row", "note") == [
        (2, 2, None, None, "retention has passed its records")
    ]
    assert "batch 2 of probe: 2 late rows are counted without their records: retention" in capsys.readouterr().err


@pytest.mark.slow
def test_an_event_of_1970_is_late_in_the_first_batch(scratch: Scratch) -> None:
    topic = scratch.topic(event_time="at")
    scratch.send(topic, *(scratch.reading(topic, "a", 1, at=at) for at in (-1000, 0, 1)))
    progress = progress_of(scratch, declared(scratch, topic, without_repeats, 10))
    assert listed(scratch) == counted(progress) == {0: 2}
    assert offsets(scratch) == [0, 1]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_rows_of_a_source_that_cannot_be_read_again_are_counted_with_the_reason(scratch: Scratch) -> None:
    topic, _ = late_in_the_last_batch(scratch)
    (scratch.folder / "files").mkdir()
    (scratch.folder / "files" / "one.json").write_text('{"id": "z", "level": 1, "at": "2013-01-02 00:00:00"}')
    files = scratch.spark.readStream.schema("id string, level int, at timestamp").json(str(scratch.folder / "files"))

    def with_files(events: DataFrame) -> DataFrame:
        return without_repeats(events.union(files.withWatermark("at", "0 seconds")))

    progress = progress_of(scratch, declared(scratch, topic, with_files, 2))
    assert counted(progress) == {2: 2}
    assert scratch.rows("late", "batch", "dropped", "topic", "note") == [
        (2, 2, None, "its source StreamingRelation is not Kafka's")
    ]
