"""What does an auction of each category end at, on average?

topic winning_bids -> decode -> category_prices -> Delta table category_prices
    ./spark-submit.sh auctions.category_prices --until-caught-up

Update mode: a category's row is replaced with each micro-batch that has an auction of it. Spark joins two streams in
append mode only, and an average that goes on for ever is no append: so the job auctions.winning_bids publishes who
won, exactly once, and this one reads that. Nexmark's query 4.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run


def category_prices(winning_bids: DataFrame) -> DataFrame:
    """One row per category.

    Args:
        winning_bids: `category`, `price` long; one row per auction that had a bid.

    Returns:
        `category` long, `auctions` long, `mean_price` double, in cents.
    """
    prices = winning_bids.groupBy("category")
    return prices.agg(F.count("*").alias("auctions"), F.avg("price").alias("mean_price"))


def build(run: Run) -> None:
    run.upsert(category_prices(run.read("winning_bids")), table="category_prices", keys=("category",))
