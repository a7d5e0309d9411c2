"""Who won each auction, and at what price?

topics auctions, bids -> decode -> join -> winning_bids -> Delta table winning_bids, and encode -> topic winning_bids
    ./spark-submit.sh auctions.winning_bids --until-caught-up

Append mode: an auction's row is written once the watermark of both topics has passed its opening by REACH, when no bid
can be missing; table and topic get it both or neither. An auction without a bid has no winner. Nexmark's query 9, and
the first half of its queries 4 and 6 (auctions.category_prices, auctions.seller_prices).
"""

from collections.abc import Callable

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.auctions.transforms import bids_within_reach
from jobs.connectors.avro.encode import encode
from jobs.pipeline.run import Run
from schemas.registry import RegisteredSchema

LATENESS = "1 minute"  # as long as the join's REACH, so that a replay reads enough on both sides of a range
AUCTION = ("auction", "item", "category", "seller", "opened_at", "expires_at")
BID = ("bidder", "price", "bid_at")


def winning_bids(auctions: DataFrame, bids: DataFrame) -> DataFrame:
    """One row per auction that had a bid while it was open: the highest, of equal ones the earliest.

    Args:
        auctions: `auction`, `category`, `seller` long, `item` string, `opened_at`, `expires_at` timestamp.
        bids: `auction`, `bidder`, `price` long, `bid_at` timestamp.

    Returns:
        the fields of the contract winning_bid: those columns, of the bid that won.
    """
    joined = bids_within_reach(auctions.select(*AUCTION), bids.select("auction", *BID), LATENESS)
    in_time = joined.where(F.col("bid_at").between(F.col("opened_at"), F.col("expires_at")))
    earliest = (-F.unix_millis("bid_at")).alias("earliest")
    winner = F.max_by(F.struct(*BID), F.struct("price", earliest, "bidder"))
    return in_time.groupBy(*AUCTION).agg(winner.alias("winner")).select(*AUCTION, "winner.*")


def as_records(schema: RegisteredSchema) -> Callable[[DataFrame], DataFrame]:
    """Makes Kafka records of winning bids: `key` string (the auction), `value` binary (framed Avro)."""

    def records(winners: DataFrame) -> DataFrame:
        value = encode(F.struct(*AUCTION, *BID), schema)
        return winners.select(F.col("auction").cast("string").alias("key"), value.alias("value"))

    return records


def build(run: Run) -> None:
    winners = winning_bids(run.read("auctions"), run.read("bids"))
    records = as_records(run.latest_schema("winning_bids"))
    run.write_and_publish(winners, "winning_bids", "winning_bids", records, event_time="opened_at")
