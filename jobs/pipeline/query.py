"""Runs a declared output as a streaming query: in micro-batches, or, by the delivery "real-time", record by record.

In real time Spark hands each record on as it comes, at least once. The tasks of its trigger run for as long as a batch
lasts; offsets are known, and in the checkpoint, once it has ended. Nothing of ours stands between a record and the
topic, so what a micro-batch is checked for before it is written is asked beside it, and a batch counts as done only
once it was checked after its end: records that were rejected because their schema was new are read again, by the
schema.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from confluent_kafka.admin import AdminClient
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from conf.errors import TidemarkError
from conf.settings import Job, Kafka, Settings
from jobs.connectors.causes import cause_line, causes
from jobs.connectors.kafka.access import Connection
from jobs.connectors.spark_internals import read_so_far, task_slots
from jobs.connectors.tally import Tally
from jobs.pipeline import checkpoint, plan_analysis, state_store
from jobs.pipeline.checkpoint_format import batch_offsets, planned_at
from jobs.pipeline.errors import known_error
from jobs.pipeline.guards import LostRecords, SchemaGuard, SourceGuard, go_on_with_recreated, topics_of
from jobs.pipeline.late_rows import LateRows
from jobs.pipeline.outputs import Batch, OnBatch, Output
from jobs.pipeline.paths import CHECKED_FILE
from jobs.pipeline.progress import Counted, counted_by_spark
from jobs.pipeline.query_description import DescriptionFiles
from jobs.pipeline.remedies import new_topic_remedy, query_error, require_whole
from jobs.pipeline.session import label_batch
from jobs.pipeline.termination import QUERY_FAILED, UNFORESEEN, batch_errors, explain, stop_by
from jobs.pipeline.topic_sink import TopicOutput, not_real_time

CHECK_SECONDS = 5.0  # as often as micro-batches are checked by the default trigger
LOOK_SECONDS = 0.5  # for the end of a batch, which is published again where a kill comes before it was checked
SLOTS_SECONDS = 60.0  # executors of a cluster register one by one

logger = logging.getLogger(__name__)


def start_query(
    spark: SparkSession,
    settings: Settings,
    output: Output,
    folder: str,
    continuous: bool,
    schemas: SchemaGuard,
    late: LateRows,
    on_batch: OnBatch,
    counts: dict[tuple[str, int], Counted],
    skips_lost: bool = False,
) -> StreamingQuery:
    """Start the query of `output`, which goes on where the checkpoint in `folder` ends.

    Without `continuous` it ends when caught up. It stops by SCHEMA_ADDED where one of its topics got a schema version
    that `schemas` does not know.

    Args:
        late: lists what each micro-batch dropped; the caller lets it `settle` once the query has ended.
        on_batch: is called with each micro-batch before it is written, and the id of the query's run.
        counts: takes what the first write of a micro-batch read, by query id and batch, where others follow.
        skips_lost: whether it goes on behind records that are gone, and with topics that were created again.

    Raises:
        TidemarkError: CHECKPOINT_DAMAGED; TOPIC_RECREATED, where a source topic is no longer the one that the
            checkpoint knows.
    """
    guard, description = _prepare(spark, settings, output, folder, skips_lost)
    lost = LostRecords(settings.kafka, output.query) if skips_lost else None
    remember_checked(spark, folder, None)
    if output.is_real_time:
        why = "a run that ends when it is caught up has micro-batches"
        print(f"note: {output.query} does not deliver in real time: {why}, at least once", file=sys.stderr, flush=True)
    source_starts: dict[str, str] = {}
    keeps_state = plan_analysis.keeps_state(output.frame)

    def write_batch(frame: DataFrame, version: int) -> None:
        session = frame.sparkSession
        with batch_errors(session) as run_id:
            files = checkpoint.opening(session, folder, version, source_starts)
            offsets = batch_offsets(files, version)
            topics, tally = topics_of(offsets), Tally()
            with tally.phase("check topics"):
                guard.check(topics)
            with tally.phase("list late rows"):
                late.before(session, version)
            with tally.phase("check schemas"):
                schemas.check(topics)
            query_id = str(session.sparkContext.getLocalProperty("sql.streaming.queryId"))
            identity = output.query, query_id, version, planned_at(files, version), settings.paths.tables
            files |= guard.files()
            may_lack = lost is not None
            batch = Batch(frame, *identity, offsets, files, keeps_state=keeps_state, tally=tally, may_lack=may_lack)
            label_batch(session, settings, output.job, batch)
            on_batch(batch, run_id)
            if lost is not None:
                lost.report(batch)
            if not output.counts_itself:
                tally.between_writes = partial(_count_once, spark, batch, counts)
            output.write(batch)
            if lost is not None:
                lost.report(batch)  # retention may have passed more meanwhile
            description.write_written()

    writer = output.frame.writeStream.outputMode(output.mode).foreachBatch(write_batch)
    job = settings.jobs.get(output.job, Job())
    trigger: dict[str, Any] = {"processingTime": job.trigger or settings.spark.trigger}
    writer = writer.trigger(**(trigger if continuous else {"availableNow": True}))
    query = _start(spark, settings, output, folder, writer)
    late.follow(query)
    return query


def _count_once(spark: SparkSession, batch: Batch, counts: dict[tuple[str, int], Counted]) -> None:
    """Report what was read for the first write of `batch`, before the next one reads the same again."""
    query = spark.streams.get(batch.query_id)
    records, observed = read_so_far(query) if query is not None else (0, [])
    # A write that an earlier attempt had made reads nothing.
    if records:
        batch.tally.between_writes = None
        counts.setdefault((batch.query_id, batch.version), counted_by_spark(records, observed))


def start_real_time_query(
    spark: SparkSession,
    settings: Settings,
    output: TopicOutput,
    folder: str,
    schemas: SchemaGuard,
    require_slots: Callable[[], None],
) -> StreamingQuery:
    """Start the query of `output`, which delivers in real time, where the checkpoint in `folder` ends.

    Args:
        require_slots: is called now and then, and raises TidemarkError where partitions would wait for ever.

    Raises:
        TidemarkError: see `start_query`, whose stops come within seconds here.
    """
    guard, description = _prepare(spark, settings, output, folder)
    topics = set(plan_analysis.topics_read(output.frame))
    guard.check(topics)
    done = checkpoint.last_commit(spark, folder)
    remember_checked(spark, folder, -1 if done is None else done)
    length = settings.real_time_batch(output.job)
    again = f"what came within {length} before a stop or a crash may be there twice"
    print(f"note: {output.query} delivers in real time, at least once: {again}", file=sys.stderr, flush=True)
    query = _start(spark, settings, output, folder, output.in_real_time(length))

    def check() -> None:
        guard.check(topics)
        schemas.check(topics)
        require_slots()

    def checked(batch: int) -> None:
        remember_checked(spark, folder, batch)
        description.write_written()

    watch_real_time(query, check, checked)
    return query


def _prepare(
    spark: SparkSession, settings: Settings, output: Output, folder: str, skips_lost: bool = False
) -> tuple[SourceGuard, DescriptionFiles]:
    """Check that the checkpoint is fit to go on with, and return what guards the query's sources and describes it."""
    with _start_errors(output):
        require_whole(spark, output, folder, settings.paths.tables)
        take_back_unchecked(spark, folder)
        guard = SourceGuard(spark, settings.kafka, folder, new_topic_remedy(output, folder, settings.paths.tables))
        if skips_lost and isinstance(output, TopicOutput) and output.keeps_ledger:
            go_on_with_recreated(spark, settings, output, folder, guard)
        guard.check()
        description = DescriptionFiles(spark, folder, output)
        description.write_started()
        state_store.configure(spark, settings.spark, settings.jobs.get(output.job, Job()))
        checkpoint.choose_file_manager(spark, folder)
    return guard, description


@contextmanager
def _start_errors(output: Output) -> Iterator[None]:
    try:
        yield
    except Py4JJavaError as exc:
        chain = causes(exc)
        what = f"query {output.query} does not start: {cause_line(chain)}"
        raise known_error(chain) or TidemarkError(QUERY_FAILED, what, UNFORESEEN) from exc


def _start(
    spark: SparkSession, settings: Settings, output: Output, folder: str, writer: DataStreamWriter
) -> StreamingQuery:
    with _start_errors(output):
        query = writer.queryName(output.query).option("checkpointLocation", folder).start()
    explain(query, partial(query_error, spark, settings, output, folder))
    return query


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


def watch_real_time(
    query: StreamingQuery, check: Callable[[], None], checked: Callable[[int], None]
) -> threading.Thread:
    """Ask `check` every few seconds while `query` runs, and stop the query by what it raises.

    Args:
        check: raises TidemarkError.
        checked: is called with the number of each batch for which `check` was asked after its end.
    """
    thread = threading.Thread(target=_watch, args=(query, check, checked), name=f"check {query.name}", daemon=True)
    thread.start()
    return thread


def _watch(query: StreamingQuery, check: Callable[[], None], checked: Callable[[int], None]) -> None:
    last_checked, due, pause = -1, 0.0, threading.Event()
    try:
        while query.isActive:
            last = query.lastProgress
            ended = last is not None and last.batchId > last_checked
            if ended or time.monotonic() >= due:
                check()
                due = time.monotonic() + CHECK_SECONDS
            if last is not None and ended:
                last_checked = last.batchId
                checked(last_checked)
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
    connection = Connection(kafka)
    client = AdminClient(connection.config())
    counts = {
        topic: len(connection.metadata(client, topic).topics[topic].partitions) for topic in dict.fromkeys(topics)
    }
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
    """Return NOT_REAL_TIME, with the partitions of each topic: there are fewer `slots` for tasks than needed."""
    read = ", ".join(f"{topic} has {count}" for topic, count in counts.items())
    why = f"needs {needed} task slots, one for each partition ({read}), where Spark has {slots}"
    more = f"set spark.master to local[{needed},4]" if master.startswith("local") else "give it more cores"
    return not_real_time(output.job, output.topic or output.name, why, more)
