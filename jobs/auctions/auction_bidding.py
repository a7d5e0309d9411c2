"""How many bids did each auction have, day by day, and at what prices?

topic bids -> decode -> auction_bidding -> Delta table auction_bidding
    ./spark-submit.sh auctions.auction_bidding --until-caught-up

Update mode: a row is merged into the table with every micro-batch that adds to it. Nexmark's query 17.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.auctions.transforms import counts_by_level
from jobs.pipeline.run import Run

LATENESS = "10 seconds"  # no row waits for it
# Millions of such prices still sum to a long: one record with a price that cannot be true must not stop the job.
MOST_SUMMED = 10**12


def auction_bidding(bids: DataFrame) -> DataFrame:
    """One row per auction and day (UTC).

    Args:
        bids: `auction`, `price` long, `bid_at` timestamp.

    Returns:
        `day` timestamp (its start), `auction`; `total_bids`, `level1_bids`, `level2_bids`, `level3_bids` long;
        `min_price`, `max_price`, `sum_price` long (of the prices up to MOST_SUMMED), `mean_price` double, in cents.
    """
    prices = (
        F.min("price").alias("min_price"),
        F.max("price").alias("max_price"),
        F.sum(F.when(F.col("price").between(-MOST_SUMMED, MOST_SUMMED), F.col("price"))).alias("sum_price"),
        F.avg("price").alias("mean_price"),
    )
    days = (
        bids.withWatermark("bid_at", LATENESS)
        .groupBy(F.window("bid_at", "1 day"), "auction")
        .agg(*counts_by_level(), *prices)
    )
    return days.select(F.col("window.start").alias("day"), *days.columns[1:])


def build(run: Run) -> None:
    run.upsert(auction_bidding(run.read("bids")), table="auction_bidding", keys=("day", "auction"))
