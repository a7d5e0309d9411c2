"""Which was the highest bid of each ten seconds?

topic bids -> decode -> highest_bid -> Delta table highest_bid
    ./spark-submit.sh auctions.highest_bid --until-caught-up

Append mode: a window's row is written once the watermark has passed its end. Among equal prices the earliest bid
counts, where the benchmark gives all of them. Nexmark's query 7.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run

WINDOW = "10 seconds"
LATENESS = "10 seconds"  # a window is told this much after its end
COLUMNS = ("auction", "bidder", "price", "bid_at", "extra")


def highest_bid(bids: DataFrame) -> DataFrame:
    """The highest bid of each window; of equal prices the earliest, then the greater auction, bidder and `extra`.

    Args:
        bids: `auction`, `bidder`, `price` long, `bid_at` timestamp, `extra` string.

    Returns:
        `window_start` timestamp, and those columns.
    """
    earliest = (-F.unix_millis("bid_at")).alias("earliest")
    highest = F.max_by(F.struct(*COLUMNS), F.struct("price", earliest, "auction", "bidder", "extra"))
    windows = bids.withWatermark("bid_at", LATENESS).groupBy(F.window("bid_at", WINDOW)).agg(highest.alias("bid"))
    return windows.select(F.col("window.start").alias("window_start"), "bid.*")


def build(run: Run) -> None:
    run.append(highest_bid(run.read("bids")), table="highest_bid", event_time="window_start")
