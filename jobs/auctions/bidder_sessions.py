"""How many bids did each bidder make before ten seconds of silence?

topic bids -> decode -> bidder_sessions -> Delta table bidder_sessions
    ./spark-submit.sh auctions.bidder_sessions --until-caught-up

Append mode: a session is written once the watermark has passed its last bid by GAP. Nexmark's query 11.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run

GAP = "10 seconds"
LATENESS = "10 seconds"  # a session is told this much after it ended


def bidder_sessions(bids: DataFrame) -> DataFrame:
    """One row per session: bids of one bidder, each less than GAP after the one before.

    Args:
        bids: `bidder` long, `bid_at` timestamp.

    Returns:
        `bidder` long, `bids` long, `began_at` timestamp (the first bid), `ended_at` timestamp (GAP after the last).
    """
    sessions = (
        bids.withWatermark("bid_at", LATENESS)
        .groupBy(F.session_window("bid_at", GAP).alias("session"), "bidder")
        .agg(F.count("*").alias("bids"))
    )
    bounds = (F.col("session.start").alias("began_at"), F.col("session.end").alias("ended_at"))
    return sessions.select("bidder", "bids", *bounds)


def build(run: Run) -> None:
    run.append(bidder_sessions(run.read("bids")), table="bidder_sessions", event_time="began_at")
