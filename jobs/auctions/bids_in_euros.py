"""What is each bid in euros?

topic bids -> decode -> bids_in_euros -> Delta table bids_in_euros
    ./spark-submit.sh auctions.bids_in_euros --until-caught-up

Append mode, stateless. Nexmark's query 1.
"""

from pyspark.sql import DataFrame

from jobs.auctions.transforms import in_euros
from jobs.pipeline.run import Run


def bids_in_euros(bids: DataFrame) -> DataFrame:
    """One row per bid.

    Args:
        bids: `auction`, `bidder`, `price` long (hundredths of a dollar), `bid_at` timestamp, `extra` string.

    Returns:
        the same columns, `price` decimal(23, 3), in hundredths of a euro.
    """
    return bids.select("auction", "bidder", in_euros("price").alias("price"), "bid_at", "extra")


def build(run: Run) -> None:
    run.append(bids_in_euros(run.read("bids")), table="bids_in_euros", event_time="bid_at")
