"""What was the weather when each flight left, and who flew it?

topics departures, weather -> decode -> join, airlines too -> weather_impact -> Delta table weather_impact
    ./spark-submit.sh flights.weather_impact --until-caught-up

Append mode: a departure is written as soon as it and its observation are there; one without an observation never is.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.flights.reference import airlines
from jobs.flights.repeats import without_repeats
from jobs.run import Run

VALIDITY = "1 hour"  # stations report hourly: an older observation is the hour before's
LATENESS = "3 hours"  # of both topics; no row waits for it, it bounds what the join remembers
OBSERVED = (
    "temperature_f",
    "dew_point_f",
    "humidity_percent",
    "wind_direction_degrees",
    "wind_speed_mph",
    "wind_gust_mph",
    "precipitation_inches",
    "pressure_millibars",
    "visibility_miles",
)


def weather_impact(departures: DataFrame, weather: DataFrame, airlines: DataFrame) -> DataFrame:
    """One row per departure and observation at its origin in the hour up to it: one row, where reports are hourly.

    The join is on the hour, too: on the airport alone, every departure would be compared with all that is remembered.

    Args:
        departures: `flight_id`, `carrier`, `origin`, `destination` string, `departed_at` timestamp, `delay_minutes`
            int.
        weather: `station` string, `observed_at` timestamp and the columns of the contract weather_observation.
        airlines: `carrier` string, `airline` string; static.

    Returns:
        `flight_id`, `carrier`, `airline` (null for an unknown carrier), `origin`, `destination`, `departed_at`,
        `delay_minutes`, `observed_at` and the observation's measures, in the units of their names.
    """
    left = without_repeats(departures, ["flight_id"], "departed_at", LATENESS)
    seen = without_repeats(weather, ["station", "observed_at"], "observed_at", LATENESS)
    observed_hour = F.date_trunc("hour", "observed_at")
    reach = F.explode(F.array(observed_hour, observed_hour + F.expr(f"INTERVAL {VALIDITY}"))).alias("hour")
    same_hour = (F.col("station") == F.col("origin")) & (F.col("hour") == F.date_trunc("hour", "departed_at"))
    not_after = F.col("observed_at") <= F.col("departed_at")
    still_valid = F.col("observed_at") > F.col("departed_at") - F.expr(f"INTERVAL {VALIDITY}")
    joined = left.join(seen.select("*", reach), same_hour & not_after & still_valid)
    flight = ("flight_id", "carrier", "airline", "origin", "destination", "departed_at", "delay_minutes")
    return joined.join(F.broadcast(airlines), "carrier", "left").select(*flight, "observed_at", *OBSERVED)


def build(run: Run) -> None:
    impact = weather_impact(run.read("departures"), run.read("weather"), airlines(run.spark))
    run.append(impact, table="weather_impact", event_time="departed_at")
