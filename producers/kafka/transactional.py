"""Publishes exactly once: records and their input's position in one Kafka transaction, again and again.

Events are gathered into a chunk; a transaction then publishes the chunk whole. So none is held open while a source is
slow, and a chunk whose transaction fails leaves nothing behind. What a run finds in the ledger is where it goes on.
Within a transaction, batches are sent in order, and acknowledged by the brokers, or end it with one named error.
"""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.exactly_once.fail_points import fail_point
from jobs.connectors.exactly_once.ledger import Published
from jobs.connectors.exactly_once.transaction import FENCED, fenced, reason
from jobs.connectors.kafka.access import CODES
from jobs.connectors.kafka.refusals import SizeLimits, shown_key
from producers.kafka.pacing import Progress
from producers.kafka.preflight import RetentionWatch
from producers.kafka.publish_progress import Position, first_marker, next_marker, open_progress
from producers.kafka.publisher import (
    INTERRUPT_FLUSH_SECONDS,
    REMEDIES,
    WAIT_SECONDS,
    Batch,
    Event,
    Report,
    never,
    open_topics,
)

# A transaction costs some 0.1 s: at these sizes a few per cent. Readers see nothing of it before its end.
MAX_RECORDS = 200_000
MAX_BYTES = 64 << 20
MAX_SECONDS = 5.0
ABORT_SECONDS = 10.0


class TransactionalPublisher:
    """Publishes one input to `topics`, which must exist, exactly once under `name`: first `begin`, then `publish`.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES, NO_TOPIC, TRANSACTION_TIMEOUT_ABOVE_CAP,
            KAFKA_FAILED, before anything is sent.
    """

    def __init__(self, settings: Settings, input_kind: str, name: str, topics: Collection[str]) -> None:
        """`input_kind`: the input's kind, or its topic."""
        self.name = name
        admin, self.limits = open_topics(settings.kafka, topics)
        self._retention = RetentionWatch(self.limits)
        self._ledger = open_progress(settings, admin, input_kind, name, self.limits)
        self._sizes = SizeLimits.of(self.limits, settings.kafka.bootstrap_servers)
        self._chunk = Chunk()
        self._failed = False
        self._progress = Progress()
        self._stopped: Callable[[], bool] = never
        self._position = self._events_read

    def begin(self, identity: Mapping[str, str], check_first: Callable[[], None] = lambda: None) -> Published:
        """Take over the name for this run, and say where to go on; `complete` where nothing is left to publish.

        Args:
            identity: everything that decides on the input's records, by name.
            check_first: checks what must hold before the first run.

        Raises:
            TidemarkError: INPUT_CHANGED, TOPIC_RECREATED, FENCED, KAFKA_FAILED, and what `check_first` raises.
        """
        self.last = self._start = self._ledger.begin(first_marker(identity, uuid.uuid4().hex), check_first)
        return self._start

    def publish(
        self,
        batches: Iterable[Batch],
        stopped: Callable[[], bool] = never,
        progress: Progress | None = None,
        position: Callable[[], Position] | None = None,
    ) -> Report:
        """Commit every event of `batches`, which come after what `begin` gave; the report tells what is committed.

        `stopped` is asked between batches; what was gathered before is still committed. A TidemarkError of the
        `batches`, or of a transaction, ends them, and is the report's cause.

        Args:
            position: how far the input is read, once what belongs to that is safe; by default, one for each event.
        """
        started = time.monotonic()
        self._stopped, self._progress = stopped, progress or Progress()
        self._position = position or self._events_read
        cause = self._publish(batches)
        self._progress.clear()
        seconds = time.monotonic() - started
        return Report(self._delivered(), {}, {}, seconds, interrupted=stopped(), cause=cause)

    def wait(self, seconds: float) -> None:
        """Let time pass, and publish what has waited for too long."""
        deadline = time.monotonic() + seconds
        if self._chunk.is_due():
            self._commit()
        time.sleep(max(0.0, deadline - time.monotonic()))

    def _publish(self, batches: Iterable[Batch]) -> TidemarkError | None:
        cause = None
        try:
            for batch in batches:
                self._take(batch)
                if self._stopped():
                    break
        except TidemarkError as error:
            cause = error
        if self._failed:
            return cause
        try:
            self._commit(complete=not (cause or self._stopped()))
        except TidemarkError as error:
            return error
        return cause

    def _take(self, batch: Batch) -> None:
        self._retention.look(batch.topics, batch.timestamps)
        self._chunk.add(batch)
        if self._chunk.is_due():
            self._commit()
        if batch.timestamps:
            events = sum(self._delivered().values()) + self._chunk.records.total()
            self._progress.show(events, batch.timestamps[-1])

    def _commit(self, complete: bool = False) -> None:
        position = self._position()
        if not complete and position == Position(self.last.read, self.last.rejected):
            return
        marker = next_marker(self.last, position, self._chunk.records, complete)
        writer = self._ledger.writer
        where = {**writer.where, "transaction": marker.id.batch}
        seconds = writer.timeout_ms / 1000
        sender = TransactionSender(self.name, seconds, self._stopped, self._progress, where, limits=self._sizes)
        try:
            self._ledger.append(self.last, marker, lambda producer: sender.send(producer, self._chunk.batches))
        except TidemarkError as error:
            self._failed = True
            raise _with_remedy(error, self.name) from error
        self.last, self._chunk = marker, Chunk()

    def _events_read(self) -> Position:
        return Position(self.last.read + self._chunk.records.total(), self.last.rejected)

    def _delivered(self) -> dict[str, int]:
        earlier = self._start.delivered
        return {topic: count - earlier.get(topic, 0) for topic, count in self.last.delivered.items()}


@dataclass
class Chunk:
    """The records that the next transaction will hold."""

    batches: list[Batch] = field(default_factory=list)
    records: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    since: float = 0.0

    def add(self, batch: Batch) -> None:
        """Take the batch in."""
        self.since = self.since or time.monotonic()
        self.batches.append(batch)
        self.records.update(batch.topics)
        self.bytes += sum(map(len, filter(None, batch.values)))

    def is_due(self) -> bool:
        """Return whether it is large or old enough to be published."""
        if not self.batches:
            return False
        large = self.records.total() >= MAX_RECORDS or self.bytes >= MAX_BYTES
        return large or time.monotonic() - self.since > MAX_SECONDS


class TransactionSender:
    """Sends in the transactions of `name`.

    Args:
        timeout: seconds to wait for a broker that does not answer.
        where: what the fail point after each batch that was handed over is known by; `step` is part of its name.
        on_delivery: called with the partition and offset of each record, in the order of each partition.
    """

    def __init__(
        self,
        name: str,
        timeout: float,
        stopped: Callable[[], bool],
        progress: Progress,
        where: Mapping[str, Any],
        on_delivery: Callable[[int, int], None] | None = None,
        limits: SizeLimits | None = None,
    ) -> None:
        self._name, self._timeout, self._stopped, self._progress = name, timeout, stopped, progress
        self._where, self._on_delivery = where, on_delivery
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
                fail_point(f"{self._where['step']}-mid-produce", **self._where)
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


def _delivery_failed(name: str, error: KafkaError | None, text: str) -> TidemarkError:
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
        return fenced(name)
    return _delivery_failed(name, error, error.str() if error is not None else str(failure))


def _with_remedy(error: TidemarkError, name: str) -> TidemarkError:
    """Return the error with what to do: a record that is refused comes as the failure of its transaction."""
    cause = error.__cause__
    is_refused = error.code in ("KAFKA_FAILED", "RECORD_REFUSED", "TIMESTAMP_AHEAD")
    if is_refused and isinstance(cause, KafkaException) and cause.args[0].name() in REMEDIES:
        return _delivery_failed(name, cause.args[0], cause.args[0].str())
    return error
