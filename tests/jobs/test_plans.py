"""What a stream's plan says of itself before it starts."""

from collections.abc import Callable

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.connectors.fence import fenced
from jobs.plans import changes_when_run_again, drops_late_rows, keeps_state

Transform = Callable[[DataFrame], DataFrame]


@pytest.fixture(scope="module")
def ticks(spark: SparkSession) -> DataFrame:
    """A stream with `timestamp` and `value`, observed as the jobs' are."""
    return spark.readStream.format("rate").load().observe("rows", F.count("*").alias("n"))


def minutes(frame: DataFrame) -> DataFrame:
    return frame.withWatermark("timestamp", "1 minute")


@pytest.mark.parametrize(
    ("transform", "found"),
    [
        (lambda f: f.withColumn("r", F.rand()), "rand"),
        (lambda f: f.withColumn("u", F.expr("uuid()")).groupBy("u").count(), "uuid"),
        (lambda f: f.withColumn("p", F.spark_partition_id()), "spark_partition_id"),
        (lambda f: f.where(F.rand() < 0.5), "rand"),
        (lambda f: f.select(fenced(F.rand())), "rand"),
        (lambda f: f.select(fenced(F.col("value")) + F.rand()), "rand"),
        (lambda f: f.select(fenced(F.spark_partition_id())), "spark_partition_id"),
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
        lambda f: f.select(fenced(F.col("value") + 1)),
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
