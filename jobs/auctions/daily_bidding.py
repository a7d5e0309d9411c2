"""How many bids, bidders and auctions did each day have, at each level of price?

topic bids -> decode -> daily_bidding -> Delta table daily_bidding
    ./spark-submit.sh auctions.daily_bidding --until-caught-up

Update mode: a day's row is merged into the table with every micro-batch that adds to it. The state of a day holds its
bidders and auctions, each once a level. Nexmark's query 15.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.auctions.transforms import counts_by_level, distinct_by_level
from jobs.pipeline.run import Run

LATENESS = "10 seconds"  # no row waits for it


def daily_bidding(bids: DataFrame) -> DataFrame:
    """One row per day (UTC).

    Args:
        bids: `auction`, `bidder`, `price` long, `bid_at` timestamp.

    Returns:
        `day` timestamp (its start);
        `total_bids` and `level1_bids` to `level3_bids` long; `total_bidders`, `total_auctions` and the same of each
        level, int: how many different ones.
    """
    days = (
        bids.withWatermark("bid_at", LATENESS)
        .groupBy(F.window("bid_at", "1 day"))
        .agg(*counts_by_level(), *distinct_by_level())
    )
    return days.select(F.col("window.start").alias("day"), *days.columns[1:])


def build(run: Run) -> None:
    run.upsert(daily_bidding(run.read("bids")), table="daily_bidding", keys=("day",))
