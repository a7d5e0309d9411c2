"""What does the list of notes say of each bid's auction?

topic bids -> decode -> join with notes -> annotated_bids -> Delta table annotated_bids
    ./spark-submit.sh auctions.annotated_bids --until-caught-up

Append mode, stateless: the notes are static, and every executor has them. Nexmark's query 13.
"""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.pipeline.run import Run

NOTES = 10_000


def annotated_bids(bids: DataFrame, notes: DataFrame) -> DataFrame:
    """One row per bid whose auction's number, modulo NOTES, has a note.

    Args:
        bids: `auction`, `bidder`, `price` long, `bid_at` timestamp.
        notes: `key` long, `note` string; static.

    Returns:
        the columns of `bids`, and `note`.
    """
    joined = bids.join(F.broadcast(notes), F.col("auction") % NOTES == F.col("key"))
    return joined.select("auction", "bidder", "price", "bid_at", "note")


def build(run: Run) -> None:
    frame = annotated_bids(run.read("bids"), notes(run.spark))
    run.append(frame, table="annotated_bids", event_time="bid_at")


def notes(spark: SparkSession) -> DataFrame:
    """A note for each number below NOTES: `key` long, `note` string."""
    return spark.range(NOTES).select(F.col("id").alias("key"), F.format_string("note %d", "id").alias("note"))
