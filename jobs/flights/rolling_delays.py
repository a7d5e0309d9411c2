"""How late does each airport run now, over the last three hours?

topic departures -> decode -> without repeats -> rolling_delays -> Delta table rolling_delays
    ./spark-submit.sh flights.rolling_delays --until-caught-up

Update mode: a window's row is merged into the table with every micro-batch that adds to it, so open windows are there
too.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.flights.transforms import MEASURES, delay_measures, without_repeats
from jobs.pipeline.run import Run

WINDOW = "3 hours"  # a wave of departures and what it leaves behind
SLIDE = "30 minutes"  # every departure counts in six windows
LATENESS = "3 hours"  # departures are reported as they happen; three hours cover a producer that was down
KEYS = ("window_start", "origin")


def rolling_delays(departures: DataFrame) -> DataFrame:
    """One row per origin and window of three hours; windows start every full and half hour (UTC).

    Args:
        departures: `flight_id` string, `departed_at` timestamp, `origin` string, `delay_minutes` int.

    Returns:
        `window_start` timestamp, `window_end` timestamp (exclusive), `origin`, `departures` long,
        `delayed` long (15 minutes or more), `mean_delay_minutes` double, `max_delay_minutes` int.
    """
    windows = (
        without_repeats(departures, ["flight_id"], "departed_at", LATENESS)
        .groupBy(F.window("departed_at", WINDOW, SLIDE), "origin")
        .agg(*delay_measures())
    )
    bounds = (F.col("window.start").alias("window_start"), F.col("window.end").alias("window_end"))
    return windows.select(*bounds, "origin", *MEASURES)


def build(run: Run) -> None:
    run.upsert(rolling_delays(run.read("departures")), table="rolling_delays", keys=KEYS)
