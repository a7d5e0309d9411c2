"""Which flights departed, each once, even where the source repeats itself?

topic departures -> decode -> unique_departures -> Delta table unique_departures
    ./spark-submit.sh flights.unique_departures --until-caught-up

Append mode: a departure is written with the micro-batch that brings it; a repeat of it is not.
"""

from pyspark.sql import DataFrame

from jobs.flights.transforms import without_repeats
from jobs.pipeline.run import Run

LATENESS = "1 day"  # a producer that was restarted may send its last day again; a day is about a thousand keys of state
COLUMNS = (
    "flight_id",
    "carrier",
    "flight",
    "tail_number",
    "origin",
    "destination",
    "scheduled_departure_at",
    "departed_at",
    "delay_minutes",
    "scheduled_arrival_at",
    "distance_miles",
)


def unique_departures(departures: DataFrame) -> DataFrame:
    """The departures, each flight_id once: columns of the contract departure in, the same columns out."""
    return without_repeats(departures, ["flight_id"], "departed_at", LATENESS).select(*COLUMNS)


def build(run: Run) -> None:
    run.append(unique_departures(run.read("departures")), table="unique_departures", event_time="departed_at")
