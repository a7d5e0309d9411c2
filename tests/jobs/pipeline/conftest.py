"""What tests of plans share."""

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F


@pytest.fixture(scope="module")
def ticks(spark: SparkSession) -> DataFrame:
    """A stream with `timestamp` and `value`, observed as the jobs' are."""
    return spark.readStream.format("rate").load().observe("rows", F.count("*").alias("n"))
