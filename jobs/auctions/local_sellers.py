"""Who in Oregon, Idaho or California sells something of category 10, and in which auctions?

topics persons, auctions -> decode -> join -> local_sellers -> Delta table local_sellers
    ./spark-submit.sh auctions.local_sellers --until-caught-up

Append mode: an auction is written as soon as it and its seller are there. The benchmark remembers both sides for
ever; here they meet within LATENESS of event time, which the model's sellers, the newest thousand persons, do from
100 events a second on. Nexmark's query 3.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run

STATES = ("OR", "ID", "CA")
CATEGORY = 10
LATENESS = "10 minutes"  # of both topics; no row waits for it, it bounds what the join remembers


def local_sellers(persons: DataFrame, auctions: DataFrame) -> DataFrame:
    """One row per auction of the category whose seller lives in one of the states.

    Args:
        persons: `person` long, `name`, `city`, `state` string, `registered_at` timestamp.
        auctions: `auction`, `seller`, `category` long, `opened_at` timestamp.

    Returns:
        `name`, `city`, `state`, `auction` long, `opened_at` timestamp.
    """
    near = persons.where(F.col("state").isin(*STATES)).withWatermark("registered_at", LATENESS)
    sold = auctions.where(F.col("category") == CATEGORY).withWatermark("opened_at", LATENESS)
    reach = F.expr(f"INTERVAL {LATENESS}")
    is_near = F.col("opened_at").between(F.col("registered_at") - reach, F.col("registered_at") + reach)
    joined = near.join(sold, (F.col("seller") == F.col("person")) & is_near)
    return joined.select("name", "city", "state", "auction", "opened_at")


def build(run: Run) -> None:
    sellers = local_sellers(run.read("persons"), run.read("auctions"))
    run.append(sellers, table="local_sellers", event_time="opened_at")
