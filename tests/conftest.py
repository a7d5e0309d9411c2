"""What the whole test run shares: one Spark session, one broker."""

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from conf.settings import load
from local.session import spark_session


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session for all tests, set up as a job's is."""
    overrides = ["spark.master=local[2,4]", "spark.driver_memory=1500m"]
    session = spark_session(load("local", overrides), "tests", tmp_path_factory.mktemp("logs") / "spark.log")
    yield session
    session.stop()
