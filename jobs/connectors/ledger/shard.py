"""One shard of a batch: its records and its marker in one transaction, or proof that they are there already.

Runs in Spark's Python workers, and once more in the driver for shards that Spark gave no task.
"""

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import KafkaException, Producer

from conf.errors import TidemarkError
from conf.settings import Delivery
from jobs.connectors.ledger import stops
from jobs.connectors.ledger.bulk import PARTITIONER, bulk_of
from jobs.connectors.ledger.failpoints import reach
from jobs.connectors.ledger.layout import HASH
from jobs.connectors.ledger.markers import DONE, BatchId, Done, is_done
from jobs.connectors.ledger.transaction import PRODUCER, Transaction, Writer

ANSWER = "shard int, n bigint, skipped boolean, topics array<string>, stop array<string>"
ANSWER_TYPE = pa.schema(
    [
        ("shard", pa.int32()),
        ("n", pa.int64()),
        ("skipped", pa.bool_()),
        ("topics", pa.list_(pa.string())),
        ("stop", pa.list_(pa.string())),
    ]
)
FULL_QUEUE_SECONDS = 0.05
MASK = (1 << 64) - 1
# Another attempt may get past these; every other stop is final, and is told to the driver instead of raised, since each
# retry of the task would fence a healthy writer.
PASSING = ("FENCED", "KAFKA_FAILED")


@dataclass(frozen=True)
class Assignment:
    """What each task of a batch needs to know.

    Args:
        order: the shard that Spark's partition i holds; empty where the numbers are the same.
        writers: the identity of each shard.
        topic: where rows go that name none.
    """

    sink: str
    id: BatchId
    writers: tuple[Writer, ...]
    order: tuple[int, ...] = ()
    topic: str | None = None
    delivery: Delivery = "exactly-once"


@dataclass
class Answer:
    """What became of a shard: `n` records published or found, or the code, message and remedy of a stop."""

    shard: int
    n: int = 0
    skipped: bool = False
    topics: list[str] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)

    def require_no_stop(self) -> None:
        """Raises the shard's named stop, where it has one."""
        if self.stop:
            raise TidemarkError(*self.stop)


def task(assignment: Assignment) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For `mapInArrow`: publishes the partition's rows and gives one row, an Answer."""

    def publish_partition(rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None, "runs in a task"
        number = context.partitionId()
        shard = assignment.order[number] if assignment.order else number
        answer = publish_shard(assignment, shard, rows)
        _spare_collector()
        yield pa.RecordBatch.from_pylist([vars(answer)], schema=ANSWER_TYPE)

    return publish_partition


def _spare_collector() -> None:
    """Let the garbage collector leave alone what is loaded: Spark's workers run it after every task, over all modules."""
    if not gc.get_freeze_count():
        gc.freeze()


def publish_shard(assignment: Assignment, shard: int, rows: Iterable[pa.RecordBatch]) -> Answer:
    """Publish `rows` (columns key, value, topic, partition, headers as the sink has them, and HASH) as one shard.

    Raises:
        TidemarkError: KAFKA_FAILED, FENCED: the attempt failed, and left nothing behind; another one may succeed.
    """
    publish = _at_most_once if assignment.delivery == "at-most-once" else _exactly_once
    try:
        return publish(assignment, shard, rows)
    except TidemarkError as stop:
        if stop.code in PASSING:
            raise
        return Answer(shard, stop=[stop.code, stop.message, stop.remedy])


def _exactly_once(assignment: Assignment, shard: int, rows: Iterable[pa.RecordBatch]) -> Answer:
    with Transaction(assignment.writers[shard]) as transaction:
        last = transaction.last_marker()
        done = last if isinstance(last, Done) else None
        if is_done(done, assignment.id, assignment.sink):
            assert done is not None
            return _found(assignment, done, rows)
        sent = Sent(Done(assignment.id, shard))
        sent.produce(transaction.producer, rows, assignment)
        transaction.commit(sent.done.to_json(), DONE)
        return Answer(shard, sent.done.n, topics=list(sent.done.topics))


def _found(assignment: Assignment, done: Done, rows: Iterable[pa.RecordBatch]) -> Answer:
    """A shard that is written already: the same records again, or the plan was not deterministic."""
    again = Sent(Done(assignment.id, done.shard))
    for batch in rows:
        again.count(batch)
    if (again.done.n, again.done.checksum) != (done.n, done.checksum):
        raise stops.batch_changed(assignment.sink, assignment.id.batch, "other records")
    return Answer(done.shard, done.n, skipped=True, topics=list(done.topics))


def _at_most_once(assignment: Assignment, shard: int, rows: Iterable[pa.RecordBatch]) -> Answer:
    """The marker first: whatever happens to the records after it, no attempt sends them again."""
    writer = assignment.writers[shard]
    with Transaction(writer) as transaction:
        last = transaction.last_marker()
        if is_done(last if isinstance(last, Done) else None, assignment.id, assignment.sink):
            return Answer(shard, skipped=True)
        transaction.commit(Done(assignment.id, shard).to_json(), DONE)
    timeout = {"message.timeout.ms": writer.timeout_ms}
    producer = Producer({**PRODUCER, **writer.tuning, **writer.connection, **timeout})
    sent = Sent(Done(assignment.id, shard))
    sent.produce(producer, rows, assignment)
    if producer.flush(writer.timeout_ms / 1000):
        raise stops.kafka_failed(assignment.sink, f"{len(producer)} records of shard {shard} were not acknowledged")
    return Answer(shard, sent.done.n, topics=list(sent.done.topics))


class Sent:
    """Hands rows to a producer and keeps count of them in `done`."""

    def __init__(self, done: Done) -> None:
        self.done = done

    def produce(self, producer: Producer, rows: Iterable[pa.RecordBatch], assignment: Assignment) -> None:
        """Hand over all rows; raises TidemarkError KAFKA_FAILED."""
        try:
            with contextlib.ExitStack() as stack:
                send = _sender(producer, assignment, stack)
                for batch in rows:
                    send(batch)
                    producer.poll(0)
                    self.count(batch)
                    reach("shard-mid-produce", assignment.sink, shard=self.done.shard, batch=self.done.id.batch)
        except KafkaException as exc:
            raise stops.kafka_failed(assignment.sink, exc.args[0].str()) from exc

    def count(self, batch: pa.RecordBatch) -> None:
        hashes = batch.column(HASH).to_numpy(zero_copy_only=False)
        checksum = (self.done.checksum + int(hashes.astype(np.uint64).sum(dtype=np.uint64))) & MASK
        topics = set(self.done.topics)
        if "topic" in batch.schema.names:
            topics |= {name for name in batch.column("topic").unique().to_pylist() if name is not None}
        n = self.done.n + batch.num_rows
        self.done = replace(self.done, n=n, checksum=checksum, topics=tuple(sorted(topics)))


def _sender(
    producer: Producer, assignment: Assignment, stack: contextlib.ExitStack
) -> Callable[[pa.RecordBatch], None]:
    bulk = bulk_of(producer, assignment.topic) if assignment.topic else None
    if bulk:
        stack.callback(bulk.close)

    def send(batch: pa.RecordBatch) -> None:
        if bulk and not {"topic", "headers"} & set(batch.schema.names):
            bulk.send(batch, assignment.writers[0].timeout_ms / 1000)
        else:
            _send_each(producer, batch, assignment.topic)

    return send


def _send_each(producer: Producer, batch: pa.RecordBatch, topic: str | None) -> None:
    """Where rows name their topic or have headers, for which librdkafka has no call that takes many."""
    for record in _records(batch, topic):
        try:
            producer.produce(*record)
        except BufferError:
            _produce_when_free(producer, record)


def _records(batch: pa.RecordBatch, topic: str | None) -> Iterator[tuple[Any, ...]]:
    """The rows as `produce` takes them: topic, value, key, and, where rows have them, partition and headers."""
    names = batch.schema.names
    columns = [
        batch.column("topic").to_pylist() if "topic" in names else repeat(topic),
        batch.column("value").to_pylist(),
        batch.column("key").to_pylist() if "key" in names else repeat(None),
    ]
    if "partition" in names or "headers" in names:
        # Between them: no callback, by either of its names, and the time of publishing.
        columns += [_partitions(batch), repeat(None), repeat(None), repeat(0), _headers(batch)]
    return zip(*columns, strict=False)


def _produce_when_free(producer: Producer, record: tuple[Any, ...]) -> None:
    while True:
        producer.poll(FULL_QUEUE_SECONDS)
        try:
            producer.produce(*record)
            return
        except BufferError:
            continue


def _partitions(batch: pa.RecordBatch) -> Any:
    if "partition" not in batch.schema.names:
        return repeat(PARTITIONER)
    return [PARTITIONER if number is None else number for number in batch.column("partition").to_pylist()]


def _headers(batch: pa.RecordBatch) -> Any:
    if "headers" not in batch.schema.names:
        return repeat(None)
    rows = batch.column("headers").to_pylist()
    return [[(each["key"], each["value"]) for each in row] if row else None for row in rows]
