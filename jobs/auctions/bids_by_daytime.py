"""Which bids of ten thousand euros or more were made by day, which by night?

topic bids -> decode -> bids_by_daytime -> Delta table bids_by_daytime
    ./spark-submit.sh auctions.bids_by_daytime --until-caught-up

Append mode, stateless. Nexmark's query 14.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.auctions.transforms import in_euros
from jobs.pipeline.run import Run

BOUNDS = (1_000_000, 50_000_000)  # hundredths of a euro


def bids_by_daytime(bids: DataFrame) -> DataFrame:
    """The bids between the BOUNDS, exclusive, with the time of the day (UTC) and how often `extra` has a c.

    Args:
        bids: `auction`, `bidder`, `price` long (hundredths of a dollar), `bid_at` timestamp, `extra` string.

    Returns:
        `auction`, `bidder`, `price` decimal(23, 3) (hundredths of a euro), `daytime` string: day (8 to 18 o'clock, all
        of that hour), night (up to 6, from 20 on) or other, `bid_at`, `extra`, `cs` int.
    """
    hour = F.floor(F.pmod(F.unix_seconds("bid_at"), F.lit(86_400)) / 3600)
    daytime = F.when(hour.between(8, 18), "day").when((hour <= 6) | (hour >= 20), "night").otherwise("other")
    cs = F.length("extra") - F.length(F.replace("extra", F.lit("c"), F.lit("")))
    low, high = BOUNDS
    priced = bids.withColumn("price", in_euros("price")).where((F.col("price") > low) & (F.col("price") < high))
    bid = ("auction", "bidder", "price")
    return priced.select(*bid, daytime.alias("daytime"), "bid_at", "extra", cs.alias("cs"))


def build(run: Run) -> None:
    run.append(bids_by_daytime(run.read("bids")), table="bids_by_daytime", event_time="bid_at")
