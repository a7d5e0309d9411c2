"""What did the last ten auctions of each seller end at, on average?

topic winning_bids -> decode -> seller_prices -> Delta table seller_prices
    ./spark-submit.sh auctions.seller_prices --until-caught-up

Update mode: a seller's row is replaced with each micro-batch that has an auction of theirs. A chain of two, as
auctions.category_prices is, and for the same reason; the last ten need no processor of their own, the aggregate keeps
them. Nexmark's query 6.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run

LAST = 10


def seller_prices(winning_bids: DataFrame) -> DataFrame:
    """One row per seller, over the LAST auctions that ended last; of equal ends the greater number counts as later.

    Args:
        winning_bids: `seller`, `auction`, `price` long, `expires_at` timestamp; one row per auction that had a bid.

    Returns:
        `seller` long, `auctions` int (LAST, or fewer), `mean_price` double, in cents.
    """
    latest = F.max_by("price", F.struct("expires_at", "auction"), LAST)
    prices = winning_bids.groupBy("seller").agg(latest.alias("prices"))
    total = F.aggregate("prices", F.lit(0.0), lambda sum, price: sum + price)
    count = F.size("prices")
    return prices.select("seller", count.alias("auctions"), (total / count).alias("mean_price"))


def build(run: Run) -> None:
    run.upsert(seller_prices(run.read("winning_bids")), table="seller_prices", keys=("seller",))
