"""Which folders are in the URL of each bid?

topic bids -> decode -> url_folders -> Delta table url_folders
    ./spark-submit.sh auctions.url_folders --until-caught-up

Append mode, stateless. Nexmark's query 22.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run


def url_folders(bids: DataFrame) -> DataFrame:
    """One row per bid.

    Args:
        bids: `auction`, `bidder`, `price` long, `channel`, `url` string, `bid_at` timestamp.

    Returns:
        `auction`, `bidder`, `price`, `channel`, `folder1`, `folder2`, `folder3` string (behind the URL's host),
        `bid_at`.
    """
    parts = [F.split_part("url", F.lit("/"), F.lit(3 + number)).alias(f"folder{number}") for number in (1, 2, 3)]
    return bids.select("auction", "bidder", "price", "channel", *parts, "bid_at")


def build(run: Run) -> None:
    run.append(url_folders(run.read("bids")), table="url_folders", event_time="bid_at")
