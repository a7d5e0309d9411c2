"""A declared output as a streaming query."""

from functools import partial
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.settings import Job, Settings
from jobs.connectors.tally import Tally
from jobs.pipeline import plan_analysis, state_store
from jobs.pipeline.checkpoint import batch_offsets, choose_file_manager, opening, planned_at
from jobs.pipeline.guards import SchemaGuard, SourceGuard, topics_of
from jobs.pipeline.late_rows.table import LateRows
from jobs.pipeline.log_labels import label_batch
from jobs.pipeline.outputs import Batch, OnBatch, Output
from jobs.pipeline.query_description import DescriptionFiles
from jobs.pipeline.remedies import query_error, require_whole
from jobs.pipeline.termination import batch_errors, explain, start_error


def start_query(
    spark: SparkSession,
    settings: Settings,
    output: Output,
    checkpoint: str,
    continuous: bool,
    schemas: SchemaGuard,
    late: LateRows,
    on_batch: OnBatch,
) -> StreamingQuery:
    """Start the query of `output`, which goes on where `checkpoint` ends; without `continuous` it ends when caught up.

    It stops by SCHEMA_ADDED where one of its topics got a schema version that `schemas` does not know.

    Args:
        late: lists what each micro-batch dropped; the caller lets it `settle` once the query has ended.
        on_batch: is called with each micro-batch before it is written, and the id of the query's run.

    Raises:
        TidemarkError: CHECKPOINT_DAMAGED; TOPIC_RECREATED, where a source topic is no longer the one that the
            checkpoint knows.
    """
    job = settings.jobs.get(output.job, Job())
    require_whole(spark, output, checkpoint, settings.paths.tables)
    guard = SourceGuard(spark, settings.kafka, checkpoint)
    guard.check()
    description = DescriptionFiles(spark, checkpoint, output)
    source_starts: dict[str, str] = {}
    keeps_state = plan_analysis.keeps_state(output.frame)

    def write_batch(frame: DataFrame, version: int) -> None:
        session = frame.sparkSession
        with batch_errors(session) as run_id:
            files = opening(session, checkpoint, version, source_starts)
            offsets = batch_offsets(files, version)
            tally = Tally()
            with tally.phase("check topics"):
                guard.check(topics_of(offsets))
            with tally.phase("list late rows"):
                late.before(session, version)
            with tally.phase("check schemas"):
                schemas.check(topics_of(offsets))
            query_id = str(session.sparkContext.getLocalProperty("sql.streaming.queryId"))
            identity = output.query, query_id, version, planned_at(files, version), settings.paths.tables
            files |= guard.files()
            batch = Batch(frame, *identity, offsets, files, keeps_state=keeps_state, tally=tally)
            label_batch(session, settings, output.job, batch)
            on_batch(batch, run_id)
            output.write(batch)
            description.write_written()

    description.write_started()
    state_store.configure(spark, settings.spark, job)
    choose_file_manager(spark, checkpoint)
    writer = output.frame.writeStream.queryName(output.query).option("checkpointLocation", checkpoint)
    writer = writer.outputMode(output.mode).foreachBatch(write_batch)
    trigger: dict[str, Any] = {"processingTime": job.trigger or settings.spark.trigger}
    try:
        query = writer.trigger(**(trigger if continuous else {"availableNow": True})).start()
    except Py4JJavaError as exc:
        raise start_error(output.query, exc) from exc
    explain(query, partial(query_error, spark, settings, output, checkpoint))
    late.follow(query)
    return query
