"""Spark measures its Arrow batches, but not those of small records; the driver leaves to shards what it cannot hold."""

import pytest
from pyspark.sql import SparkSession

from jobs.connectors.exactly_once.shards import ARROW_BYTES, NO_LIMIT, SMALL_BYTES, arrow_batches, collect_rows


@pytest.mark.parametrize("record_bytes", [None, SMALL_BYTES + 1.0], ids=["unknown", "large"])
def test_batches_of_large_or_unknown_records_are_measured(spark: SparkSession, record_bytes: float | None) -> None:
    before = spark.conf.get(ARROW_BYTES)
    with arrow_batches(spark, record_bytes):
        assert spark.conf.get(ARROW_BYTES) == before != NO_LIMIT


def test_batches_of_small_records_are_not_and_the_limit_is_back_even_after_a_failure(spark: SparkSession) -> None:
    before = spark.conf.get(ARROW_BYTES)
    with pytest.raises(ZeroDivisionError), arrow_batches(spark, 24.0):
        assert spark.conf.get(ARROW_BYTES) == NO_LIMIT
        raise ZeroDivisionError
    assert spark.conf.get(ARROW_BYTES) == before


def test_rows_that_spark_cannot_give_are_left_to_shards(spark: SparkSession) -> None:
    rows = spark.range(3).selectExpr("cast(id as string) AS value")
    assert sum(batch.num_rows for batch in collect_rows(rows, None) or []) == 3
    bad = spark.range(3).selectExpr("cast(raise_error('not that') as string) AS value")
    assert collect_rows(bad, None) is None


def test_rows_that_have_to_be_sorted_come_in_one_order_over_all_partitions(spark: SparkSession) -> None:
    rows = spark.range(0, 20, 1, 4).selectExpr("cast(id as string) AS value", "-id AS at")
    batches = collect_rows(rows, "at") or []
    values = [value.decode() for batch in batches for value in batch.column("value").to_pylist()]
    assert values == [str(number) for number in reversed(range(20))]
