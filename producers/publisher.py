"""The one way into a topic: idempotent, acknowledged by all replicas, compressed, in order by key, and counted.

Nothing is dropped: a full queue is waited for, a broker that is away is waited for, and what fails is counted by
topic and error without a callback per delivered event.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from conf.settings import Batching, Kafka
from producers.delivery import Report, settle
from producers.preflight import Limits, RetentionWatch, require_topics, topic_limits
from producers.progress import Progress

# A broker's restart takes some 30 s; past two minutes somebody should know.
MESSAGE_TIMEOUT_MS = 120_000
# Enough to keep the broker busy while the next batch is encoded, and a bound on memory.
QUEUE_MESSAGES = 200_000
QUEUE_KIBIBYTES = 65_536
# Under `batch_bytes` all the same: small records must not end a batch early.
BATCH_MESSAGES = 100_000
# After this many refused events the rest would most likely be refused too.
MAX_FAILURES = 1_000
DEFAULT_MESSAGE_BYTES = 1_000_000  # librdkafka's own, where the topics do not say what they take
INTERRUPT_FLUSH_SECONDS = 10.0
WAIT_SECONDS = 0.1
# Errors after which no further event can be delivered by this producer.
HOPELESS = ("_MSG_TIMED_OUT", "_FATAL", "TOPIC_AUTHORIZATION_FAILED", "UNKNOWN_TOPIC_OR_PART")

PARTITIONER = -1  # the partition that lets librdkafka choose by key

Headers = list[tuple[str, str | bytes | None]] | None
Event = tuple[str, bytes | None, str | bytes | None, int, Headers, int]


def never() -> bool:
    """Nobody stops us."""
    return False


@dataclass(frozen=True)
class Batch:
    """Events as columns of equal length. `keys` are sent as UTF-8; `timestamps` are ms since 1970, 0 meaning now.

    Without `partitions` the key decides.
    """

    topics: Sequence[str]
    values: Sequence[bytes | None]
    keys: Sequence[str | bytes | None]
    timestamps: Sequence[int]
    headers: Sequence[Headers] | None = None
    partitions: Sequence[int] | None = None

    def events(self) -> Iterator[Event]:
        """Record by record."""
        headers, partitions = self.headers or repeat(None), self.partitions or repeat(PARTITIONER)
        return zip(self.topics, self.values, self.keys, self.timestamps, headers, partitions, strict=False)


class Publisher:
    """Publishes batches to `topics`, which must exist.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES or NO_TOPIC, before anything is sent.
    """

    def __init__(self, kafka: Kafka, batching: Batching, topics: Collection[str]) -> None:
        self._errors: list[KafkaError] = []
        _, self.limits = open_topics(kafka, topics, self._errors)
        self._retention = RetentionWatch(self.limits)
        self._handed_over: Counter[str] = Counter()
        self._failed: Counter[tuple[str, str]] = Counter()
        self._stopped: Callable[[], bool] = never
        self._progress = Progress()
        reports = {"delivery.report.only.error": True, "on_delivery": self._note_failure}
        connection = connection_config(kafka, self._errors.append)
        self._producer = Producer({**connection, **producer_config(batching, self.limits.values()), **reports})

    def publish(
        self, batches: Iterable[Batch], stopped: Callable[[], bool] = never, progress: Progress | None = None
    ) -> Report:
        """Send every event of `batches`, in order, and wait until each is acknowledged or has failed.

        `stopped` is asked between batches and while waiting; once it says yes, what is queued is still flushed,
        for a bounded time. A TidemarkError of the `batches` ends them, and is the report's cause.
        """
        started, cause = time.monotonic(), None
        self._stopped, self._progress = stopped, progress or Progress()
        try:
            for batch in batches:
                self._send(batch)
                if batch.timestamps:
                    self._progress.show(self._handed_over.total(), batch.timestamps[-1])
                if stopped() or self._should_give_up():
                    break
        except TidemarkError as error:
            cause = error
        self._flush()
        self._progress.clear()
        seconds = time.monotonic() - started
        return settle(self._handed_over, self._failed, seconds=seconds, interrupted=stopped(), cause=cause)

    def wait(self, seconds: float) -> None:
        """Let time pass and serve the connection."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._producer.poll(left)

    def _send(self, batch: Batch) -> None:
        self._retention.look(batch.topics, batch.timestamps)
        produce, count = self._producer.produce, 0
        for event in batch.events():
            topic, value, key, timestamp, header, partition = event
            try:
                produce(topic, value, key, partition, None, None, timestamp, header)
            except BufferError:
                if not self._send_when_free(event):
                    break
            except KafkaException as exc:
                self._note_refusal(topic, exc)
            count += 1
        self._handed_over.update(batch.topics[:count])
        self._producer.poll(0)

    def _send_when_free(self, event: Event) -> bool:
        """Whether the event was handed over; it is not when we are stopped, or give up, before there is room."""
        topic, value, key, timestamp, headers, partition = event
        while not (self._stopped() or self._should_give_up()):
            self._producer.poll(WAIT_SECONDS)
            self._progress.show_waiting(len(self._producer))
            try:
                self._producer.produce(topic, value, key, partition, None, None, timestamp, headers)
            except BufferError:
                continue
            except KafkaException as exc:
                self._note_refusal(topic, exc)
            return True
        return False

    def _note_refusal(self, topic: str, refusal: KafkaException) -> None:
        self._failed[topic, refusal.args[0].name()] += 1

    def _flush(self) -> None:
        deadline = None
        while len(self._producer):
            self._progress.show_waiting(len(self._producer))
            if self._stopped() and deadline is None:
                deadline = time.monotonic() + INTERRUPT_FLUSH_SECONDS
            if self._is_hopeless() or (deadline and time.monotonic() > deadline):
                self._producer.purge()
            self._producer.flush(WAIT_SECONDS)

    def _note_failure(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed[str(message.topic()), error.name()] += 1

    def _should_give_up(self) -> bool:
        return self._is_hopeless() or self._failed.total() > MAX_FAILURES

    def _is_hopeless(self) -> bool:
        return any(name in HOPELESS for _, name in self._failed) or any(error.fatal() for error in self._errors)


def open_topics(
    kafka: Kafka, topics: Collection[str], errors: list[KafkaError]
) -> tuple[AdminClient, dict[str, Limits]]:
    """A client of the cluster, and what `topics` take; raises what `Publisher` does. `errors`: where errors go."""
    admin = AdminClient(connection_config(kafka, errors.append))
    require_topics(admin, kafka.bootstrap_servers, topics, errors)
    return admin, topic_limits(admin, topics)


def connection_config(kafka: Kafka, on_error: Callable[[KafkaError], None]) -> dict[str, Any]:
    """What every client needs: where the cluster is and how to log in; librdkafka's log goes to Python's logging."""
    logger = logging.getLogger("tidemark.kafka")
    if not logger.handlers:
        # Without a handler Python prints warnings to the terminal, where our one line should stand alone.
        logger.addHandler(logging.NullHandler())
    return {**kafka.client_config(), "error_cb": on_error, "logger": logger}


def producer_config(batching: Batching, limits: Iterable[Limits]) -> dict[str, Any]:
    """librdkafka's properties for our guarantees, towards topics of these limits."""
    largest = [each.max_message_bytes for each in limits if each.max_message_bytes is not None]
    return {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",  # Java's: clients in Java and Streams find a key in the same partition
        "message.timeout.ms": MESSAGE_TIMEOUT_MS,
        "queue.buffering.max.messages": QUEUE_MESSAGES,
        "queue.buffering.max.kbytes": QUEUE_KIBIBYTES,
        "batch.num.messages": BATCH_MESSAGES,
        **batching.client_config(),
        # The broker refuses a batch above the topic's limit whole, with every record in it.
        "batch.size": min([batching.batch_bytes, *largest]),
        "message.max.bytes": max(largest, default=DEFAULT_MESSAGE_BYTES),
    }
