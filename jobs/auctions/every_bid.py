"""Which bids were made?

topic bids -> decode -> every_bid -> Delta table every_bid
    ./spark-submit.sh auctions.every_bid --until-caught-up

Append mode, stateless: what reading, decoding and writing cost by themselves. Nexmark's query 0.
"""

from pyspark.sql import DataFrame

from jobs.pipeline.run import Run


def every_bid(bids: DataFrame) -> DataFrame:
    """The bids as they are: `auction`, `bidder`, `price` long, `bid_at` timestamp, `extra` string, in and out."""
    return bids.select("auction", "bidder", "price", "bid_at", "extra")


def build(run: Run) -> None:
    run.append(every_bid(run.read("bids")), table="every_bid", event_time="bid_at")
