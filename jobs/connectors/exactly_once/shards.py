"""Publishes a micro-batch: in shards, each by a task in one transaction with its marker, or whole, by the driver.

A shard's content must be the same whenever its batch is computed. A range of one source partition is fixed by the
batch's offsets, and needs no shuffle; it is known here by its name, not by its number among Spark's partitions, whose
order may be another one after a restart. Which partition of the state a row belongs to is frozen in the checkpoint, and
needs no second shuffle. Elsewhere the record's key says which shard it belongs to.
"""

import gc
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.sections import Delivery
from jobs.connectors.exactly_once.ledger import ADOPT, DONE, PLAN, BatchId, Done, Layout, Plan, is_done
from jobs.connectors.exactly_once.shard_producer import HASH, ShardProducer
from jobs.connectors.exactly_once.transaction import PRODUCER, Transaction, Writer, beginning
from jobs.connectors.kafka.access import client_error, kafka_failed
from jobs.connectors.kafka.refusals import TOPIC_MISSING, SizeLimits
from jobs.connectors.spark_internals import configured, map_in_arrow

ARROW_BYTES, NO_LIMIT = "spark.sql.execution.arrow.maxBytesPerBatch", str((1 << 31) - 1)
# Thousands of such records are 20 MB; even if the next ones are ten times as large, that does no harm.
SMALL_BYTES = 2_048
RESULT = "result binary"  # a ShardResult as JSON
# How much a shard reads while its transaction begins.
AHEAD_BYTES = 16 << 20
# Another attempt may get past these; every other stop is final, and is returned to the driver instead of raised, since
# each retry of the task would fence a healthy writer.
PASSING = ("FENCED", "KAFKA_FAILED", TOPIC_MISSING)  # a broker may not know yet of a topic or partition that is new


@dataclass(frozen=True)
class ShardTask:
    """The part of a batch's plan that each of its tasks needs.

    Args:
        order: the shard that Spark's partition i holds; empty where the numbers are the same.
        writers: the identity of each shard.
        topic: where rows go that name none.
        limits: what the output topics take, as far as it is known.
        origins: what each shard is made of, for people; empty where that is not known.
        may_differ: whether a shard that is found written stays as it is, whatever its records are now.
    """

    sink: str
    id: BatchId
    writers: tuple[Writer, ...]
    order: tuple[int, ...] = ()
    topic: str | None = None
    delivery: Delivery = "exactly-once"
    limits: SizeLimits = field(default_factory=lambda: SizeLimits({}))
    origins: tuple[str, ...] = ()
    may_differ: bool = False

    def producer(self, shard: int, fast: bool = True) -> ShardProducer:
        """Make the producer that sends and counts a shard's rows."""
        origin = self.origins[shard] if self.origins else ""
        return ShardProducer(Done(self.id, shard), self.sink, self.limits, origin, fast)


@dataclass
class ShardResult:
    """The result of a shard: `n` records published or found, or the code, message and remedy of a stop.

    Args:
        size: bytes of those that were published.
        oldest: the least timestamp of those, in ms since 1970; None where they have none.
    """

    shard: int
    n: int = 0
    size: int = 0
    topics: list[str] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)
    oldest: int | None = None


def publish_shards(
    frame: DataFrame, layout: Layout, shard_task: ShardTask, order_by: str | None, record_bytes: float | None
) -> list[ShardResult]:
    """Cut `frame`, the records of a micro-batch, into the shards of `shard_task`, and publish each in its own task.

    Args:
        order_by: see `cut_frame`; record_bytes: see `arrow_batches`.
    """
    shards = cut_frame(frame, layout, len(shard_task.writers), order_by)
    with arrow_batches(frame.sparkSession, record_bytes):
        rows = map_in_arrow(shards, publishing(shard_task), RESULT).collect()
    results = {result.shard: result for result in (ShardResult(**json.loads(row.result)) for row in rows)}
    for shard in set(range(len(shard_task.writers))) - results.keys():
        # Spark gives an empty frame fewer tasks, or none.
        results[shard] = publish_shard(shard_task, shard, ())
    return list(results.values())


def cut_frame(frame: DataFrame, layout: Layout, shards: int, order_by: str | None = None) -> DataFrame:
    """Return `frame` with one Spark partition a shard, key and value binary, timestamp long (ms since 1970),
    and HASH long.

    The checksum of a shard adds HASH up: of all columns but the timestamp, which ledgers of older code do not count.

    Args:
        order_by: a column that sorts the rows of a shard, and is no part of the record.
    """
    if layout not in ("source", "state"):
        # Records without a key are in no order: their values spread them.
        key, value = F.col("key").cast("binary"), F.col("value")
        key = F.coalesce(key, value.cast("binary")) if "key" in frame.columns else value
        frame = frame.repartitionById(shards, F.pmod(F.xxhash64(key), F.lit(shards)).cast("int"))
    if order_by:
        frame = frame.sortWithinPartitions(order_by).drop(order_by)
    # The columns are SQL text: one call into the JVM instead of dozens, which would slow down a small batch.
    casts = {"key": "CAST(key AS BINARY)", "value": "CAST(value AS BINARY)", "timestamp": "unix_millis(timestamp)"}
    columns = {name: casts.get(name, name) for name in frame.columns}
    hashed = [text for name, text in columns.items() if name != "timestamp"]
    return frame.selectExpr(
        *(f"{text} AS {name}" for name, text in columns.items()), f"xxhash64({', '.join(hashed)}) AS {HASH}"
    )


def arrow_batches(spark: SparkSession, record_bytes: float | None) -> AbstractContextManager[None]:
    """Keep Spark from measuring each row for its Arrow batches, where records are known to be small.

    That is worth a twentieth of the whole sink's speed: median of seven rounds of four million records, 0.94 to 1.10.

    Args:
        record_bytes: the mean size of the records before these; None where there were none, as after each start.
    """
    is_small = record_bytes is not None and record_bytes <= SMALL_BYTES
    return configured(spark, {ARROW_BYTES: NO_LIMIT} if is_small else {})


def publishing(task: ShardTask) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Make the function for `map_in_arrow` that publishes a partition's rows and gives one row, a ShardResult."""

    def publish_partition(rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None, "runs in a task"
        number = context.partitionId()
        shard = task.order[number] if task.order else number
        result = publish_shard(task, shard, rows)
        if not gc.get_freeze_count():
            gc.freeze()  # the garbage collector leaves alone what is loaded: Spark runs it after every task of a worker
        yield _as_arrow(result)

    return publish_partition


def _as_arrow(result: ShardResult) -> pa.RecordBatch:
    """Return the one row of a task, as RESULT says; it is made of buffers,
    since Arrow loads pandas to look at any value of Python's."""
    text = json.dumps(vars(result)).encode()
    edges = pa.py_buffer(struct.pack("=ii", 0, len(text)))
    column = pa.Array.from_buffers(pa.binary(), 1, [None, edges, pa.py_buffer(text)])
    return pa.RecordBatch.from_arrays([column], ["result"])


def publish_shard(task: ShardTask, shard: int, rows: Iterable[pa.RecordBatch]) -> ShardResult:
    """Publish `rows` (columns key, value, topic, partition, headers as the sink has them, and HASH) as one shard.

    Raises:
        TidemarkError: KAFKA_FAILED, FENCED: the attempt failed, and left nothing behind; another one may succeed.
    """
    publish = _at_most_once if task.delivery == "at-most-once" else _exactly_once
    try:
        return publish(task, shard, rows)
    except TidemarkError as stop:
        if stop.code in PASSING:
            raise
        return ShardResult(shard, stop=[stop.code, stop.message, stop.remedy])


def _exactly_once(task: ShardTask, shard: int, rows: Iterable[pa.RecordBatch]) -> ShardResult:
    with beginning(task.writers[shard]) as begun:
        rows = _read_ahead(rows, begun.done)
        transaction, last = begun.result()
        if is_done(last, task.id, task.sink):
            return _check_published(task, last, rows)
        return send(task, shard, transaction, rows, lambda sent: transaction.commit(sent.to_json(), DONE))


def send(
    task: ShardTask,
    shard: int,
    transaction: Transaction,
    rows: Iterable[pa.RecordBatch],
    commit: Callable[[Done], None],
) -> ShardResult:
    """Publish `rows` in a transaction that has begun, and let `commit` end it with the shard's marker.

    Raises:
        TidemarkError: KAFKA_FAILED, FENCED, which another attempt may get past; any other stop is in the result.
    """
    sent = task.producer(shard)
    try:
        with transaction.named():
            sent.produce(transaction.producer, rows, task.topic, task.writers[shard].timeout_ms / 1000)
        commit(sent.done)
    except TidemarkError as error:
        if (stop := sent.refusal or error).code in PASSING:
            raise
        return ShardResult(shard, topics=list(sent.done.topics), stop=[stop.code, stop.message, stop.remedy])
    return ShardResult(shard, sent.done.n, sent.size, topics=list(sent.done.topics), oldest=sent.oldest)


def collect_rows(frame: DataFrame, order_by: str | None) -> list[pa.RecordBatch] | None:
    """Return the rows of a batch as `cut_frame` gives them; None where Spark could not bring them to the driver."""
    # Only where rows have to be sorted must they be in one partition; else each has its order already.
    rows = cut_frame(frame, "whole" if order_by else "source", 1, order_by)
    try:
        return list(rows.toArrow().to_batches())
    except PySparkException:
        # They are more than spark.driver.maxResultSize; the shards will report any other cause.
        return None


def publish_whole(
    writer: Writer,
    partition: int,
    task: ShardTask,
    rows: Callable[[], Sequence[pa.RecordBatch] | None],
    due: Callable[[Plan | Done | None], Plan | None],
) -> ShardResult | None:
    """Publish a small batch in the driver, and commit its plan with it: one transaction holds plan, records and marker.

    An attempt that takes such a plan over knows that its one shard is done. The writer is the one of plans, which each
    batch fences first. No shard's writer of another attempt can be at work: otherwise a sharded plan would be in the
    ledger. None, and nothing is published, where the batch needs shards.

    Args:
        writer: the one of plans.
        partition: of the ledger, for the shard's marker.
        rows: computes them, while the transaction begins.
        due: the plan to commit, by the last one in the ledger; None where that one is of the same batch.

    Raises:
        TidemarkError: KAFKA_FAILED, FENCED: the attempt failed, and left nothing behind; and what `due` raises.
    """
    with beginning(writer) as begun:
        batches = rows()
        transaction, last = begun.result()
        plan = due(last)
        if plan is None or batches is None:
            return None

        def commit(done: Done) -> None:
            transaction.mark(done.to_json(), DONE, partition)
            transaction.commit(plan.to_json(), PLAN)

        return send(task, 0, transaction, batches, commit)


def _read_ahead(rows: Iterable[pa.RecordBatch], enough: Callable[[], bool]) -> Iterator[pa.RecordBatch]:
    """Give the same rows, of which some are read already, so that Spark computes them meanwhile."""
    coming, ahead, size = iter(rows), [], 0
    while not enough() and size < AHEAD_BYTES:
        batch = next(coming, None)
        if batch is None:
            break
        ahead.append(batch)
        size += batch.nbytes
    return chain(ahead, coming)


def _check_published(task: ShardTask, done: Done, rows: Iterable[pa.RecordBatch]) -> ShardResult:
    """Check that a shard that is written already has the same records again, unless those may have changed."""
    if task.may_differ:
        return ShardResult(done.shard, done.n, topics=list(done.topics))
    again = task.producer(done.shard)
    for batch in rows:
        again.count(batch)
    if (again.done.n, again.done.checksum) != (done.n, done.checksum):
        where = f"shard {done.shard} of batch {task.id.batch} of sink {task.sink}"
        remedy = (
            f"run the code and settings that began the batch once more, until it has caught up; or {ADOPT}: what is "
            "published stays, the rest of the batch is written as the job gives it now; if nothing was changed, the "
            'job computes something else each time: publish with mode="outbox" from then on'
        )
        what = f"{where} is published, and the job gives other records for it now"
        raise TidemarkError("BATCH_CHANGED", what, remedy)
    return ShardResult(done.shard, done.n, topics=list(done.topics))


def _at_most_once(task: ShardTask, shard: int, rows: Iterable[pa.RecordBatch]) -> ShardResult:
    """Commit the marker first: whatever happens to the records after it, no attempt sends them again."""
    writer = task.writers[shard]
    with Transaction(writer) as transaction:
        if is_done(transaction.last_marker(), task.id, task.sink):
            return ShardResult(shard)
        transaction.commit(Done(task.id, shard).to_json(), DONE)
    refused: list[KafkaError] = []

    def answered(error: KafkaError | None, _: Message) -> None:
        refused.extend([error] if error is not None else [])

    options = {"message.timeout.ms": writer.timeout_ms, "delivery.report.only.error": True, "on_delivery": answered}
    producer = Producer({**PRODUCER, **writer.tuning, **writer.connection, **options})
    # Bulk sends have no delivery report per record: a lost one would pass unnoticed.
    sent = task.producer(shard, fast=False)
    try:
        sent.produce(producer, rows, task.topic, writer.timeout_ms / 1000)
    except KafkaException as exc:
        raise client_error(task.sink, exc.args[0], writer.rights(), writer.connection) from exc
    if producer.flush(writer.timeout_ms / 1000):
        raise kafka_failed(task.sink, f"{len(producer)} records of shard {shard} were not acknowledged")
    refused += sent.failed
    if sent.refusal or refused:
        stop = sent.refusal or client_error(task.sink, refused[0], writer.rights(), writer.connection)
        # Every stop is reported: another attempt would find the marker, and send nothing.
        return ShardResult(shard, stop=[stop.code, stop.message, stop.remedy])
    return ShardResult(shard, sent.done.n, sent.size, topics=list(sent.done.topics), oldest=sent.oldest)
