"""Runs one Kafka transaction of one writer: it fences its predecessors, decides behind a barrier, holds a marker.

    with Transaction(writer) as transaction:
        last = transaction.last_marker()      # what the writer's predecessors have committed, and nothing is under way
        transaction.producer.produce(...)
        transaction.commit(marker)

Records and marker are in the log together or not at all. A later writer under the same transactional id fences this
one: its commit fails. A writer is good for one transaction only: librdkafka does not speak the protocol of
KIP-890, so a delayed end of a transaction could otherwise hit the next one of the same producer. Sources: KIP-98,
KIP-447, KIP-890.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, repeat
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from conf.errors import TidemarkError
from jobs.connectors.exactly_once.fail_points import fail_point
from jobs.connectors.exactly_once.ledger import Done, Plan, open_marker, parse
from jobs.connectors.kafka.access import CLUSTER, Right, client_error, kafka_failed, login_refused, writing
from jobs.connectors.kafka.consumer import read_to_end
from jobs.connectors.kafka.refusals import BY_ERROR, UNREACHABLE

# librdkafka waits for a predecessor's transaction that is still ending by a timer of 500 ms: a new producer asks at
# once. A coordinator that moves to another broker needs seconds.
FENCE_WAITS = (0.15, 0.15, 0.15, 0.5, 1.0, 2.0)
FENCE_SECONDS = 90.0
METADATA_SECONDS = 10.0
# Queued records and further calls end by these once a transaction cannot go on; they do not say why it cannot.
CONSEQUENCES = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._STATE)
ASK_SECONDS = 5.0
# Another writer has taken over.
FENCED = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
# Records or a call were not answered in time, be it for their number.
LATE = (KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT)
# Three ledger records a batch: the last marker is within the last few, unless transactions were aborted again and
# again.
TAIL_OFFSETS = 256
# A broker that hangs closes no connection. librdkafka waits a whole transaction for its answer, and asks for the new
# leader only then; an answer that waits for a lost follower takes 9 s (the brokers' session) and more.
ANSWER_MS = 20_000
PRODUCER = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",  # Java's: every client finds a key in the same partition
    "reconnect.backoff.ms": 10,
    "log_level": 0,
}


@dataclass(frozen=True)
class Writer:
    """One identity that writes, and the ledger partition that only it marks.

    Args:
        connection: librdkafka's properties of the connection, secrets included; tuning: of the producer.
        where: what fail points know it by.
        topics: that it writes to, besides the ledger, as far as they are known.
    """

    transactional_id: str
    ledger: str
    partition: int
    connection: Mapping[str, Any] = field(repr=False)
    timeout_ms: int
    tuning: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    topics: tuple[str, ...] = ()

    def rights(self) -> list[Right]:
        """Return the rights that its user needs."""
        return [
            Right("topic", self.ledger, ("Read", "Write", "Describe")),
            *writing(self.topics),
            Right("transactional-id", self.transactional_id, ("Write", "Describe")),
            Right("cluster", CLUSTER, ("IdempotentWrite",)),
        ]

    @property
    def answer_ms(self) -> int:
        """Return how long a broker may take to answer: short enough to leave time to try again."""
        return min(ANSWER_MS, self.timeout_ms // 3)


class Transaction:
    """A transaction that has begun; leaving its block without `commit` aborts it.

    Raises:
        TidemarkError: FENCED (another writer has taken over), BROKER_UNREACHABLE, TRANSACTION_TIMED_OUT, KAFKA_FAILED
            and what else REFUSALS name, from each method.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._reach("before-fence")
        self._heard: list[KafkaError] = []
        with self.named():
            self.producer = _fence(writer, self._heard)
            self._began = time.monotonic()
            self.producer.begin_transaction()
        self._open = True
        self._reach("after-fence")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._open:
            self._reach("before-abort")
            with contextlib.suppress(Exception):  # the broker ends it when its time is over; the cause is on its way
                self.producer.purge()
                self.producer.abort_transaction(METADATA_SECONDS)

    def last_marker(self) -> Plan | Done | None:
        """Return the newest committed marker in the writer's ledger partition,
        read up to this transaction's own beginning."""
        with self.named():
            barrier = self._barrier()
            last = _read_last(self._writer, barrier)
        self._reach("after-barrier")
        return last

    def read(self, start: int, take: Callable[[Message], None]) -> int:
        """Hand every committed record of the writer's ledger partition from offset `start` on to `take`, up to this
        transaction's own beginning; return where that is. All transactions that began earlier have ended, under any id.
        """
        with self.named():
            barrier = self._barrier()
            _read_to_barrier(self._writer, start, barrier, take)
        self._reach("after-barrier")
        return barrier

    def mark(self, marker: bytes, key: str, partition: int) -> None:
        """Put a further marker into another partition of the ledger, which is committed with all else."""
        with self.named():
            self._mark(marker, key, partition)

    def commit(self, marker: bytes, key: str) -> None:
        """Put the marker behind what was produced, and commit both."""
        with self.named():
            self._mark(marker, key, self._writer.partition)
            self._flush()
            self._reach("after-flush")
            self._commit()
        self._open = False
        self._reach("after-commit")

    def _mark(self, marker: bytes, key: str, partition: int) -> None:
        try:
            self.producer.produce(self._writer.ledger, marker, key, partition)
        except KafkaException as exc:
            if exc.args[0].code() == KafkaError._STATE:
                self._commit()  # which cannot succeed either, and says why: a record was refused, or we are fenced
            raise

    def _barrier(self) -> int:
        placed: list[int] = []

        def acknowledged(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                raise KafkaException(error)
            placed.append(int(message.offset() or 0))

        opened = open_marker(self._writer.transactional_id)
        self.producer.produce(self._writer.ledger, opened, "open", self._writer.partition, on_delivery=acknowledged)
        self._flush()
        return placed[0]

    def _flush(self) -> None:
        if self.producer.flush(self._writer.timeout_ms / 1000):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def _commit(self) -> None:
        until = self._began + self._writer.timeout_ms / 1000
        while True:
            try:
                self.producer.commit_transaction(max(until - time.monotonic(), 1.0))
                return
            except KafkaException as exc:
                if not exc.args[0].retriable() or time.monotonic() > until:
                    raise

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Turn Kafka's errors into ours; a fatal one inside `flush` comes as SystemError."""
        try:
            yield
        except (KafkaException, SystemError) as exc:
            seconds = time.monotonic() - self._began if hasattr(self, "_began") else None
            error = reason(getattr(self, "producer", None), exc)
            if seconds is not None:
                with contextlib.suppress(Exception):
                    self.producer.poll(0)  # the client tells of lost brokers only when it is asked
            raise _explained(self._writer, error, exc, seconds, self._heard) from exc

    def _reach(self, point: str) -> None:
        where = self._writer.where
        fail_point(f"{where.get('step', 'writer')}-{point}", **where)


@contextlib.contextmanager
def beginning(writer: Writer) -> Iterator["Future[tuple[Transaction, Plan | Done | None]]"]:
    """Begin a transaction, and read the last marker, while the block does something else and then waits for it.

    At the block's end it is aborted, if it was not committed.
    """
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:

        def begun() -> tuple[Transaction, Plan | Done | None]:
            transaction = stack.enter_context(Transaction(writer))
            return transaction, transaction.last_marker()

        yield pool.submit(begun)


def reason(producer: Producer | None, exc: Exception) -> KafkaError | None:
    """Return why a transaction cannot go on; for queued records the client only says that they were purged."""
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, KafkaException):
        cause = cause.__cause__ or cause.__context__
    error: KafkaError | None = cause.args[0] if cause is not None else None
    if producer is None or error is None or error.code() not in CONSEQUENCES:
        return error
    try:
        producer.commit_transaction(ASK_SECONDS)  # which cannot succeed any more, and says why
    except KafkaException as told:
        return error if told.args[0].code() in CONSEQUENCES else told.args[0]
    return error


def _explained(
    writer: Writer,
    error: KafkaError | None,
    exc: Exception,
    seconds: float | None,
    heard: Sequence[KafkaError] = (),
) -> TidemarkError:
    """Name why a transaction failed: by its cause, and by its time only where nothing else is known.

    Args:
        seconds: since it began; None where it could not.
        heard: what the client reported besides.
    """
    who, is_over = f"writer {writer.transactional_id}", seconds is not None and seconds * 1000 > writer.timeout_ms
    code = error.code() if error is not None else None
    if is_over and (code is None or code in (*FENCED, *LATE)):
        # The brokers end a transaction that is over, and fence its writer.
        error = next((told for told in heard if _is_outage(told)), None)
        if error is None:
            limit = f"the brokers end it after {writer.timeout_ms / 1000:.0f} s"
            what = f"{who} took {seconds:.0f} s for one transaction, {limit}"
            remedy = (
                "raise ledger.transaction_timeout_ms (up to the brokers' transaction.max.timeout.ms, 15 minutes by "
                "default), then start the same again: a batch that was begun keeps its records; "
                "source.max_offsets_per_trigger makes later ones smaller"
            )
            return TidemarkError("TRANSACTION_TIMED_OUT", what, remedy)
    elif code in FENCED:
        return fenced(writer.transactional_id)
    if error is None:
        return kafka_failed(who, str(exc))
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return batch_too_large(writer.transactional_id)
    if _is_outage(error) and not is_over and seconds is not None:
        return kafka_failed(who, error.str())  # another attempt, which waits for the brokers, may get past it
    return client_error(who, error, writer.rights(), writer.connection)


def fenced(writer: str) -> TidemarkError:
    what = f"another writer has taken over as {writer}: two runs of one query, or a task that was thought dead"
    return TidemarkError("FENCED", what, "see that the query runs once only, then start the job again")


def batch_too_large(writer: str) -> TidemarkError:
    what = f"writer {writer}: a batch of records, or a marker, is larger than its topic takes (max.message.bytes)"
    remedy = "raise the limit of the output topic and of the ledger to sink.batch_bytes at least, then start again"
    return TidemarkError("RECORD_TOO_LARGE", what, remedy)


def _is_outage(error: KafkaError) -> bool:
    known = BY_ERROR.get(error.name())
    return known is not None and known.code == UNREACHABLE


def _fence(writer: Writer, heard: list[KafkaError]) -> Producer:
    """Return a producer under the writer's id, after which no earlier one can commit; what it reports is `heard`."""
    config = {
        **PRODUCER,
        **writer.tuning,
        **writer.connection,
        "transactional.id": writer.transactional_id,
        "transaction.timeout.ms": writer.timeout_ms,
        "message.timeout.ms": writer.timeout_ms,
        "socket.timeout.ms": writer.answer_ms,
    }
    config["error_cb"] = heard.append
    until = time.monotonic() + FENCE_SECONDS
    for wait in chain(FENCE_WAITS, repeat(5.0)):
        producer = Producer(config)
        try:
            # Twice: the first connection is to a bootstrap address, the second to a broker by its id.
            for _ in range(2):
                producer.list_topics(writer.ledger, timeout=METADATA_SECONDS)
            producer.init_transactions(wait)
            return producer
        except KafkaException as exc:
            error = exc.args[0]
            producer.poll(0)
            for told in (error, *heard):
                if stop := login_refused(told, writer.connection):
                    raise stop from exc
            passing = error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT)
            if not passing or time.monotonic() > until:
                raise
    raise AssertionError("the loop has no end")


def _read_to_barrier(writer: Writer, start: int, barrier: int, take: Callable[[Message], None]) -> None:
    """Hand every record of the writer's ledger partition from `start` on to `take`, up to `barrier`, where the writer's
    own transaction begins. All that began before it has ended by then.

    Raises:
        TidemarkError: FENCED, where another writer has aborted that transaction.
        KafkaException: as `messages`, after the writer's own time.
    """

    def is_barrier(offset: int) -> bool:
        if offset > barrier:
            # The reader can pass our beginning only once our transaction has ended: it was aborted meanwhile.
            raise fenced(writer.transactional_id)
        return offset == barrier

    place = TopicPartition(writer.ledger, writer.partition, start)
    connection: dict[str, str | int] = {**writer.connection, "socket.timeout.ms": writer.answer_ms}
    read_to_end(connection, place, writer.timeout_ms / 1000, take, is_barrier)


def _read_last(writer: Writer, barrier: int) -> Plan | Done | None:
    """Return the last marker before offset `barrier`; raises what `_read_to_barrier` does."""
    found: list[Plan | Done] = []

    def take(message: Message) -> None:
        if (parsed := parse(message.value())) is not None:
            found[:] = [parsed]

    behind = TAIL_OFFSETS
    while True:
        start = max(0, barrier - behind)
        _read_to_barrier(writer, start, barrier, take)
        if found or start == 0:
            return found[0] if found else None
        behind *= 16
