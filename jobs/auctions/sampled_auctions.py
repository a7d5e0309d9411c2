"""What was bid in every 123rd auction?

topic bids -> decode -> sampled_auctions -> Delta table sampled_auctions
    ./spark-submit.sh auctions.sampled_auctions --until-caught-up

Append mode, stateless. Nexmark's query 2.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run

EVERY = 123


def sampled_auctions(bids: DataFrame) -> DataFrame:
    """The bids for auctions whose number is a multiple of EVERY: `auction`, `price` long, in and out."""
    return bids.where(F.col("auction") % EVERY == 0).select("auction", "price")


def build(run: Run) -> None:
    run.append(sampled_auctions(run.read("bids")), table="sampled_auctions")
