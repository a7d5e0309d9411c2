"""A declared output as a streaming query."""

from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.settings import Job, Settings
from jobs import manifest, plans, state_store
from jobs.checkpoint import batch_offsets, opening, planned_at
from jobs.failures import in_one_line
from jobs.late.listing import LateRows
from jobs.outputs import Batch, Output
from jobs.query_record import Keeper
from jobs.schema_guard import SchemaGuard
from jobs.source_guard import SourceGuard, topics_of


def start(
    spark: SparkSession,
    settings: Settings,
    output: Output,
    checkpoint: str,
    continuous: bool,
    schemas: SchemaGuard,
    late: LateRows,
) -> StreamingQuery:
    """Start the query of `output`, which goes on where `checkpoint` ends; without `continuous` it ends when caught up.

    It stops by SCHEMA_ADDED where one of its topics got a schema version that `schemas` does not know.

    Args:
        late: lists what each micro-batch dropped; the caller lets it `settle` once the query has ended.

    Raises:
        TidemarkError: TOPIC_RECREATED, where a source topic is no longer the one that the checkpoint knows.
    """
    begun: dict[str, str] = {}
    stateful = plans.keeps_state(output.frame)
    own = settings.jobs.get(output.job, Job())
    guard = SourceGuard(spark, settings.kafka, checkpoint)
    guard.check()
    record = Keeper(spark, checkpoint, output)

    def write_batch(frame: DataFrame, version: int) -> None:
        query_id = frame.sparkSession.sparkContext.getLocalProperty("sql.streaming.queryId")
        files = opening(frame.sparkSession, checkpoint, version, begun)
        offsets = batch_offsets(files, version)
        in_one_line(lambda: guard.check(topics_of(offsets)))
        in_one_line(lambda: late.before(frame.sparkSession, version))
        in_one_line(lambda: schemas.check(topics_of(offsets)))
        planned = planned_at(files, version)
        fixed = files | guard.files()
        batch = Batch(frame, output.query, str(query_id), version, planned, offsets, fixed, keeps_state=stateful)
        in_one_line(lambda: output.write(batch))
        in_one_line(record.keep)

    manifest.remember(spark, checkpoint, output)
    state_store.configure(spark, settings.spark, own)
    writer = output.frame.writeStream.queryName(output.query).option("checkpointLocation", checkpoint)
    writer = writer.outputMode(output.mode).foreachBatch(write_batch)
    trigger: dict[str, Any] = {"processingTime": own.trigger or settings.spark.trigger}
    query = writer.trigger(**(trigger if continuous else {"availableNow": True})).start()
    late.follow(query)
    return query
