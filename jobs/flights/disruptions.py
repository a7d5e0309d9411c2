"""When did an airport fall into a run of long delays, and how bad did it get?

topic departures -> decode -> without repeats -> disruptions -> Delta table disruptions
    ./spark-submit.sh flights.disruptions --until-caught-up

Append mode: a disruption is written once, when the watermark has passed its last delayed departure by GAP; the latest
are still open.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.flights.transforms import without_repeats
from jobs.pipeline.run import Run

LONG_DELAY_MINUTES = 30
GAP = "30 minutes"  # half an hour without a long delay: the airport runs again
MIN_DEPARTURES = 5  # fewer are single flights with troubles of their own
LATENESS = "1 hour"  # a disruption is told this much later than it ended


def disruptions(departures: DataFrame) -> DataFrame:
    """One row per session: at least five departures from one airport, each 30 minutes late or more, at most GAP apart.

    Args:
        departures: `flight_id` string, `departed_at` timestamp, `origin` string, `delay_minutes` int.

    Returns:
        `airport`, `began_at` timestamp (first delayed departure), `ended_at` timestamp (the last one), `departures`
        long, `mean_delay_minutes` double, `max_delay_minutes` int.
    """
    # The punctual ones must have moved the watermark before they go, or no session would end in a quiet night.
    delayed = without_repeats(departures, ["flight_id"], "departed_at", LATENESS).where(
        F.col("delay_minutes") >= LONG_DELAY_MINUTES
    )
    sessions = delayed.groupBy(F.session_window("departed_at", GAP), F.col("origin").alias("airport")).agg(
        F.min("departed_at").alias("began_at"),
        F.max("departed_at").alias("ended_at"),
        F.count("*").alias("departures"),
        F.avg("delay_minutes").alias("mean_delay_minutes"),
        F.max("delay_minutes").alias("max_delay_minutes"),
    )
    measures = ("departures", "mean_delay_minutes", "max_delay_minutes")
    return sessions.where(F.col("departures") >= MIN_DEPARTURES).select("airport", "began_at", "ended_at", *measures)


def build(run: Run) -> None:
    run.append(disruptions(run.read("departures")), table="disruptions", event_time="began_at")
