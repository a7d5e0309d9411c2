"""How late does each carrier leave each airport, hour by hour?

topic departures -> decode -> without repeats -> hourly_delays -> Delta table hourly_delays
    ./spark-submit.sh flights.hourly_delays --until-caught-up

Update mode: an hour's row is merged into the table with every micro-batch that adds to it, so open hours are there too.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.flights.transforms import MEASURES, delay_measures, without_repeats
from jobs.pipeline.run import Run

WINDOW = "1 hour"
LATENESS = "3 hours"  # departures are reported as they happen; three hours cover a producer that was down
KEYS = ("hour", "origin", "carrier")


def hourly_delays(departures: DataFrame) -> DataFrame:
    """One row per hour of event time (UTC), origin and carrier; a departure that is reported again counts once.

    Args:
        departures: `flight_id` string, `departed_at` timestamp, `origin` string, `carrier` string, `delay_minutes` int.

    Returns:
        `hour` timestamp, `origin`, `carrier`, `departures` long, `delayed` long (15 minutes or more),
        `mean_delay_minutes` double, `max_delay_minutes` int.
    """
    hours = (
        without_repeats(departures, ["flight_id"], "departed_at", LATENESS)
        .groupBy(F.window("departed_at", WINDOW), "origin", "carrier")
        .agg(*delay_measures())
    )
    return hours.select(F.col("window.start").alias("hour"), "origin", "carrier", *MEASURES)


def build(run: Run) -> None:
    run.upsert(hourly_delays(run.read("departures")), table="hourly_delays", keys=KEYS)
