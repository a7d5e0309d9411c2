"""One Kafka transaction of one writer: fenced against its predecessors, decided behind a barrier, with a marker inside.

    with Transaction(writer) as transaction:
        last = transaction.last_marker()      # what the writer's predecessors have committed, and nothing is under way
        transaction.producer.produce(...)
        transaction.commit(marker)

Records and marker are in the log together or not at all. Whoever comes later under the same transactional id fences
this writer: its commit fails. A writer is good for one transaction only: librdkafka does not speak the protocol of
KIP-890, so a delayed end of a transaction could otherwise hit the next one of the same producer. Sources: KIP-98,
KIP-447, KIP-890.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, repeat
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from conf.errors import TidemarkError
from jobs.connectors.ledger import stops
from jobs.connectors.ledger.failpoints import reach
from jobs.connectors.ledger.markers import Done, Plan, open_marker
from jobs.connectors.ledger.reading import read_last, read_to_barrier
from jobs.connectors.ledger.writer import PRODUCER, Writer

# A predecessor's transaction that is still ending is waited for by librdkafka's own timer of 500 ms: a new producer
# asks at once. A coordinator that moves to another broker needs seconds.
FENCE_WAITS = (0.15, 0.15, 0.15, 0.5, 1.0, 2.0)
FENCE_SECONDS = 90.0
METADATA_SECONDS = 10.0
# Another writer has taken over.
FENCED = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH)


class Transaction:
    """A transaction that has begun; leaving its block without `commit` aborts it.

    Raises:
        TidemarkError: KAFKA_FAILED, FENCED (another writer has taken over), TRANSACTION_TIMED_OUT, from each method.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._reach("before-fence")
        with self._named():
            self.producer = _fence(writer)
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
        """The newest committed marker in the writer's ledger partition, read up to this transaction's own beginning."""
        with self._named():
            barrier = self._barrier()
            last = read_last(self._writer, barrier)
        self._reach("after-barrier")
        return last

    def read(self, start: int, take: Callable[[Message], None]) -> int:
        """Hand every committed record of the writer's ledger partition from offset `start` on to `take`, up to this
        transaction's own beginning; where that is. Whoever began earlier has ended by then, under whichever id.
        """
        with self._named():
            barrier = self._barrier()
            read_to_barrier(self._writer, start, barrier, take)
        self._reach("after-barrier")
        return barrier

    def commit(self, marker: bytes, key: str) -> None:
        """Put the marker behind what was produced, and commit both."""
        with self._named():
            self._mark(marker, key)
            self._flush()
            self._reach("after-flush")
            self._commit()
        self._open = False
        self._reach("after-commit")

    def _mark(self, marker: bytes, key: str) -> None:
        try:
            self.producer.produce(self._writer.ledger, marker, key, self._writer.partition)
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
    def _named(self) -> Iterator[None]:
        """Kafka's errors as ours; a fatal one inside `flush` comes as SystemError."""
        try:
            yield
        except (KafkaException, SystemError) as exc:
            seconds = time.monotonic() - getattr(self, "_began", time.monotonic())
            raise _explained(self._writer, exc, seconds) from exc

    def _reach(self, point: str) -> None:
        where = self._writer.where
        reach(f"{where.get('step', 'writer')}-{point}", **where)


@contextlib.contextmanager
def beginning(writer: Writer) -> Iterator["Future[tuple[Transaction, Plan | Done | None]]"]:
    """A transaction that begins, and reads the last marker, while the block does something else and then waits for it.

    At the block's end it is aborted, if it was not committed.
    """
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:

        def begun() -> tuple[Transaction, Plan | Done | None]:
            transaction = stack.enter_context(Transaction(writer))
            return transaction, transaction.last_marker()

        yield pool.submit(begun)


def _explained(writer: Writer, exc: Exception, seconds: float) -> TidemarkError:
    if seconds * 1000 > writer.timeout_ms:
        return stops.transaction_timed_out(writer.transactional_id, seconds, writer.timeout_ms)
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, KafkaException):
        cause = cause.__cause__ or cause.__context__
    error = cause.args[0] if cause is not None else None
    if error is not None and error.code() in FENCED:
        return stops.fenced(writer.transactional_id)
    return stops.kafka_failed(writer.transactional_id, error.str() if error is not None else str(exc))


def _fence(writer: Writer) -> Producer:
    """A producer under the writer's id, after which no earlier one can commit."""
    config = {
        **PRODUCER,
        **writer.tuning,
        **writer.connection,
        "transactional.id": writer.transactional_id,
        "transaction.timeout.ms": writer.timeout_ms,
        "message.timeout.ms": writer.timeout_ms,
        "socket.timeout.ms": writer.answer_ms,
    }
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
            passing = error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT)
            if not passing or time.monotonic() > until:
                raise
    raise AssertionError("the loop has no end")
