"""What is measured about delays, the same in every window."""

from pyspark.sql import Column
from pyspark.sql import functions as F

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
