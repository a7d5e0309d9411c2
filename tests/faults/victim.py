"""A driver to be killed: `python -m tests.faults.victim PLAN.json`; runs one query until it has caught up.

The plan says where it reads and writes and what the query does with the numbered records in between.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import exit_on_error
from conf.settings import load
from jobs.failures import await_all
from jobs.run import Run
from local.session import spark_session


def stateless(records: DataFrame) -> DataFrame:
    """As they come: a shard for each source partition."""
    return records.select("key", "value")


def shuffled(records: DataFrame) -> DataFrame:
    """Behind a shuffle: shards by key."""
    return records.select("key", "value").repartition(3, "key")


def windowed(records: DataFrame) -> DataFrame:
    """Each number once, by way of state."""
    numbers = records.select("key", "value", "timestamp").withWatermark("timestamp", "1 day")
    return numbers.dropDuplicatesWithinWatermark(["value"]).select("key", "value")


def random_key(records: DataFrame) -> DataFrame:
    """A plan that is not deterministic: another shard for each record, whenever it is computed."""
    return records.select(F.expr("cast(uuid() as binary)").alias("key"), "value")


QUERIES: dict[str, Callable[[DataFrame], DataFrame]] = {
    each.__name__: each for each in (stateless, shuffled, windowed, random_key)
}


def main() -> int:
    plan: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    settings = load("local", plan["settings"])
    spark = _session(settings, plan)
    run = Run(spark, settings, "victim")
    records = run.records(plan["source"])
    run.publish(QUERIES[plan["query"]](records), plan["target"], mode=plan.get("mode", "direct"))
    for line in run.adopt() if plan.get("adopt") else []:
        print(line, flush=True)
    await_all(spark, run.start(continuous=False))
    spark.stop()
    return 0


def _session(settings: Any, plan: dict[str, Any]) -> SparkSession:
    # Under spark-submit (a standalone cluster) the session is made already.
    if plan.get("submitted"):
        return SparkSession.builder.appName("victim").getOrCreate()
    return spark_session(settings, "victim", Path(plan["folder"]) / "spark.log")


if __name__ == "__main__":
    exit_on_error(main)
