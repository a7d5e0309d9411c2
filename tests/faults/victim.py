"""A driver to be killed: `python -m tests.faults.victim PLAN.json`; it runs queries until they have caught up, or on.

The plan says where each query reads and writes and what it does with the numbered records in between. With `--serve` in
place of a plan the process makes its session at once, then runs one plan after the other, as stdin names them, and
writes how each one ended beside it.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError, exit_on_error
from conf.settings import load
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from jobs.pipeline.termination import QUERY_FAILED, stopped_by
from local.session import spark_session

Plan = dict[str, Any]


def stateless(records: DataFrame) -> DataFrame:
    """As they come: a shard for each source partition."""
    return records.select("key", "value")


def shuffled(records: DataFrame) -> DataFrame:
    """Behind a shuffle: shards by key."""
    return records.select("key", "value").repartition(3, "key")


def stamped(records: DataFrame) -> DataFrame:
    """What `stateless` gives after a change of code: the same records with a header."""
    return records.selectExpr(
        "key", "value", "array(named_struct('key', 'version', 'value', cast('2' as binary))) headers"
    )


def stamped_shuffled(records: DataFrame) -> DataFrame:
    """What `shuffled` gives after the same change."""
    return stamped(records).repartition(3, "key")


def windowed(records: DataFrame) -> DataFrame:
    """Each number once, by way of state."""
    numbers = records.select("key", "value", "timestamp").withWatermark("timestamp", "1 day")
    return numbers.dropDuplicatesWithinWatermark(["value"]).select("key", "value")


def random_key(records: DataFrame) -> DataFrame:
    """A plan that is not deterministic: another shard for each record, whenever it is computed."""
    return records.select(F.expr("cast(uuid() as binary)").alias("key"), "value").repartition(3, "key")


def as_is(rows: DataFrame) -> DataFrame:
    """Rows of a table that are a topic's records already."""
    return rows


QUERIES: dict[str, Callable[[DataFrame], DataFrame]] = {
    each.__name__: each for each in (stateless, shuffled, stamped, stamped_shuffled, windowed, random_key)
}


def main() -> int:
    if sys.argv[1] == "--serve":
        return serve(Path(sys.argv[2]))
    plan: Plan = json.loads(Path(sys.argv[1]).read_text())
    settings = load("local", plan["settings"])
    spark = _session(settings, plan)
    print(json.dumps({"session": time.time()}), flush=True)  # which bench.recovery reads
    run(spark, plan)
    spark.stop()
    return 0


def serve(folder: Path) -> int:
    """Run the plans whose files stdin names, until it ends; `<plan>.ended` says how: a list of errors, one a query."""
    spark = spark_session(load("local", json.loads((folder / "settings.json").read_text())), "victim", folder / "log")
    for line in sys.stdin:
        plan = Path(line.strip())
        try:
            errors = run(spark, json.loads(plan.read_text()))
        except TidemarkError as error:
            errors = [str(error)]
        ended = plan.with_suffix(".ending")
        ended.write_text(json.dumps(errors))
        ended.rename(plan.with_suffix(".ended"))
    spark.stop()
    return 0


def run(spark: SparkSession, plan: Plan) -> list[str]:
    """One query, as a job runs it, or the `parts` of a plan side by side, none of which ends another.

    Returns:
        what stopped each part, in their order; an empty text for one that has ended well.
    """
    if "parts" not in plan:
        await_all(spark, _started(spark, plan))
        return [""]
    queries = [_started(spark, part) for part in plan["parts"]]
    return [_ended(query) for started in queries for query in started]


def _started(spark: SparkSession, plan: Plan) -> list[StreamingQuery]:
    run = Run(spark, load("local", plan["settings"]), "victim")
    run.skips_lost = bool(plan.get("skip_lost"))
    if plan.get("table"):
        run.write_and_publish(QUERIES[plan["query"]](run.records(plan["source"])), plan["table"], plan["target"], as_is)
        return run.start(continuous=False)
    for sink in [plan, *plan.get("also", ())]:
        how = {key: sink[key] for key in ("mode", "delivery") if sink.get(key)}
        run.publish(QUERIES[sink["query"]](run.records(sink["source"])), sink["target"], **how)
    for line in run.adopt() if plan.get("adopt") else []:
        print(line, flush=True)
    return run.start(continuous=bool(plan.get("continuous")))


def _ended(query: StreamingQuery) -> str:
    try:
        query.awaitTermination()
    except StreamingQueryException:
        stop = stopped_by(query)
        return stop.message if stop is not None and stop.code == QUERY_FAILED else str(stop)
    return ""


def _session(settings: Any, plan: Plan) -> SparkSession:
    # Under spark-submit (a standalone cluster) the session is made already.
    if plan.get("submitted"):
        return SparkSession.builder.appName("victim").getOrCreate()
    return spark_session(settings, "victim", Path(plan["folder"]) / "spark.log")


if __name__ == "__main__":
    exit_on_error(main)
