"""Transforms that several questions on flights share: repeated events counted once, and delay measures."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F


def without_repeats(events: DataFrame, keys: list[str], event_time: str, lateness: str) -> DataFrame:
    """The first event of each `keys`, with a watermark `lateness` behind `event_time`; columns as they come.

    A stream remembers a key until the watermark has passed its event by `lateness`: a repeat, which bears the same
    event time, either finds its key or is itself too late. A batch has no watermark; one event of each key stays.
    """
    if not events.isStreaming:
        return events.dropDuplicates(keys)
    return events.withWatermark(event_time, lateness).dropDuplicatesWithinWatermark(keys)


# From 15 minutes on, the U.S. Department of Transportation counts a flight as late.
DELAYED_MINUTES = 15
MEASURES = ("departures", "delayed", "mean_delay_minutes", "max_delay_minutes")


def delay_measures() -> list[Column]:
    """Aggregates of `delay_minutes` int, named as in MEASURES: two counts (long), mean (double), maximum (int)."""
    return [
        F.count("*").alias("departures"),
        F.count_if(F.col("delay_minutes") >= DELAYED_MINUTES).alias("delayed"),
        F.avg("delay_minutes").alias("mean_delay_minutes"),
        F.max("delay_minutes").alias("max_delay_minutes"),
    ]
