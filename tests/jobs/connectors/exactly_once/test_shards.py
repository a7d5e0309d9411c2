"""Spark measures its Arrow batches, except where records are known to be small."""

import pytest
from pyspark.sql import SparkSession

from jobs.connectors.exactly_once.shards import ARROW_BYTES, NO_LIMIT, SMALL_BYTES, arrow_batches


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
