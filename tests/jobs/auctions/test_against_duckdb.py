"""Every query on auctions gives what duckdb makes of the same events, row for row.

The SQL is the benchmark's, in duckdb's words: without bounds of time on joins, and with exact distinct counts.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.auctions import (
    annotated_bids,
    auction_bidding,
    balances,
    bid_counts,
    bid_log,
    bidder_sessions,
    bids_by_arrival,
    bids_by_daytime,
    bids_in_euros,
    category_bids,
    category_prices,
    channel_bidding,
    channel_ids,
    daily_bidding,
    every_bid,
    highest_bid,
    hot_auctions,
    last_bids,
    local_sellers,
    new_sellers,
    sampled_auctions,
    seller_prices,
    top_bids,
    url_folders,
    winning_bids,
)
from jobs.connectors.delta.table import newest
from producers.auctions import AuctionHouse, auction_tables
from producers.transfers import Bank, transfer_blocks

pytestmark = pytest.mark.slow

COUNT = 6_000
# A minute of event time, a second of it out of order: the first bids are made before midnight.
HOUSE = AuctionHouse(seed=14, events_per_second=100, disorder_ms=1_000)
NOW = datetime(2025, 1, 1, 12, 0, 7, tzinfo=UTC)
Duck = duckdb.DuckDBPyConnection


@pytest.fixture(scope="module")
def events() -> dict[str, pa.Table]:
    """Topic -> events, of the auction house and of the bank."""
    (moved,) = transfer_blocks(Bank(seed=14, accounts=20), 1_000)
    return auction_tables(HOUSE, COUNT) | moved.tables


@pytest.fixture(scope="module")
def duck(events: dict[str, pa.Table]) -> Iterator[Duck]:
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        for name, table in events.items():
            connection.register(name, table)
        yield connection


@pytest.fixture(scope="module")
def frames(spark: SparkSession, events: dict[str, pa.Table]) -> dict[str, DataFrame]:
    return {name: spark.createDataFrame(table).cache() for name, table in events.items()}


def check(duck: Duck, found: DataFrame, expected: str) -> None:
    """Compare rows as multisets, and columns by name; doubles may differ by a billionth."""
    duck.register("found", found.toArrow())
    duck.execute(f"create or replace temp table expected as {expected}")
    names = [name for name, *_ in duck.execute("describe expected").fetchall()]
    assert sorted(names) == sorted(found.columns)
    columns = ", ".join(
        f"round({name}, 6) as {name}" if kind == "DOUBLE" else name
        for name, kind, *_ in duck.execute("describe expected").fetchall()
    )
    one_way = f"select {columns} from expected except all select {columns} from found"
    other_way = f"select {columns} from found except all select {columns} from expected"
    assert duck.execute(f"select * from ({one_way}) limit 5").fetchall() == []
    assert duck.execute(f"select * from ({other_way}) limit 5").fetchall() == []
    assert duck.execute("select count(*) from expected").fetchall() != [(0,)]


def test_q0_every_bid(duck: Duck, frames: dict[str, DataFrame]) -> None:
    check(duck, every_bid.every_bid(frames["bids"]), "select auction, bidder, price, bid_at, extra from bids")


def test_q1_bids_in_euros(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = "select auction, bidder, (0.908 * price)::decimal(23, 3) as price, bid_at, extra from bids"
    check(duck, bids_in_euros.bids_in_euros(frames["bids"]), expected)


def test_q2_sampled_auctions(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = "select auction, price from bids where auction % 123 = 0"
    check(duck, sampled_auctions.sampled_auctions(frames["bids"]), expected)


def test_q3_local_sellers(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = """
        select name, city, state, auction, opened_at from auctions join persons on seller = person
        where category = 10 and state in ('OR', 'ID', 'CA')"""
    check(duck, local_sellers.local_sellers(frames["persons"], frames["auctions"]), expected)


WINNERS = """
    select a.auction, item, category, seller, opened_at, expires_at, bidder, price, bid_at
    from auctions a join bids b on a.auction = b.auction and bid_at between opened_at and expires_at
    qualify row_number() over (partition by a.auction order by price desc, bid_at, bidder desc) = 1"""


def winners(frames: dict[str, DataFrame]) -> DataFrame:
    return winning_bids.winning_bids(frames["auctions"], frames["bids"])


def test_q4_category_prices(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = f"select category, count(*) as auctions, avg(price) as mean_price from ({WINNERS}) group by category"
    check(duck, category_prices.category_prices(winners(frames)), expected)


def test_q5_hot_auctions(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = """
        with windows as (
            select auction, time_bucket(interval 2 seconds, bid_at) - to_seconds(2 * slide) as window_start
            from bids, range(5) as slides(slide)
        ), counted as (select window_start, auction, count(*) as bids from windows group by all)
        select window_start, window_start + interval 10 seconds as window_end, auction, bids
        from counted qualify bids = max(bids) over (partition by window_start)"""
    check(duck, hot_auctions.hot_auctions(frames["bids"]), expected)


def test_q6_seller_prices(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = f"""
        select seller, count(*)::int as auctions, avg(price) as mean_price
        from (
            from ({WINNERS})
            qualify row_number() over (partition by seller order by expires_at desc, auction desc) <= 10
        ) group by seller"""
    check(duck, seller_prices.seller_prices(winners(frames)), expected)


def test_q7_highest_bid(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = """
        select time_bucket(interval 10 seconds, bid_at) as window_start, auction, bidder, price, bid_at, extra from bids
        qualify row_number() over (partition by window_start order by price desc, bid_at) = 1"""
    check(duck, highest_bid.highest_bid(frames["bids"]), expected)


def test_q8_new_sellers(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = """
        select distinct time_bucket(interval 10 seconds, registered_at) as window_start, person, name
        from persons join auctions on seller = person
            and time_bucket(interval 10 seconds, opened_at) = time_bucket(interval 10 seconds, registered_at)"""
    check(duck, new_sellers.new_sellers(frames["persons"], frames["auctions"]), expected)


def test_q9_winning_bids(duck: Duck, frames: dict[str, DataFrame]) -> None:
    check(duck, winners(frames), WINNERS)


def test_q10_bid_log(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = """
        select auction, bidder, price, bid_at, extra, bid_at::date as day, strftime(bid_at, '%H:%M') as minute
        from bids"""
    check(duck, bid_log.bid_log(frames["bids"]), expected)


def test_q11_bidder_sessions(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = """
        with gaps as (
            select bidder, bid_at, bid_at - lag(bid_at) over bids_of >= interval 10 seconds as is_apart
            from bids window bids_of as (partition by bidder order by bid_at)
        ), numbered as (
            select *, count(*) filter (is_apart) over (partition by bidder order by bid_at) as session from gaps
        )
        select bidder, count(*) as bids, min(bid_at) as began_at, max(bid_at) + interval 10 seconds as ended_at
        from numbered group by bidder, session"""
    check(duck, bidder_sessions.bidder_sessions(frames["bids"]), expected)


def test_q12_bids_by_arrival(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = (
        "select timestamptz '2025-01-01 12:00:00Z' as window_start, bidder, count(*) as bids from bids group by all"
    )
    check(duck, bids_by_arrival.bids_by_arrival(frames["bids"], F.lit(NOW)), expected)


def test_q13_annotated_bids(duck: Duck, frames: dict[str, DataFrame], spark: SparkSession) -> None:
    expected = "select auction, bidder, price, bid_at, 'note ' || auction % 10000 as note from bids"
    check(duck, annotated_bids.annotated_bids(frames["bids"], annotated_bids.notes(spark)), expected)


def test_q14_bids_by_daytime(duck: Duck, frames: dict[str, DataFrame]) -> None:
    # The same minute at each hour of a day.
    hours = "(select * replace (bid_at + to_hours(hour) as bid_at) from bids, range(24) as hours(hour))"
    all_day = frames["bids"].crossJoin(frames["bids"].sparkSession.range(24).withColumnRenamed("id", "hour"))
    moved = all_day.withColumn("bid_at", F.timestamp_millis(F.unix_millis("bid_at") + F.col("hour") * 3_600_000))
    expected = f"""
        select auction, bidder, (0.908 * price)::decimal(23, 3) as price,
            case when hour(bid_at) between 8 and 18 then 'day' when hour(bid_at) in (7, 19) then 'other'
            else 'night' end as daytime, bid_at, extra, len(regexp_extract_all(extra, 'c'))::int as cs
        from {hours} where 0.908 * price > 1000000 and 0.908 * price < 50000000"""
    check(duck, bids_by_daytime.bids_by_daytime(moved), expected)


LEVELS = {"total": "true", "level1": "price < 10000", "level2": "price >= 10000 and price < 1000000"} | {
    "level3": "price >= 1000000"
}
COUNTS = ", ".join(f"count(*) filter ({level}) as {name}_bids" for name, level in LEVELS.items())
DISTINCT = ", ".join(
    f"(count(distinct {column}) filter ({level}))::int as {name}_{column}s"
    for column in ("bidder", "auction")
    for name, level in LEVELS.items()
)
DAY = "date_trunc('day', bid_at)::timestamptz as day"


def test_q15_daily_bidding(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = f"select {DAY}, {COUNTS}, {DISTINCT} from bids group by day"
    check(duck, daily_bidding.daily_bidding(frames["bids"]), expected)


def test_q16_channel_bidding(duck: Duck, frames: dict[str, DataFrame]) -> None:
    minute = "max(date_trunc('minute', bid_at)) as last_minute"
    expected = f"select {DAY}, channel, {minute}, {COUNTS}, {DISTINCT} from bids group by day, channel"
    check(duck, channel_bidding.channel_bidding(frames["bids"]), expected)


def test_q17_auction_bidding(duck: Duck, frames: dict[str, DataFrame]) -> None:
    prices = "min(price) as min_price, max(price) as max_price, avg(price) as mean_price"
    total = "sum(price)::bigint as sum_price"
    expected = f"select {DAY}, auction, {COUNTS}, {prices}, {total} from bids group by day, auction"
    check(duck, auction_bidding.auction_bidding(frames["bids"]), expected)


def test_q18_last_bids(duck: Duck, frames: dict[str, DataFrame]) -> None:
    order = ", ".join(f"{name} desc" for name in last_bids.LATEST)
    expected = f"from bids qualify row_number() over (partition by bidder, auction order by {order}) = 1"
    written = last_bids.last_bids(frames["bids"])
    check(duck, newest(written, last_bids.KEYS, last_bids.LATEST), expected)


def test_q19_top_bids(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = """
        select *, (row_number() over (partition by auction order by price desc, bid_at, bidder desc))::int as rank
        from bids qualify rank <= 10"""
    check(duck, top_bids.top_bids(frames["bids"]), expected)


def test_q20_category_bids(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = """
        select b.* exclude (extra), b.extra as bid_extra, a.* exclude (auction, extra), a.extra as auction_extra
        from bids b join auctions a on b.auction = a.auction where category = 10"""
    check(duck, category_bids.category_bids(frames["auctions"], frames["bids"]), expected)


def test_q21_channel_ids(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = r"""
        select auction, bidder, price, channel, bid_at, case lower(channel) when 'apple' then '0' when 'google' then '1'
            when 'facebook' then '2' when 'baidu' then '3' else nullif(regexp_extract(url, 'channel_id=(\d+)', 1), '')
            end as channel_id
        from bids where channel_id is not null"""
    check(duck, channel_ids.channel_ids(frames["bids"]), expected)


def test_q22_url_folders(duck: Duck, frames: dict[str, DataFrame]) -> None:
    folders = ", ".join(f"string_split(url, '/')[{3 + number}] as folder{number}" for number in (1, 2, 3))
    expected = f"select auction, bidder, price, channel, {folders}, bid_at from bids"
    check(duck, url_folders.url_folders(frames["bids"]), expected)


def test_bid_counts(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = """
        select auction, time_bucket(interval 10 seconds, bid_at) as window_start, count(*) as bids
        from bids group by all"""
    check(duck, bid_counts.bid_counts(frames["bids"]), expected)


def test_balances_sum_to_zero(duck: Duck, frames: dict[str, DataFrame]) -> None:
    expected = """
        select account, sum(change)::bigint as balance, count(*) as transfers from (
            select from_account as account, -amount as change from transfers
            union all select to_account, amount from transfers
        ) group by account"""
    check(duck, balances.balances(frames["transfers"]), expected)
    assert duck.execute("select sum(balance) from found").fetchall() == [(0,)]
