"""Which batches the driver publishes itself, and what it does with one that it cannot hold."""

import pytest
from pyspark.sql import SparkSession

from jobs.connectors.exactly_once.small_batch import FIRST_RECORDS, MOST_BYTES, Published, collected, is_small

MOST = 5_000
EVEN = Published(1_000, 1_000, 100_000)


@pytest.mark.parametrize(
    ("read", "before", "small"),
    [
        (0, None, True),
        (FIRST_RECORDS, None, True),
        (FIRST_RECORDS + 1, None, False),
        (None, None, False),
        (MOST, EVEN, True),
        (MOST + 1, EVEN, False),
        # A filter may let more pass the next time, but not more than it reads.
        (MOST, Published(1_000, 10, 1_000), True),
        (MOST, Published(1_000, 2_000, 2_000), False),  # twice as many leave as come
        (MOST // 2, Published(1_000, 2_000, 2_000), True),
        (100, Published(1_000, 1_000, 1_000 * MOST_BYTES // 99), False),
        (None, Published(None, 1_000, 1_000), True),
        (None, Published(None, 1_300, 1_300), False),
        (10, Published(None, 1_300, 1_300), False),
        (0, EVEN, True),
    ],
)
def test_a_batch_is_small_by_what_it_reads_and_by_the_one_before(
    read: int | None, before: Published | None, small: bool
) -> None:
    assert is_small(read, before, MOST) is small


@pytest.mark.parametrize("before", [None, EVEN])
def test_no_batch_of_records_is_small_where_the_setting_is_0(before: Published | None) -> None:
    assert not is_small(1, before, 0)


def test_rows_that_spark_cannot_give_are_left_to_shards(spark: SparkSession) -> None:
    rows = spark.range(3).selectExpr("cast(id as string) AS value")
    assert sum(batch.num_rows for batch in collected(rows, None) or []) == 3
    bad = spark.range(3).selectExpr("cast(raise_error('not that') as string) AS value")
    assert collected(bad, None) is None


def test_rows_that_have_to_be_sorted_come_in_one_order_over_all_partitions(spark: SparkSession) -> None:
    rows = spark.range(0, 20, 1, 4).selectExpr("cast(id as string) AS value", "-id AS at")
    batches = collected(rows, "at") or []
    values = [value.decode() for batch in batches for value in batch.column("value").to_pylist()]
    assert values == [str(number) for number in reversed(range(20))]
