"""A bid or an auction at the edge of its types stops no query, and its figures are true."""

from datetime import UTC, datetime

import pytest
from pyspark.sql import DataFrame, SparkSession

from jobs.auctions import auction_bidding, bid_log, bids_by_daytime, bids_in_euros, seller_prices

pytestmark = pytest.mark.slow

LEAST, MOST = -(2**63), 2**63 - 1
EVENING, NOON = datetime(1969, 12, 31, 23, 59, tzinfo=UTC), datetime(1969, 12, 31, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def bids(spark: SparkSession) -> DataFrame:
    rows = [(1, 1, price, at, "c") for price in (LEAST, MOST, MOST, 5, 2_000_000) for at in (EVENING, NOON)]
    return spark.createDataFrame(rows, "auction long, bidder long, price long, bid_at timestamp, extra string")


def test_a_minute_before_1970_is_one_of_its_day(bids: DataFrame) -> None:
    minutes = {(row.day.isoformat(), row.minute) for row in bid_log.bid_log(bids).collect()}
    assert minutes == {("1969-12-31", "23:59"), ("1969-12-31", "12:00")}
    assert {row.daytime for row in bids_by_daytime.bids_by_daytime(bids).collect()} == {"night", "day"}


def test_prices_at_the_end_of_a_long_are_counted_and_stop_nothing(bids: DataFrame, spark: SparkSession) -> None:
    [day] = auction_bidding.auction_bidding(bids).collect()
    assert (day.total_bids, day.min_price, day.max_price) == (10, LEAST, MOST)
    assert day.sum_price == 2 * (5 + 2_000_000)
    assert bids_in_euros.bids_in_euros(bids).count() == 10
    rows = [(1, auction, MOST, NOON) for auction in range(3)]
    ends = spark.createDataFrame(rows, "seller long, auction long, price long, expires_at timestamp")
    assert [row.mean_price for row in seller_prices.seller_prices(ends).collect()] == [float(MOST)]
