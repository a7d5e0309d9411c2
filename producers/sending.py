"""Batches into an open transaction: handed over in order, acknowledged, or one named error."""

import time
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from conf.errors import TidemarkError
from jobs.connectors.ledger import stops
from jobs.connectors.ledger.transaction import FENCED
from producers.delivery import REMEDIES
from producers.progress import Progress
from producers.publisher import INTERRUPT_FLUSH_SECONDS, WAIT_SECONDS, Batch, Event

ABORT_SECONDS = 10.0


class Sender:
    """Sends in the transactions of `name`; `sent` is called after each batch that was handed over, `placed` with the
    partition and offset of each record, in the order of each partition.
    """

    def __init__(
        self,
        name: str,
        timeout: float,
        stopped: Callable[[], bool],
        progress: Progress,
        sent: Callable[[], None],
        placed: Callable[[int, int], None] | None = None,
    ) -> None:
        self._name, self._timeout, self._stopped, self._progress = name, timeout, stopped, progress
        self._sent, self._placed = sent, placed
        self._answered = self._note if placed else None
        self._refused: KafkaError | None = None

    def send(self, producer: Producer, batches: Sequence[Batch]) -> None:
        """Hand all records over, and wait until the brokers have them.

        Raises:
            TidemarkError: FENCED, DELIVERY_FAILED; the transaction cannot be committed any more.
        """
        try:
            for batch in batches:
                self._produce(producer, batch)
                producer.poll(0)
                self._sent()
            self._flush(producer)
            if self._refused:
                raise KafkaException(self._refused)
        except (KafkaException, SystemError) as exc:
            raise _explained(producer, self._name, exc) from exc

    def _note(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._refused = self._refused or error
        elif self._placed:
            self._placed(int(message.partition() or 0), int(message.offset() or 0))

    def _produce(self, producer: Producer, batch: Batch) -> None:
        produce = producer.produce
        for event in batch.events():
            topic, value, key, timestamp, headers, partition = event
            try:
                produce(topic, value, key, partition, self._answered, None, timestamp, headers)
            except BufferError:
                self._produce_when_free(producer, event)

    def _produce_when_free(self, producer: Producer, event: Event) -> None:
        topic, value, key, timestamp, headers, partition = event
        deadline = Deadline(self._timeout, self._stopped)
        while True:
            producer.poll(WAIT_SECONDS)
            deadline.check(len(producer))
            self._progress.show_waiting(len(producer))
            try:
                producer.produce(topic, value, key, partition, self._answered, None, timestamp, headers)
                return
            except BufferError:
                continue

    def _flush(self, producer: Producer) -> None:
        deadline = Deadline(self._timeout, self._stopped)
        while left := producer.flush(WAIT_SECONDS):
            deadline.check(left)
            self._progress.show_waiting(left)


class Deadline:
    """How long a broker that does not answer is waited for; shorter once we are stopped."""

    def __init__(self, seconds: float, stopped: Callable[[], bool]) -> None:
        self._until = time.monotonic() + seconds
        self._stopped = stopped
        self._hurried = False

    def check(self, left: int) -> None:
        """Raises TidemarkError DELIVERY_FAILED past the deadline, with `left` records unacknowledged."""
        now = time.monotonic()
        if not self._hurried and self._stopped():
            self._until, self._hurried = min(self._until, now + INTERRUPT_FLUSH_SECONDS), True
        if now > self._until:
            what = f"{left:,} records were not acknowledged, their transaction was aborted"
            raise TidemarkError("DELIVERY_FAILED", what, REMEDIES["_MSG_TIMED_OUT"])


def delivery_failed(name: str, error: KafkaError | None, text: str) -> TidemarkError:
    """A transaction that was aborted because a record was refused, with what to do about it."""
    remedy = REMEDIES.get(error.name() if error else "", "see the broker's log, and publish again")
    return TidemarkError("DELIVERY_FAILED", f"{name}: {text}", remedy)


def _explained(producer: Producer, name: str, exc: Exception) -> TidemarkError:
    """By the end of the transaction: once a producer is fenced, `produce` only says that it cannot go on."""
    told = exc
    try:
        producer.abort_transaction(ABORT_SECONDS)
    except KafkaException as fatal:
        told = fatal
    error = told.args[0] if isinstance(told, KafkaException) else None
    if error is not None and error.code() in FENCED:
        return stops.fenced(name)
    return delivery_failed(name, error, error.str() if error is not None else str(told))
