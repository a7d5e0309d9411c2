"""Who registered and put something up within the same ten seconds?

topics persons, auctions -> decode -> windows -> join -> new_sellers -> Delta table new_sellers
    ./spark-submit.sh auctions.new_sellers --until-caught-up

Append mode: a window's rows are written once the watermark of both topics has passed its end. Nexmark's query 8.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run

WINDOW = "10 seconds"
LATENESS = "10 seconds"  # of both topics; a window is told this much after its end


def new_sellers(persons: DataFrame, auctions: DataFrame) -> DataFrame:
    """One row per person who opened an auction in the window of their registration.

    Args:
        persons: `person` long, `name` string, `registered_at` timestamp.
        auctions: `seller` long, `opened_at` timestamp.

    Returns:
        `window_start` timestamp, `person`, `name`.
    """
    registered = (
        persons.withWatermark("registered_at", LATENESS)
        .groupBy(F.window("registered_at", WINDOW).alias("registered"), "person", "name")
        .agg(F.count("*").alias("registrations"))
    )
    sold = (
        auctions.withWatermark("opened_at", LATENESS)
        .groupBy(F.window("opened_at", WINDOW).alias("opened"), "seller")
        .agg(F.count("*").alias("auctions"))
    )
    is_same = (F.col("person") == F.col("seller")) & (F.col("registered") == F.col("opened"))
    return registered.join(sold, is_same).select(F.col("registered.start").alias("window_start"), "person", "name")


def build(run: Run) -> None:
    sellers = new_sellers(run.read("persons"), run.read("auctions"))
    run.append(sellers, table="new_sellers", event_time="window_start")
