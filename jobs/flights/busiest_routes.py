"""Which ten routes saw the most departures on each day in New York?

topic departures -> decode -> without repeats -> busiest_routes -> Delta table busiest_routes
    ./spark-submit.sh flights.busiest_routes --until-caught-up

Append mode: a day's ten rows are written once, when the watermark has passed the day's end; today is still open.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.flights.transforms import without_repeats
from jobs.pipeline.run import Run

ZONE = "America/New_York"
WINDOW = "1 day"  # by the clock in New York: 23 hours on the day daylight saving time begins, 25 on the day it ends
TOP = 10
LATENESS = "3 hours"  # the clock itself goes back by an hour once a year; two more for late reports


def busiest_routes(departures: DataFrame) -> DataFrame:
    """The ten routes with the most departures of each local day; equal counts rank by origin, then by destination.

    Args:
        departures: `flight_id` string, `departed_at` timestamp, `origin` string, `destination` string.

    Returns:
        `day` date, `rank` int from 1, `origin`, `destination`, `departures` long.
    """
    # Spark's windows know only UTC: what the clock on the wall shows is taken for UTC, as event time and in the window.
    local = departures.withColumn("departed_at", F.from_utc_timestamp("departed_at", ZONE))
    routes = (
        without_repeats(local, ["flight_id"], "departed_at", LATENESS)
        .groupBy(F.window("departed_at", WINDOW), "origin", "destination")
        .agg(F.count("*").alias("departures"))
    )
    order = F.struct((-F.col("departures")).alias("descending"), "origin", "destination")
    top = routes.groupBy("window").agg(
        F.min_by(F.struct("origin", "destination", "departures"), order, TOP).alias("top")
    )
    ranked = top.select(_day("window.start"), F.posexplode("top").alias("position", "route"))
    return ranked.select("day", (F.col("position") + 1).alias("rank"), "route.*")


def _day(start: str) -> Column:
    # A cast to date would read the session's time zone.
    return F.date_from_unix_date((F.unix_seconds(start) / 86_400).cast("int")).alias("day")


def build(run: Run) -> None:
    run.append(busiest_routes(run.read("departures")), table="busiest_routes")
