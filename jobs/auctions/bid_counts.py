"""How many bids did each auction have in each ten seconds?

topic bids -> decode -> bid_counts -> encode -> topic bid_counts
    ./spark-submit.sh auctions.bid_counts --until-caught-up

Append mode: a window's counts are published once the watermark has passed its end, each of them once for readers with
isolation.level=read_committed. Nexmark's queries have it within them; the benchmark of other engines asks it too.
"""

from collections.abc import Callable

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.auctions.hot_auctions import LATENESS, WINDOW
from jobs.connectors.avro.encode import encode
from jobs.pipeline.run import Run
from schemas.registry import RegisteredSchema


def bid_counts(bids: DataFrame) -> DataFrame:
    """One row per window and auction that had a bid in it.

    Args:
        bids: `auction` long, `bid_at` timestamp.

    Returns:
        the fields of the contract bid_count: `auction` long, `window_start` timestamp, `bids` long.
    """
    windows = bids.withWatermark("bid_at", LATENESS).groupBy(F.window("bid_at", WINDOW), "auction")
    counted = windows.agg(F.count("*").alias("bids"))
    return counted.select("auction", F.col("window.start").alias("window_start"), "bids")


def as_records(schema: RegisteredSchema) -> Callable[[DataFrame], DataFrame]:
    """Makes Kafka records of counts: `key` string (the auction), `value` binary (framed Avro), and the window's start
    as `timestamp`.
    """

    def records(counts: DataFrame) -> DataFrame:
        value = encode(F.struct("auction", "window_start", "bids"), schema)
        key = F.col("auction").cast("string").alias("key")
        return counts.select(key, value.alias("value"), F.col("window_start").alias("timestamp"))

    return records


def build(run: Run) -> None:
    counts = bid_counts(run.read("bids", fields=("auction", "bid_at")))
    run.publish(counts.transform(as_records(run.latest_schema("bid_counts"))), topic="bid_counts")
