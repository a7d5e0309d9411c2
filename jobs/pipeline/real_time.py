"""Does the delivery "real-time": Spark hands each record on as it comes, at least once.

The tasks of Spark's real-time trigger run for as long as a batch lasts; offsets are known, and in the checkpoint, once
it has ended. Nothing of ours stands between a record and the topic, so what a micro-batch is checked for before it is
written is asked beside it, and a batch counts as done only once it was checked after its end: records that were
rejected because their schema was new are read again, by the schema.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from confluent_kafka.admin import AdminClient
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from conf.settings import Kafka
from jobs.connectors.kafka.access import Connection
from jobs.connectors.spark_internals import operators_above_sources, real_time_operators, task_slots
from jobs.pipeline import checkpoint, plan_analysis
from jobs.pipeline.errors import NOT_REAL_TIME
from jobs.pipeline.outputs import Output
from jobs.pipeline.paths import CHECKED_FILE
from jobs.pipeline.termination import stop_by

CHECK_SECONDS = 5.0  # as often as micro-batches are checked by the default trigger
LOOK_SECONDS = 0.5  # for the end of a batch, which is published again where a kill comes before it was checked
SLOTS_SECONDS = 60.0  # executors of a cluster register one by one

# Operators that a job's own code does not name.
WORDS = {
    "ShuffleExchange": "a shuffle",
    "BroadcastNestedLoopJoin": "a join without equal columns (hashed personal data needs one)",
    "BatchEvalPython": "a Python function",
    "ArrowEvalPython": "a Python function",
}

logger = logging.getLogger(__name__)


def refusal(job: str, topic: str, why: str, remedy: str = "") -> TidemarkError:
    """Return NOT_REAL_TIME, where a job cannot publish to `topic` in real time."""
    other = f'let it deliver "exactly-once" or "at-least-once" (jobs.{job}.delivery)'
    what = f"{job} is to publish to topic {topic} in real time, and {why}"
    return TidemarkError(NOT_REAL_TIME, what, f"{remedy}, or {other}" if remedy else other)


def require_plan(frame: DataFrame, job: str, topic: str) -> None:
    """Check that Spark's real-time mode takes the plan of a stream.

    Raises:
        TidemarkError: NOT_REAL_TIME, with what it does not take.
    """
    if plan_analysis.keeps_state(frame):
        raise refusal(job, topic, "its plan keeps state (an aggregate, a join of streams, duplicates ...)")
    if others := [leaf for leaf in plan_analysis.sources(frame) if not leaf.topic]:
        raise refusal(job, topic, f"it reads {others[0].path or 'a source'}, which is no topic")
    known = real_time_operators(frame.sparkSession)
    classes = {str(operator.getClass().getName()) for operator in operators_above_sources(frame)}
    if refused := sorted(name.rpartition(".")[2].removesuffix("Exec") for name in classes - known):
        has = ", ".join(WORDS.get(name, name) for name in refused)
        raise refusal(job, topic, f"Spark's real-time mode does not take what its plan has: {has}")


def require_slots(spark: SparkSession, kafka: Kafka, outputs: Sequence[Output]) -> None:
    """Check that there is a task slot for each partition of what `outputs`, those of a whole run, read in real time.

    A batch takes a slot for each partition for as long as it lasts; partitions without one would never be read.

    Raises:
        TidemarkError: NOT_REAL_TIME; BROKER_UNREACHABLE and others, where the brokers do not say.
    """
    in_real_time = [output for output in outputs if output.is_real_time]
    if not in_real_time:
        return
    topics = [topic for output in in_real_time for topic in plan_analysis.topics_read(output.frame)]
    counts = partitions(kafka, topics)
    needed = sum(counts[topic] for topic in topics)
    others = len(in_real_time) < len(outputs)
    master = spark.sparkContext.master or ""
    slots, until = task_slots(spark), time.monotonic() + SLOTS_SECONDS
    while slots < needed + others and not master.startswith("local") and time.monotonic() < until:
        time.sleep(1)
        slots = task_slots(spark)
    if slots < needed + others:
        raise too_few_slots(in_real_time[0], counts, needed + others, slots, master)


def too_few_slots(output: Output, counts: dict[str, int], needed: int, slots: int, master: str) -> TidemarkError:
    """Return NOT_REAL_TIME: Spark has fewer `slots` for tasks than the `needed` ones;
    `counts`: of partitions, by topic."""
    read = ", ".join(f"{topic} has {count}" for topic, count in counts.items())
    why = f"needs {needed} task slots, one for each partition ({read}), where Spark has {slots}"
    more = f"set spark.master to local[{needed},4]" if master.startswith("local") else "give it more cores"
    return refusal(output.job, output.topic or output.name, why, more)


def partitions(kafka: Kafka, topics: Iterable[str]) -> dict[str, int]:
    """Return how many partitions each of `topics` has now; raises what `Connection.metadata` raises."""
    connection = Connection(kafka)
    client = AdminClient(connection.config())
    return {topic: len(connection.metadata(client, topic).topics[topic].partitions) for topic in dict.fromkeys(topics)}


def take_back_unchecked(spark: SparkSession, folder: str) -> None:
    """Let the next run of a query begin behind the last batch of delivery real-time that was checked after its end."""
    text = checkpoint.read(spark, f"{folder}/{CHECKED_FILE}")
    done = None if text is None else checkpoint.last_commit(spark, folder)
    if text is None or done is None:
        return
    try:
        checked = int(json.loads(text)["batch"])
    except (ValueError, KeyError, TypeError):  # cut short while it was written, for the last batch or the one before
        checked = done - 1
    if checked < done:
        checkpoint.forget_after(spark, folder, checked)


def remember_checked(spark: SparkSession, folder: str, batch: int | None) -> None:
    """Write that all batches up to that number are checked; None: that micro-batches, checked before, follow."""
    file = f"{folder}/{CHECKED_FILE}"
    if batch is not None:
        checkpoint.write(spark, file, json.dumps({"batch": batch}))
    elif checkpoint.read(spark, file) is not None:
        checkpoint.remove(spark, file)


def watch(query: StreamingQuery, check: Callable[[], None], checked: Callable[[int], None]) -> threading.Thread:
    """Ask `check` every few seconds while `query` runs, and stop the query by what it raises.

    Args:
        check: raises TidemarkError.
        checked: is called with the number of each batch for which `check` was asked after its end.
    """
    thread = threading.Thread(target=_watch, args=(query, check, checked), name=f"check {query.name}", daemon=True)
    thread.start()
    return thread


def _watch(query: StreamingQuery, check: Callable[[], None], checked: Callable[[int], None]) -> None:
    said, due, pause = -1, 0.0, threading.Event()
    try:
        while query.isActive:
            last = query.lastProgress
            ended = last is not None and last.batchId > said
            if ended or time.monotonic() >= due:
                check()
                due = time.monotonic() + CHECK_SECONDS
            if last is not None and ended:
                said = last.batchId
                checked(said)
            pause.wait(LOOK_SECONDS)
    except TidemarkError as stop:
        _stop(query, stop)
    except Exception as exc:
        logger.warning("checks of %s", query.name, exc_info=True)
        _stop(query, TidemarkError("CHECK_FAILED", f"{type(exc).__name__}: {exc}", "see the log, start the job again"))


def _stop(query: StreamingQuery, stop: TidemarkError) -> None:
    with suppress(Exception):  # at the end of the session there is no query left to stop
        if query.isActive:
            stop_by(query, stop)
