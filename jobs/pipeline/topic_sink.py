"""Publishes the rows of an output into a topic, as the setting `delivery` promises.

An outbox, a Delta table, freezes each micro-batch before it is published where its rows may change when run again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from confluent_kafka.admin import AdminClient
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.readwriter import DataStreamWriter

from conf import code_version
from conf.errors import TidemarkError
from conf.sections import Delivery
from conf.settings import Settings
from jobs.connectors.avro import decode
from jobs.connectors.delta import table as delta_table
from jobs.connectors.exactly_once.adopt import Held, adopt
from jobs.connectors.exactly_once.fail_points import fail_point
from jobs.connectors.exactly_once.ledger import BatchId, offsets_hash, sink_rights
from jobs.connectors.exactly_once.sink import BatchFacts, LedgerSink
from jobs.connectors.kafka import source_sink
from jobs.connectors.kafka.access import Right
from jobs.connectors.kafka.refusals import Limits, topic_limits
from jobs.connectors.spark_internals import operators_above_sources, real_time_operators, without_source_options
from jobs.pipeline import checkpoint, paths, plan_analysis
from jobs.pipeline.checkpoint_format import entry_file
from jobs.pipeline.errors import NOT_REAL_TIME
from jobs.pipeline.outputs import Batch, Output, TableOutput
from jobs.pipeline.validation import Versions

BATCH = "tidemark_batch"
POSITION = "tidemark_position"
# Old batches are removed now and then: each removal is a commit of its own.
KEPT_BATCHES = 10


def freeze(frame: DataFrame, path: str, commit: delta_table.Commit) -> DataFrame:
    """Return the rows of `frame` as they were when the batch was first computed, read from the table at `path`.

    Further column: POSITION long, which tells the order that rows had within their partition.
    """
    spark = frame.sparkSession
    table = delta_table.Table("outbox", path, partition_by=(BATCH,))
    numbered = frame.withColumn(BATCH, F.lit(commit.version)).withColumn(POSITION, F.monotonically_increasing_id())
    delta_table.write(numbered, table, commit)
    if commit.version % KEPT_BATCHES == 0:
        spark.sql(f"DELETE FROM delta.`{path}` WHERE {BATCH} < {commit.version - KEPT_BATCHES}")
    rows = spark.read.format("delta").load(path).where(F.col(BATCH) == commit.version)
    return rows.drop(BATCH)


Mode = Literal["direct", "outbox"]
# Records that come within it share a request.
REAL_TIME_LINGER_MS = 2
# Operators that a job's own code does not name.
WORDS = {
    "ShuffleExchange": "a shuffle",
    "BroadcastNestedLoopJoin": "a join without equal columns (hashed personal data needs one)",
    "BatchEvalPython": "a Python function",
    "ArrowEvalPython": "a Python function",
}
# Spark's own sink publishes them.
AT_LEAST_ONCE: tuple[Delivery, ...] = ("at-least-once", "real-time")


def with_event_time(records: DataFrame, field: str, versions: Versions) -> DataFrame:
    """Read the timestamp of each record out of its value.

    Args:
        records: columns as `kafka.check_output` wants them, among them `value` binary, a framed event.
        field: holds the event time, in the events of every stream.
        versions: the registered schemas of the topic's streams.

    Returns:
        the columns of `records`, then `timestamp` timestamp: null where the value is no event, or has no such time.
    """
    columns, times = records.columns, []
    for number, registered in enumerate(versions.values()):
        decoded = decode.decode(records, registered, registered[-1].text)
        times.append(f"{source_sink.TIMESTAMP}_{number}")
        at = F.when(F.col("error").isNull(), F.col("event").getField(field))
        records = decoded.select(*records.columns, at.cast("timestamp").alias(times[-1]))
    return records.select(*columns, F.coalesce(*times).alias(source_sink.TIMESTAMP))


@dataclass(frozen=True)
class TopicOutput(Output):
    """Publishes rows as the records of a topic.

    Deliveries at-least-once and real-time go through Spark's own sink: a batch that is run again is written again. The
    others go through a sink with a ledger.

    Args:
        publishing: "outbox" freezes each batch in a table first.
    """

    topic: str = ""
    delivery: Delivery = "exactly-once"
    publishing: Mode = "direct"
    settings: Settings = field(kw_only=True, repr=False)

    @property
    def keeps_ledger(self) -> bool:
        return self.delivery not in AT_LEAST_ONCE

    @property
    def is_real_time(self) -> bool:
        return self.delivery == "real-time"

    @property
    def sink_id(self) -> str:
        """Return the name that ledger and transactional ids begin with."""
        return f"{self.settings.ledger.application}.{self.query}"

    @cached_property
    def sink(self) -> LedgerSink:
        """Return the sink with a ledger; it remembers what topics take from batch to batch."""
        kafka, ledger = self.settings.kafka, self.settings.ledger
        return LedgerSink(self.sink_id, self.topic, kafka, self.settings.sink, ledger, self.delivery)

    @cached_property
    def limits(self) -> Limits:
        """Return what the topic takes, asked once."""
        admin = AdminClient({**self.settings.kafka.client_config(), "log_level": 0})
        return topic_limits(admin, [self.topic])[self.topic]

    @property
    def topics(self) -> tuple[str, ...]:
        return (self.topic, self.sink.ledger.name) if self.keeps_ledger else (self.topic,)

    def writing_rights(self) -> list[Right]:
        return sink_rights(self.sink_id, [self.topic]) if self.keeps_ledger else super().writing_rights()

    def require_publishable(self) -> None:
        """Check that the plan gives the same rows when a batch is run again, where it must, and can be done in real
        time, where it is to be; raises TidemarkError NOT_DETERMINISTIC, NOT_REAL_TIME."""
        is_frozen = self.publishing == "outbox" or not self.keeps_ledger
        difference = None if is_frozen else plan_analysis.changes_when_run_again(self.frame)
        if difference:
            what = f"query {self.query} computes something else each time it runs ({difference})"
            remedy = 'take it out, publish with mode="outbox" (each batch is frozen in a table first), or at-least-once'
            raise TidemarkError("NOT_DETERMINISTIC", f"{what}: a batch run again would differ", remedy)
        if self.is_real_time:
            if self.publishing == "outbox":
                why = "an outbox freezes whole batches"
                raise not_real_time(self.job, self.topic, why, 'leave out mode="outbox"')
            require_real_time_plan(self.frame, self.job, self.topic)

    def in_real_time(self, batch: str) -> DataStreamWriter:
        """Return what writes the stream through Spark's own sink as it comes; a batch lasts as long as `batch` says.

        That sink sets no timestamps, and a batch that reads on has no limits.
        """
        records = without_source_options(self.frame.drop(source_sink.TIMESTAMP), source_sink.LIMITS)
        options = source_sink.sink_options(self.settings.kafka, self.settings.sink, self.topic, records, self.limits)
        writer = records.writeStream.format("kafka").options(**options | {"kafka.linger.ms": str(REAL_TIME_LINGER_MS)})
        writer.outputMode("update").trigger(realTime=batch)  # type: ignore[call-overload]  # its types do not know it
        return writer

    def open(self) -> None:
        """Check topic and settings against the brokers, and create the ledger.

        Raises:
            TidemarkError: TOPIC_MISSING, NOT_AUTHORIZED, BROKER_UNREACHABLE, BROKER_REFUSES;
                TRANSACTION_TIMEOUT_ABOVE_CAP, TOO_MANY_SHARDS, KAFKA_FAILED; BAD_SETTING, where several tasks would
                read one partition of the source.
        """
        if (tasks := self.settings.source_of(self.job).min_partitions) > 0:
            message = f"{self.job} publishes to topic {self.topic}, and with min_partitions = {tasks} several tasks"
            remedy = f"set jobs.{self.job}.min_partitions to 0: it is for jobs that write tables alone"
            raise TidemarkError("BAD_SETTING", f"{message} may read one partition, whose order would be lost", remedy)
        source_sink.require_topics(self.settings.kafka, [self.topic], to_write=True)
        if self.keeps_ledger:
            self.sink.open()
        else:
            _ = self.limits

    def write(self, batch: Batch) -> None:
        if not self.keeps_ledger:
            with batch.tally.phase("publish"):
                source_sink.write_batch(batch.frame, self.settings.kafka, self.settings.sink, self.topic, self.limits)
        else:
            id = BatchId(batch.query_id, batch.version, offsets_hash(batch.files[entry_file(batch.version)]))
            facts = BatchFacts(id, batch.files, batch.keeps_state, code_version.version(), batch.may_lack)
            if self.publishing == "outbox":
                frozen = freeze(batch.frame, paths.outbox(batch.tables_root, self.query), batch.commit("outbox"))
                records = self.sink.write(frozen, facts, POSITION, batch.tally)
            else:
                records = self.sink.write(batch.frame, facts, tally=batch.tally)
            batch.tally.wrote(self.topic, records)
        fail_point("batch-before-commit-log", self.sink_id, batch=batch.version)

    def adopt(self, spark: SparkSession, folder: str) -> list[str]:
        """Bring the ledger and the checkpoint in `folder` together again; return lines on what was done."""
        adoption = adopt(self.sink, _held(spark, folder), plan_analysis.keeps_state(self.frame))
        lines = [adoption.text]
        if adoption.restore:
            aside = checkpoint.move_aside(spark, folder)
            lines += [f"{self.sink_id}: the checkpoint that was there is kept as {aside}"] if aside else []
            begun = adoption.restore.id
            checkpoint.rebuild(spark, folder, begun.query_id, begun.batch, adoption.restore.checkpoint)
        return lines


@dataclass(frozen=True, kw_only=True)
class TableThenTopic(TopicOutput):
    """Writes each batch to a table, then publishes the records that `as_records` makes of it."""

    to_table: TableOutput
    as_records: Callable[[DataFrame], DataFrame]

    def write(self, batch: Batch) -> None:
        self.to_table.write(batch)
        fail_point("batch-between-table-and-topic", self.sink_id, batch=batch.version)
        super().write(replace(batch, frame=self.as_records(batch.frame)))


def not_real_time(job: str, topic: str, why: str, remedy: str = "") -> TidemarkError:
    """Return NOT_REAL_TIME, where a job cannot publish to `topic` in real time."""
    other = f'let it deliver "exactly-once" or "at-least-once" (jobs.{job}.delivery)'
    what = f"{job} is to publish to topic {topic} in real time, and {why}"
    return TidemarkError(NOT_REAL_TIME, what, f"{remedy}, or {other}" if remedy else other)


def require_real_time_plan(frame: DataFrame, job: str, topic: str) -> None:
    """Check that Spark's real-time mode takes the plan of a stream; raises TidemarkError NOT_REAL_TIME, with what it
    does not take."""
    if plan_analysis.keeps_state(frame):
        raise not_real_time(job, topic, "its plan keeps state (an aggregate, a join of streams, duplicates ...)")
    if others := [leaf for leaf in plan_analysis.sources(frame) if not leaf.topic]:
        raise not_real_time(job, topic, f"it reads {others[0].path or 'a source'}, which is no topic")
    known = real_time_operators(frame.sparkSession)
    classes = {str(operator.getClass().getName()) for operator in operators_above_sources(frame)}
    if refused := sorted(name.rpartition(".")[2].removesuffix("Exec") for name in classes - known):
        has = ", ".join(WORDS.get(name, name) for name in refused)
        raise not_real_time(job, topic, f"Spark's real-time mode does not take what its plan has: {has}")


def _held(spark: SparkSession, folder: str) -> Held:
    query_id, last = checkpoint.query_id(spark, folder), checkpoint.last_commit(spark, folder)
    done = checkpoint.entry(spark, folder, last) if last is not None else None
    begun = checkpoint.entry(spark, folder, last + 1 if last is not None else 0)
    at = BatchId(query_id, last, offsets_hash(done)) if query_id and last is not None and done else None
    return Held(query_id, at, offsets_hash(begun) if begun else None, checkpoint.damage(spark, folder) is not None)
