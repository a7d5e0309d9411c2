"""What is the id of the channel of each bid?

topic bids -> decode -> channel_ids -> Delta table channel_ids
    ./spark-submit.sh auctions.channel_ids --until-caught-up

Append mode, stateless. Nexmark's query 21.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run

KNOWN = {"apple": "0", "google": "1", "facebook": "2", "baidu": "3"}


def channel_ids(bids: DataFrame) -> DataFrame:
    """The bids whose channel has an id: one of KNOWN, or the one that the URL names.

    Args:
        bids: `auction`, `bidder`, `price` long, `channel`, `url` string, `bid_at` timestamp.

    Returns:
        `auction`, `bidder`, `price`, `channel`, `channel_id` string, `bid_at`.
    """
    known = F.create_map(*(F.lit(text) for pair in KNOWN.items() for text in pair))
    named = F.nullif(F.regexp_extract("url", "(?:&|^)channel_id=([^&]*)", 1), F.lit(""))
    with_id = bids.withColumn("channel_id", F.coalesce(known[F.lower("channel")], named))
    found = with_id.where(F.col("channel_id").isNotNull())
    return found.select("auction", "bidder", "price", "channel", "channel_id", "bid_at")


def build(run: Run) -> None:
    run.append(channel_ids(run.read("bids")), table="channel_ids", event_time="bid_at")
