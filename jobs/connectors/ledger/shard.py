"""One shard of a batch: its records and its marker in one transaction, or proof that they are there already.

Runs in Spark's Python workers, and once more in the driver for shards that Spark gave no task.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa
from confluent_kafka import Producer

from conf.errors import TidemarkError
from conf.settings import Delivery
from jobs.connectors.ledger import stops
from jobs.connectors.ledger.markers import DONE, BatchId, Done, is_done
from jobs.connectors.ledger.sent import Sent
from jobs.connectors.ledger.transaction import Transaction, beginning
from jobs.connectors.ledger.writer import PRODUCER, Writer

ANSWER = "shard int, n bigint, size bigint, topics array<string>, stop array<string>"
ANSWER_TYPE = pa.schema(
    [
        ("shard", pa.int32()),
        ("n", pa.int64()),
        ("size", pa.int64()),
        ("topics", pa.list_(pa.string())),
        ("stop", pa.list_(pa.string())),
    ]
)
# How much a shard reads while its transaction begins.
AHEAD_BYTES = 16 << 20
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
    """What became of a shard: `n` records published or found, or the code, message and remedy of a stop.

    Args:
        size: bytes of those that were published.
    """

    shard: int
    n: int = 0
    size: int = 0
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
    """Let the garbage collector leave alone what is loaded: Spark runs it after every task of a worker."""
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
    with beginning(assignment.writers[shard]) as begun:
        rows = _read_ahead(rows, begun.done)
        transaction, last = begun.result()
        done = last if isinstance(last, Done) else None
        if is_done(done, assignment.id, assignment.sink):
            assert done is not None
            return _found(assignment, done, rows)
        sent = Sent(Done(assignment.id, shard), assignment.sink)
        sent.produce(transaction.producer, rows, assignment.topic, assignment.writers[shard].timeout_ms / 1000)
        transaction.commit(sent.done.to_json(), DONE)
        return Answer(shard, sent.done.n, sent.size, topics=list(sent.done.topics))


def _read_ahead(rows: Iterable[pa.RecordBatch], enough: Callable[[], bool]) -> Iterator[pa.RecordBatch]:
    """The same rows, of which some are read already, so that Spark computes them meanwhile."""
    coming, ahead, size = iter(rows), [], 0
    while not enough() and size < AHEAD_BYTES:
        batch = next(coming, None)
        if batch is None:
            break
        ahead.append(batch)
        size += batch.nbytes
    return chain(ahead, coming)


def _found(assignment: Assignment, done: Done, rows: Iterable[pa.RecordBatch]) -> Answer:
    """A shard that is written already: the same records again, or the plan was not deterministic."""
    again = Sent(Done(assignment.id, done.shard), assignment.sink)
    for batch in rows:
        again.count(batch)
    if (again.done.n, again.done.checksum) != (done.n, done.checksum):
        raise stops.batch_changed(assignment.sink, assignment.id.batch, "other records")
    return Answer(done.shard, done.n, topics=list(done.topics))


def _at_most_once(assignment: Assignment, shard: int, rows: Iterable[pa.RecordBatch]) -> Answer:
    """The marker first: whatever happens to the records after it, no attempt sends them again."""
    writer = assignment.writers[shard]
    with Transaction(writer) as transaction:
        last = transaction.last_marker()
        if is_done(last if isinstance(last, Done) else None, assignment.id, assignment.sink):
            return Answer(shard)
        transaction.commit(Done(assignment.id, shard).to_json(), DONE)
    timeout = {"message.timeout.ms": writer.timeout_ms}
    producer = Producer({**PRODUCER, **writer.tuning, **writer.connection, **timeout})
    sent = Sent(Done(assignment.id, shard), assignment.sink)
    sent.produce(producer, rows, assignment.topic, writer.timeout_ms / 1000)
    if producer.flush(writer.timeout_ms / 1000):
        raise stops.kafka_failed(assignment.sink, f"{len(producer)} records of shard {shard} were not acknowledged")
    return Answer(shard, sent.done.n, sent.size, topics=list(sent.done.topics))
