"""Which bids were made for things of category 10, and for what?

topics auctions, bids -> decode -> join -> category_bids -> Delta table category_bids
    ./spark-submit.sh auctions.category_bids --until-caught-up

Append mode: a bid is written as soon as it and its auction are there. The benchmark remembers both sides for ever;
here they meet within REACH of event time. Nexmark's query 20.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.auctions.transforms import bids_within_reach
from jobs.pipeline.run import Run

CATEGORY = 10
LATENESS = "1 minute"  # as long as the join's REACH, so that a replay reads enough on both sides of a range
BID = ("bidder", "price", "channel", "url", "bid_at", "bid_extra")
AUCTION = (
    "item",
    "description",
    "initial_bid",
    "reserve",
    "opened_at",
    "expires_at",
    "seller",
    "category",
    "auction_extra",
)


def category_bids(auctions: DataFrame, bids: DataFrame) -> DataFrame:
    """One row per bid for an auction of the category, made at most REACH before or after it opened.

    Args:
        auctions: the columns of the contract auction.
        bids: the columns of the contract bid.

    Returns:
        `auction`, `bidder`, `price`, `channel`, `url`, `bid_at`, `bid_extra`, and the auction's `item`, `description`,
        `initial_bid`, `reserve`, `opened_at`, `expires_at`, `seller`, `category`, `auction_extra`.
    """
    chosen = auctions.where(F.col("category") == CATEGORY).withColumnRenamed("extra", "auction_extra")
    joined = bids_within_reach(chosen, bids.withColumnRenamed("extra", "bid_extra"), LATENESS)
    return joined.select("auction", *BID, *AUCTION)


def build(run: Run) -> None:
    frame = category_bids(run.read("auctions"), run.read("bids"))
    run.append(frame, table="category_bids", event_time="bid_at")
