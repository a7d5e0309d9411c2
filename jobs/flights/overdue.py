"""Which flights left and were not at their destination's gate when they should have been?

topics departures, arrivals -> decode -> overdue -> Delta table overdue
    ./spark-submit.sh flights.overdue --until-caught-up

Append mode: a row is written when the arrival turns out to be after the deadline, or, before any arrival, when the
watermark passes the deadline. The watermark follows the topic that is further behind, so a silent topic holds rows
back: nobody can tell a flight that has not arrived from a report that has not.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.flights.overdue_state import SCHEMA, ArrivalsBoard, Report
from jobs.flights.transforms import without_repeats
from jobs.pipeline.run import Run

GRACE = "30 minutes"  # air traffic control takes an aircraft for overdue half an hour past its estimate
LATENESS = "30 minutes"  # of both topics; a row comes this much later than the deadline


def overdue(departures: DataFrame, arrivals: DataFrame) -> DataFrame:
    """One row per flight that left and had not arrived GRACE after its scheduled arrival: arrived later, or never.

    Args:
        departures: the columns of the contract departure; one without `scheduled_arrival_at` has no deadline.
        arrivals: the columns of the contract arrival.

    Returns:
        `flight_id`, `carrier`, `flight` int, `tail_number`, `origin`, `destination`, `departed_at` timestamp,
        `scheduled_arrival_at` timestamp, `overdue_at` timestamp (the deadline).
    """
    left = without_repeats(departures, ["flight_id"], "departed_at", LATENESS)
    deadline = F.col("scheduled_arrival_at") + F.expr(f"INTERVAL {GRACE}")
    expected = left.withColumn("overdue_at", deadline).where(F.col("overdue_at").isNotNull())
    flagged = _watched(expected, arrivals) if expected.isStreaming else _looked_up(expected, arrivals)
    flight = ("flight_id", "carrier", "flight", "tail_number", "origin", "destination")
    return flagged.select(*flight, "departed_at", "scheduled_arrival_at", "overdue_at")


def _watched(expected: DataFrame, arrivals: DataFrame) -> DataFrame:
    """Watch a stream: every report waits for its counterpart, in state, with a timer."""
    arrived = arrivals.withWatermark("arrived_at", LATENESS)
    departure_reports = _reports(expected, "departed_at", True, F.col("overdue_at"))
    reports = departure_reports.union(_reports(arrived, "arrived_at", False, F.col("arrived_at")))
    board = reports.groupBy("destination")
    flagged = board.transformWithStateInPandas(ArrivalsBoard(), SCHEMA, "Append", "EventTime")
    overdue_at = F.timestamp_millis("waits_until_ms")
    return flagged.select(
        "*",
        F.timestamp_millis("happened_ms").alias("departed_at"),
        (overdue_at - F.expr(f"INTERVAL {GRACE}")).alias("scheduled_arrival_at"),
        overdue_at.alias("overdue_at"),
    )


def _looked_up(expected: DataFrame, arrivals: DataFrame) -> DataFrame:
    """Look arrivals up in a batch, where timers never fire: all reports are there, a flight without one has none."""
    arrived = arrivals.groupBy("flight_id").agg(F.min("arrived_at").alias("arrived_at"))
    in_time = F.col("arrived_at") <= F.col("overdue_at")
    return expected.join(arrived, "flight_id", "left").where(~F.coalesce(in_time, F.lit(False)))


def _reports(events: DataFrame, event_time: str, is_departure: bool, waits_until: Column) -> DataFrame:
    derived = {
        "is_departure": F.lit(is_departure),
        "happened_ms": F.unix_millis(event_time),
        "waits_until_ms": F.unix_millis(waits_until),
    }
    return events.withColumns(derived).select(F.col(event_time).alias("at"), *Report._fields)


def build(run: Run) -> None:
    run.append(overdue(run.read("departures"), run.read("arrivals")), table="overdue", event_time="departed_at")
