"""Sends batches into an open transaction: in order, and acknowledged by the brokers, or one named error."""

import time
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from conf.errors import TidemarkError
from jobs.connectors.exactly_once import errors
from jobs.connectors.exactly_once.transaction import FENCED, reason
from jobs.connectors.kafka.access import CODES
from jobs.connectors.kafka.refusals import SizeLimits, shown_key
from producers.kafka.pacing import Progress
from producers.kafka.publisher import INTERRUPT_FLUSH_SECONDS, REMEDIES, WAIT_SECONDS, Batch, Event

ABORT_SECONDS = 10.0
# A run that only looked dead fences us once; repeated fencing means two publishers at a time.
ATTEMPTS = 3
# After this time a run that has taken over has its marker in the ledger.
FENCED_SECONDS = 1.0
# After these the transaction may be committed or not: the next one's barrier tells.
UNCLEAR = ("FENCED", "KAFKA_FAILED", "BROKER_UNREACHABLE", "TRANSACTION_TIMED_OUT")


class TransactionSender:
    """Sends in the transactions of `name`.

    Args:
        timeout: seconds to wait for a broker that does not answer.
        on_batch: called after each batch that was handed over.
        on_delivery: called with the partition and offset of each record, in the order of each partition.
    """

    def __init__(
        self,
        name: str,
        timeout: float,
        stopped: Callable[[], bool],
        progress: Progress,
        on_batch: Callable[[], None],
        on_delivery: Callable[[int, int], None] | None = None,
        limits: SizeLimits | None = None,
    ) -> None:
        self._name, self._timeout, self._stopped, self._progress = name, timeout, stopped, progress
        self._on_batch, self._on_delivery = on_batch, on_delivery
        self._callback = self._note if on_delivery else None
        self._limits = limits or SizeLimits({})
        self._refused: KafkaError | None = None

    def send(self, producer: Producer, batches: Sequence[Batch]) -> None:
        """Hand all records over, and wait until the brokers have them.

        Raises:
            TidemarkError: FENCED, RECORD_TOO_LARGE, DELIVERY_FAILED; the transaction cannot be committed any more.
            KafkaException: where a right is lacking.
        """
        try:
            for batch in batches:
                self._produce(producer, batch)
                producer.poll(0)
                self._on_batch()
            self._flush(producer)
            if self._refused:
                raise KafkaException(self._refused)
        except (KafkaException, SystemError) as exc:
            raise _aborted(producer, self._name, exc) from exc

    def _note(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._refused = self._refused or error
        elif self._on_delivery:
            self._on_delivery(int(message.partition() or 0), int(message.offset() or 0))

    def _produce(self, producer: Producer, batch: Batch) -> None:
        produce = producer.produce
        for event in batch.events():
            topic, value, key, timestamp, headers, partition = event
            try:
                produce(topic, value, key, partition, self._callback, None, timestamp, headers)
            except BufferError:
                self._produce_when_free(producer, event)
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise
                what = f"{self._name}: the record with {shown_key(key)}"
                raise self._limits.too_large(what, topic, key, value, headers) from exc

    def _produce_when_free(self, producer: Producer, event: Event) -> None:
        topic, value, key, timestamp, headers, partition = event
        deadline = Deadline(self._timeout, self._stopped)
        while True:
            producer.poll(WAIT_SECONDS)
            deadline.check(len(producer))
            self._progress.show_waiting(len(producer))
            try:
                producer.produce(topic, value, key, partition, self._callback, None, timestamp, headers)
                return
            except BufferError:
                continue

    def _flush(self, producer: Producer) -> None:
        deadline = Deadline(self._timeout, self._stopped)
        while unacknowledged := producer.flush(WAIT_SECONDS):
            deadline.check(unacknowledged)
            self._progress.show_waiting(unacknowledged)


class Deadline:
    """Limits how long we wait for a broker that does not answer; shorter once we are stopped."""

    def __init__(self, seconds: float, stopped: Callable[[], bool]) -> None:
        self._until = time.monotonic() + seconds
        self._stopped = stopped
        self._shortened = False

    def check(self, unacknowledged: int) -> None:
        """Raise TidemarkError DELIVERY_FAILED past the deadline, with so many records `unacknowledged`."""
        now = time.monotonic()
        if not self._shortened and self._stopped():
            self._until, self._shortened = min(self._until, now + INTERRUPT_FLUSH_SECONDS), True
        if now > self._until:
            what = f"{unacknowledged:,} records were not acknowledged, their transaction was aborted"
            raise TidemarkError("DELIVERY_FAILED", what, REMEDIES["_MSG_TIMED_OUT"])


def delivery_failed(name: str, error: KafkaError | None, text: str) -> TidemarkError:
    """Return the error of a transaction that was aborted because a record was refused, with what to do about it."""
    remedy = REMEDIES.get(error.name() if error else "", "see the broker's log, and publish again")
    return TidemarkError("DELIVERY_FAILED", f"{name}: {text}", remedy)


def _aborted(producer: Producer, name: str, exc: Exception) -> TidemarkError:
    """Abort the transaction, and say why by its end: once a producer is fenced, `produce` says only that it cannot go
    on.
    """
    error = reason(producer, exc)
    if error is not None and error.code() in CODES:
        raise KafkaException(error) from exc  # the transaction knows its user and topics
    failure = exc
    try:
        producer.abort_transaction(ABORT_SECONDS)
    except KafkaException as fatal:
        failure, error = fatal, fatal.args[0]
    if error is not None and error.code() in FENCED:
        return errors.fenced(name)
    return delivery_failed(name, error, error.str() if error is not None else str(failure))
