"""Following a query: each finished micro-batch once, no query left behind, failures in one line."""

from pathlib import Path

import pytest
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from notebooks.live import following


def started(spark: SparkSession, checkpoint: Path, column: Column) -> StreamingQuery:
    numbers = spark.readStream.format("rate-micro-batch").option("rowsPerBatch", 10).load()
    writer = numbers.select(column.alias("number")).writeStream.format("noop").queryName("numbers")
    return writer.option("checkpointLocation", str(checkpoint)).start()


def test_micro_batches_are_told_as_they_finish_and_the_query_is_stopped(spark: SparkSession, tmp_path: Path) -> None:
    query = started(spark, tmp_path, F.col("value"))
    with following(query) as micro_batches:
        told = [next(micro_batches) for _ in range(3)]
    batches = [progress.batchId for progress in told]
    assert batches == sorted(set(batches))
    assert {progress.numInputRows for progress in told} == {10}
    assert not query.isActive


def test_a_query_is_stopped_when_its_follower_fails(spark: SparkSession, tmp_path: Path) -> None:
    query = started(spark, tmp_path, F.col("value"))
    with pytest.raises(KeyboardInterrupt), following(query):
        raise KeyboardInterrupt
    assert not query.isActive


def test_a_failed_query_says_why_in_one_line(spark: SparkSession, tmp_path: Path) -> None:
    query = started(spark, tmp_path, F.raise_error(F.lit("no such airport")).cast("string"))
    with pytest.raises(TidemarkError) as failure, following(query) as micro_batches:
        list(micro_batches)
    assert failure.value.code == "QUERY_FAILED"
    assert "query numbers stopped: " in failure.value.message
    assert "no such airport" in failure.value.message
    assert "\n" not in failure.value.message
