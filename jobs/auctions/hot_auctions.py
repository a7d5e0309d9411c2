"""Which auctions had the most bids in the last ten seconds, every two seconds?

topic bids -> decode -> count -> hot_auctions -> Delta table hot_auctions
    ./spark-submit.sh auctions.hot_auctions --until-caught-up

Append mode: a window's rows are written once the watermark has passed its end. Several auctions may have equally
many. Nexmark's query 5.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run

WINDOW = "10 seconds"
SLIDE = "2 seconds"
LATENESS = "10 seconds"  # a window is told this much after its end


def hot_auctions(bids: DataFrame) -> DataFrame:
    """The auctions with the most bids in each window; all of them where several have as many.

    Args:
        bids: `auction` long, `bid_at` timestamp.

    Returns:
        `window_start`, `window_end` timestamp (exclusive), `auction` long, `bids` long.
    """
    counted = (
        bids.withWatermark("bid_at", LATENESS)
        .groupBy(F.window("bid_at", WINDOW, SLIDE), "auction")
        .agg(F.count("*").alias("bids"))
    )
    # One window's auctions fit in a list: there are a few hundred.
    most_first = F.sort_array(F.collect_list(F.struct("bids", "auction")), asc=False)
    listed = counted.groupBy("window").agg(most_first.alias("auctions"))
    hottest = F.filter("auctions", lambda auction: auction.bids == F.col("auctions")[0].bids)
    hot = listed.select("window", F.explode(hottest).alias("hot"))
    bounds = (F.col("window.start").alias("window_start"), F.col("window.end").alias("window_end"))
    return hot.select(*bounds, "hot.auction", "hot.bids")


def build(run: Run) -> None:
    run.append(hot_auctions(run.read("bids")), table="hot_auctions", event_time="window_start")
