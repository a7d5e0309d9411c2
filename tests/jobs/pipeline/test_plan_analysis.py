"""What a stream's plan says of itself before it starts."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.connectors.kafka.source_sink import COLUMNS
from jobs.connectors.spark_internals import optimization_barrier
from jobs.pipeline.pii import PADS
from jobs.pipeline.plan_analysis import (
    UNKNOWN_LENGTH,
    EventTimeSpan,
    TimeWindow,
    changes_when_run_again,
    drops_late_rows,
    event_time_span,
    keeps_state,
    repeats,
    time_windows,
)

Transform = Callable[[DataFrame], DataFrame]
MINUTE, HOUR, NONE = timedelta(minutes=1), timedelta(hours=1), timedelta(0)


def minutes(frame: DataFrame) -> DataFrame:
    return frame.withWatermark("timestamp", "1 minute")


@pytest.mark.parametrize(
    ("transform", "found"),
    [
        (lambda f: f.withColumn("r", F.rand()), "rand"),
        (lambda f: f.withColumn("u", F.expr("uuid()")).groupBy("u").count(), "uuid"),
        (lambda f: f.withColumn("p", F.spark_partition_id()), "spark_partition_id"),
        (lambda f: f.where(F.rand() < 0.5), "rand"),
        (lambda f: f.select(optimization_barrier(F.rand())), "rand"),
        (lambda f: f.select(optimization_barrier(F.col("value")) + F.rand()), "rand"),
        (lambda f: f.select(optimization_barrier(F.spark_partition_id())), "spark_partition_id"),
        (lambda f: f.groupBy("value").agg(F.first("timestamp")), "first()"),
        (lambda f: f.groupBy("value").agg(F.collect_list("timestamp")), "collect_list()"),
        (lambda f: f.limit(5), "limit"),
    ],
)
def test_what_gives_other_rows_when_run_again_is_named(transform: Transform, found: str, ticks: DataFrame) -> None:
    assert found in str(changes_when_run_again(transform(ticks))).lower()


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: f.where("value > 3").select("value"),
        lambda f: f.withColumn("now", F.current_timestamp()),
        lambda f: f.groupBy("value").agg(F.sort_array(F.collect_list("timestamp"))),
        lambda f: minutes(f).groupBy(F.window("timestamp", "1 minute")).agg(F.max_by("value", "timestamp")),
        lambda f: minutes(f).dropDuplicatesWithinWatermark(["value"]),
        lambda f: f.withColumn("text", F.lit("first(x)")),
        lambda f: f.select(optimization_barrier(F.col("value") + 1)),
    ],
)
def test_what_gives_the_same_rows_is_let_pass(transform: Transform, ticks: DataFrame) -> None:
    assert changes_when_run_again(transform(ticks)) is None


@pytest.mark.parametrize(
    ("transform", "stateful"),
    [
        (lambda f: f.where("value > 3").select("value"), False),
        (lambda f: f.groupBy("value").count(), True),
        (lambda f: minutes(f).dropDuplicatesWithinWatermark(["value"]), True),
        (lambda f: f.dropDuplicates(["value"]), True),
        (lambda f: f.join(f.sparkSession.range(3).withColumnRenamed("id", "value"), "value"), False),
        (lambda f: minutes(f).join(minutes(f.select("value", "timestamp")), ["value", "timestamp"]), True),
        (lambda f: f.join(f.sparkSession.range(3).groupBy("id").count(), F.expr("id = value")), False),
    ],
)
def test_whether_a_stream_keeps_state(transform: Transform, stateful: bool, ticks: DataFrame) -> None:
    assert keeps_state(transform(ticks)) is stateful


@pytest.mark.parametrize(
    ("transform", "drops"),
    [
        (lambda f: minutes(f).where("value > 3"), False),
        (lambda f: f.dropDuplicates(["value"]), False),
        (lambda f: minutes(f).dropDuplicatesWithinWatermark(["value"]), True),
    ],
)
def test_whether_a_stream_drops_late_rows(transform: Transform, drops: bool, ticks: DataFrame) -> None:
    assert drops_late_rows(transform(ticks)) is drops


@pytest.fixture(scope="module")
def records(spark: SparkSession) -> DataFrame:
    """A stream of a topic that nobody reads."""
    options = {"kafka.bootstrap.servers": "127.0.0.1:1", "subscribe": "none", "includeHeaders": "true"}
    return spark.readStream.format("kafka").options(**options).load().select(*COLUMNS)


def hashing(frame: DataFrame) -> DataFrame:
    return F.broadcast(frame.sparkSession.createDataFrame([(bytearray(1), bytearray(1))], PADS))


def hours(frame: DataFrame, *more: str) -> DataFrame:
    counted = minutes(frame).groupBy(F.window("timestamp", "2 hours", "1 hour"), *more).count()
    return counted.select(F.col("window.start").alias("Hour"), *more, "count")


@pytest.mark.parametrize(
    ("transform", "keys", "expected"),
    [
        (lambda f: f, ["key"], "last"),
        (lambda f: minutes(f).where("partition > 0").select("key", F.explode("headers")), ["key"], "last"),
        (lambda f: f.observe("rows", F.count("*").alias("n")).join(hashing(f)).select("key"), ["key"], "last"),
        (lambda f: hours(f, "partition"), ["hour", "partition"], "none"),
        (lambda f: hours(f, "partition").where("count > 1"), ["hour", "partition", "count"], "none"),
        (lambda f: hours(f, "partition"), ["hour"], "stop"),
        (lambda f: hours(f).withColumn("hour", F.date_trunc("day", "hour")), ["hour"], "stop"),
        (lambda f: minutes(f).dropDuplicatesWithinWatermark(["key"]), ["key", "topic"], "none"),
        (lambda f: minutes(f).dropDuplicatesWithinWatermark(["key", "topic"]), ["key"], "stop"),
        (lambda f: f.groupBy("key").count().select(F.col("key").alias("id"), "count"), ["id"], "none"),
        (lambda f: f.union(f), ["key"], "stop"),
        (lambda f: f.repartition(2), ["key"], "stop"),
        (lambda f: f.join(f.sparkSession.range(3), F.expr("id = partition")), ["key"], "stop"),
    ],
)
def test_whether_a_batch_may_have_a_key_twice_and_in_the_order_of_its_records(
    transform: Transform, keys: list[str], expected: str, records: DataFrame
) -> None:
    assert repeats(transform(records), keys) == expected


def test_rows_that_come_of_no_topic_are_in_no_order(ticks: DataFrame) -> None:
    assert repeats(ticks, ["value"]) == "stop"


@pytest.fixture(scope="module")
def minutely(ticks: DataFrame) -> DataFrame:
    return ticks.withWatermark("timestamp", "1 minute")


@pytest.mark.parametrize(
    ("grouping", "windows"),
    [
        (lambda: [F.window("timestamp", "1 hour"), "value"], [TimeWindow(HOUR, HOUR)]),
        (lambda: [F.window("timestamp", "1 day", "1 day", "5 hours")], [TimeWindow(24 * HOUR, 24 * HOUR)]),
        (lambda: [F.window("timestamp", "3 hours", "30 minutes")], [TimeWindow(3 * HOUR, HOUR / 2)]),
        (lambda: [F.window("timestamp", "1 hour", "40 minutes")], [TimeWindow(HOUR, HOUR * 2 / 3)]),
        (lambda: [F.session_window("timestamp", "30 minutes")], [TimeWindow(UNKNOWN_LENGTH, UNKNOWN_LENGTH)]),
        (lambda: ["value"], []),
    ],
)
def test_windows_and_how_far_their_rows_lie_from_their_events(
    grouping: Callable[[], list[Any]], windows: list[TimeWindow], minutely: DataFrame
) -> None:
    frame = minutely.groupBy(*grouping()).count()
    assert list(time_windows(frame.where("count > 1"))) == windows
    length = windows[0].length if windows else NONE
    assert event_time_span(frame) == EventTimeSpan(length, NONE, length + MINUTE)


def test_windows_of_windows_reach_as_far_as_both_and_a_join_as_far_as_lateness(minutely: DataFrame) -> None:
    inner = minutely.groupBy(F.window("timestamp", "10 minutes")).count()
    outer = inner.groupBy(F.window(F.window_time("window"), "1 hour")).count()
    assert event_time_span(outer) == EventTimeSpan(70 * MINUTE, NONE, 71 * MINUTE)
    joined = minutely.alias("a").join(minutely.alias("b"), F.expr("a.value = b.value"))
    assert event_time_span(joined) == EventTimeSpan(NONE, 2 * MINUTE, 2 * MINUTE)
