"""How many bids of each bidder came in within ten seconds of our own clock?

topic bids -> decode -> bids_by_arrival -> Delta table bids_by_arrival
    ./spark-submit.sh auctions.bids_by_arrival --until-caught-up

Update mode: a window's row is merged into the table with every micro-batch that adds to it. The clock is the time at
which Spark planned the micro-batch, which the checkpoint keeps, so a batch that is run again falls into the same
window; another run has other times, and other rows, unless `quarantine.as_of` holds the clock still. Nexmark's query
12.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run

WINDOW = "10 seconds"
LATENESS = "10 seconds"  # the clock does not go back; it bounds the state


def bids_by_arrival(bids: DataFrame, now: Column) -> DataFrame:
    """One row per bidder and window of the time at which the bids were read.

    Args:
        bids: `bidder` long.
        now: timestamp, the same for all bids of a micro-batch.

    Returns:
        `window_start` timestamp, `bidder` long, `bids` long.
    """
    arrived = bids.select("bidder", now.alias("arrived_at")).withWatermark("arrived_at", LATENESS)
    windows = arrived.groupBy(F.window("arrived_at", WINDOW), "bidder").agg(F.count("*").alias("bids"))
    return windows.select(F.col("window.start").alias("window_start"), "bidder", "bids")


def build(run: Run) -> None:
    frame = bids_by_arrival(run.read("bids"), run.clock(None))
    run.upsert(frame, table="bids_by_arrival", keys=("window_start", "bidder"))
