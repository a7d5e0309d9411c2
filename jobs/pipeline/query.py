"""Runs a declared output as a streaming query."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from conf.settings import Job, Settings
from jobs.connectors.spark_internals import read_so_far
from jobs.connectors.tally import Tally
from jobs.pipeline import plan_analysis, real_time, state_store
from jobs.pipeline.checkpoint import batch_offsets, choose_file_manager, last_commit, opening, planned_at
from jobs.pipeline.guards import LostRecords, SchemaGuard, SourceGuard, go_on_with_recreated, topics_of
from jobs.pipeline.late_rows import LateRows
from jobs.pipeline.log_labels import label_batch
from jobs.pipeline.outputs import Batch, OnBatch, Output
from jobs.pipeline.progress import Counted, counted_by_spark
from jobs.pipeline.query_description import DescriptionFiles
from jobs.pipeline.remedies import query_error, read_anew, require_whole
from jobs.pipeline.termination import batch_errors, explain, start_error
from jobs.pipeline.topic_sink import TopicOutput


def start_query(
    spark: SparkSession,
    settings: Settings,
    output: Output,
    checkpoint: str,
    continuous: bool,
    schemas: SchemaGuard,
    late: LateRows,
    on_batch: OnBatch,
    count_first: Callable[[Batch, Counted], object],
    skips_lost: bool = False,
) -> StreamingQuery:
    """Start the query of `output`, which goes on where `checkpoint` ends; without `continuous` it ends when caught up.

    It stops by SCHEMA_ADDED where one of its topics got a schema version that `schemas` does not know.

    Args:
        late: lists what each micro-batch dropped; the caller lets it `settle` once the query has ended.
        on_batch: is called with each micro-batch before it is written, and the id of the query's run.
        count_first: is called with what the first write of a micro-batch read, where others follow.
        skips_lost: whether it goes on behind records that are gone, and with topics that were created again.

    Raises:
        TidemarkError: CHECKPOINT_DAMAGED; TOPIC_RECREATED, where a source topic is no longer the one that the
            checkpoint knows.
    """
    guard, description = _prepared(spark, settings, output, checkpoint, skips_lost)
    lost = LostRecords(settings.kafka, output.query) if skips_lost else None
    real_time.remember_checked(spark, checkpoint, None)
    if output.is_real_time:
        why = "a run that ends when it is caught up has micro-batches"
        print(f"note: {output.query} does not deliver in real time: {why}, at least once", file=sys.stderr, flush=True)
    source_starts: dict[str, str] = {}
    keeps_state = plan_analysis.keeps_state(output.frame)

    def write_batch(frame: DataFrame, version: int) -> None:
        session = frame.sparkSession
        with batch_errors(session) as run_id:
            files = opening(session, checkpoint, version, source_starts)
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
                tally.between_writes = partial(_count_once, spark, batch, count_first)
            output.write(batch)
            if lost is not None:
                lost.report(batch)  # retention may have passed more meanwhile
            description.write_written()

    writer = output.frame.writeStream.outputMode(output.mode).foreachBatch(write_batch)
    job = settings.jobs.get(output.job, Job())
    trigger: dict[str, Any] = {"processingTime": job.trigger or settings.spark.trigger}
    writer = writer.trigger(**(trigger if continuous else {"availableNow": True}))
    query = _started(spark, settings, output, checkpoint, writer)
    late.follow(query)
    return query


def _count_once(spark: SparkSession, batch: Batch, count_first: Callable[[Batch, Counted], object]) -> None:
    """Report what was read for the first write of `batch`, before the next one reads the same again."""
    query = spark.streams.get(batch.query_id)
    records, observed = read_so_far(query) if query is not None else (0, [])
    # A write that an earlier attempt had made reads nothing.
    if records:
        batch.tally.between_writes = None
        count_first(batch, counted_by_spark(records, observed))


def start_real_time_query(
    spark: SparkSession,
    settings: Settings,
    output: TopicOutput,
    checkpoint: str,
    schemas: SchemaGuard,
    require_slots: Callable[[], None],
) -> StreamingQuery:
    """Start the query of `output`, which delivers in real time, where `checkpoint` ends.

    Args:
        require_slots: is called now and then, and raises TidemarkError where partitions would wait for ever.

    Raises:
        TidemarkError: see `start_query`, whose stops come within seconds here.
    """
    guard, description = _prepared(spark, settings, output, checkpoint)
    topics = set(plan_analysis.topics_read(output.frame))
    guard.check(topics)
    done = last_commit(spark, checkpoint)
    real_time.remember_checked(spark, checkpoint, -1 if done is None else done)
    length = settings.real_time_batch(output.job)
    again = f"what came within {length} before a stop or a crash may be there twice"
    print(f"note: {output.query} delivers in real time, at least once: {again}", file=sys.stderr, flush=True)
    query = _started(spark, settings, output, checkpoint, output.in_real_time(length))

    def check() -> None:
        guard.check(topics)
        schemas.check(topics)
        require_slots()

    def checked(batch: int) -> None:
        real_time.remember_checked(spark, checkpoint, batch)
        description.write_written()

    real_time.watch(query, check, checked)
    return query


def _prepared(
    spark: SparkSession, settings: Settings, output: Output, checkpoint: str, skips_lost: bool = False
) -> tuple[SourceGuard, DescriptionFiles]:
    """Check that the checkpoint is fit to go on with, and return what guards the query's sources and describes it."""
    with _starting(output):
        require_whole(spark, output, checkpoint, settings.paths.tables)
        real_time.take_back_unchecked(spark, checkpoint)
        guard = SourceGuard(spark, settings.kafka, checkpoint, read_anew(output, checkpoint, settings.paths.tables))
        if skips_lost and output.keeps_ledger:
            go_on_with_recreated(spark, settings, output, checkpoint, guard)
        guard.check()
        description = DescriptionFiles(spark, checkpoint, output)
        description.write_started()
        state_store.configure(spark, settings.spark, settings.jobs.get(output.job, Job()))
        choose_file_manager(spark, checkpoint)
    return guard, description


@contextmanager
def _starting(output: Output) -> Iterator[None]:
    try:
        yield
    except Py4JJavaError as exc:
        raise start_error(output.query, exc) from exc


def _started(
    spark: SparkSession, settings: Settings, output: Output, checkpoint: str, writer: DataStreamWriter
) -> StreamingQuery:
    with _starting(output):
        query = writer.queryName(output.query).option("checkpointLocation", checkpoint).start()
    explain(query, partial(query_error, spark, settings, output, checkpoint))
    return query
