"""How many bids, bidders and auctions did each channel bring, day by day, at each level of price?

topic bids -> decode -> channel_bidding -> Delta table channel_bidding
    ./spark-submit.sh auctions.channel_bidding --until-caught-up

Update mode: a row is merged into the table with every micro-batch that adds to it. The state of a channel's day holds
its bidders and auctions, each once a level. Nexmark's query 16.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.auctions.transforms import counts_by_level, distinct_by_level
from jobs.pipeline.run import Run

LATENESS = "10 seconds"  # no row waits for it


def channel_bidding(bids: DataFrame) -> DataFrame:
    """One row per channel and day (UTC).

    Args:
        bids: `auction`, `bidder`, `price` long, `channel` string, `bid_at` timestamp.

    Returns:
        `day` timestamp (its start), `channel`, `last_minute` timestamp (of the last bid);
        `total_bids` and `level1_bids` to `level3_bids` long; `total_bidders`, `total_auctions` and the same of each
        level, int: how many different ones.
    """
    last_minute = F.date_trunc("minute", F.max("bid_at")).alias("last_minute")
    days = (
        bids.withWatermark("bid_at", LATENESS)
        .groupBy(F.window("bid_at", "1 day"), "channel")
        .agg(last_minute, *counts_by_level(), *distinct_by_level())
    )
    return days.select(F.col("window.start").alias("day"), *days.columns[1:])


def build(run: Run) -> None:
    run.upsert(channel_bidding(run.read("bids")), table="channel_bidding", keys=("day", "channel"))
