"""How late does each carrier leave each airport, hour by hour?

topic departures -> decode -> hourly_delays -> Delta table hourly_delays
    ./spark-submit.sh flights.hourly_delays --until-caught-up
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.run import Run

WINDOW = "1 hour"
LATENESS = "3 hours"  # departures are reported as they happen; three hours cover a producer that was down
KEYS = ("hour", "origin", "carrier")


def hourly_delays(departures: DataFrame) -> DataFrame:
    """One row per hour of event time (UTC), origin and carrier.

    Args:
        departures: `departed_at` timestamp, `origin` string, `carrier` string, `delay_minutes` int.

    Returns:
        `hour` timestamp, `origin`, `carrier`, `departures` long, `delayed` long (15 minutes or more),
        `mean_delay_minutes` double, `max_delay_minutes` int.
    """
    counts = (
        departures.withWatermark("departed_at", LATENESS)
        .groupBy(F.window("departed_at", WINDOW), "origin", "carrier")
        .agg(
            F.count("*").alias("departures"),
            F.count_if(F.col("delay_minutes") >= 15).alias("delayed"),
            F.avg("delay_minutes").alias("mean_delay_minutes"),
            F.max("delay_minutes").alias("max_delay_minutes"),
        )
    )
    measures = ("departures", "delayed", "mean_delay_minutes", "max_delay_minutes")
    return counts.select(F.col("window.start").alias("hour"), "origin", "carrier", *measures)


def build(run: Run) -> None:
    run.upsert(hourly_delays(run.read("departures")), table="hourly_delays", keys=KEYS)
