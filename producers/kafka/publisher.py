"""Publishes into topics: idempotent, acknowledged by all replicas, compressed, in order by key, and counted."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from conf.settings import Batching, Kafka
from jobs.connectors.kafka.access import denied, writing
from jobs.connectors.kafka.refusals import BY_ERROR, Limits, largest_record, size_config, topic_limits
from producers.kafka.pacing import Progress
from producers.kafka.preflight import RetentionWatch, connect

GIVEN_UP = ("_PURGE_QUEUE", "_PURGE_INFLIGHT")
REMEDIES = {error: refusal.remedy for error, refusal in BY_ERROR.items()}
# A broker's restart takes some 30 s; longer than two minutes is worth an error.
MESSAGE_TIMEOUT_MS = 120_000
# Enough to keep the broker busy while the next batch is encoded, and a bound on memory.
QUEUE_MESSAGES = 200_000
QUEUE_KIBIBYTES = 65_536
# `batch_bytes` limits a batch, too: many small records must not end it early.
BATCH_MESSAGES = 100_000
# After this many refused events the rest would most likely be refused too.
MAX_FAILURES = 1_000
INTERRUPT_FLUSH_SECONDS = 10.0
WAIT_SECONDS = 0.1
DENIED = "TOPIC_AUTHORIZATION_FAILED"
# Errors after which no further event can be delivered by this producer.
HOPELESS = ("_MSG_TIMED_OUT", "_FATAL", DENIED, "UNKNOWN_TOPIC_OR_PART")
PARTITIONER = -1  # the partition that lets librdkafka choose by key

Headers = list[tuple[str, str | bytes | None]] | None
Event = tuple[str, bytes | None, str | bytes | None, int, Headers, int]


def never() -> bool:
    """Return False: nothing stops the run."""
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


@dataclass(frozen=True)
class Report:
    """Events by outcome: every one that was handed over is delivered, failed or undelivered.

    `failed`: (topic, librdkafka's error name) -> events that the client or the broker refused.
    `undelivered`: topic -> events that were given up before the broker acknowledged them.
    `cause`: what ended the events before their time; those before it are accounted for.
    `denied`: which right the user lacks, where that is why events were refused.
    """

    delivered: Mapping[str, int]
    failed: Mapping[tuple[str, str], int]
    undelivered: Mapping[str, int]
    seconds: float
    interrupted: bool = False
    cause: TidemarkError | None = None
    denied: TidemarkError | None = None

    @property
    def delivered_count(self) -> int:
        """Count events that the broker acknowledged."""
        return sum(self.delivered.values())

    @property
    def complete(self) -> bool:
        """Return whether all events came, and all were delivered."""
        return not (self.failed or self.undelivered or self.interrupted or self.cause)

    def __str__(self) -> str:
        rate = self.delivered_count / self.seconds if self.seconds > 0 else 0.0
        topics = ", ".join(f"{topic} {count:,}" for topic, count in self.delivered.items())
        text = f"{self.delivered_count:,} events in {self.seconds:.1f} s ({rate:,.0f}/s)"
        text += f": {topics}" if topics else ""
        for (topic, error), count in sorted(self.failed.items()):
            text += f"; failed: {count:,} to {topic} ({error})"
        for topic, count in sorted(self.undelivered.items()):
            text += f"; undelivered: {count:,} to {topic}"
        return text

    def require_complete(self) -> None:
        """Raise TidemarkError DELIVERY_FAILED, with counts, where events failed or were given up; then `cause`."""
        if self.failed or self.undelivered:
            lost = [f"{count:,} to {topic} ({error})" for (topic, error), count in sorted(self.failed.items())]
            lost += [f"{count:,} to {topic} (given up)" for topic, count in sorted(self.undelivered.items())]
            errors = {error for _, error in self.failed}
            remedies = [REMEDIES[error] for error in sorted(errors & REMEDIES.keys())]
            if self.denied:
                lost.append(self.denied.message)
                remedies.append(self.denied.remedy)
            remedy = "; ".join(remedies) or "see the broker's log, and publish again"
            raise TidemarkError("DELIVERY_FAILED", ", ".join(lost), remedy)
        if self.cause:
            raise self.cause


class Publisher:
    """Publishes batches to `topics`, which must exist.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES, NOT_AUTHORIZED or NO_TOPIC, before anything is
            sent.
    """

    def __init__(self, kafka: Kafka, batching: Batching, topics: Collection[str]) -> None:
        self._errors: list[KafkaError] = []
        self._kafka = kafka
        _, self.limits = open_topics(kafka, topics)
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
        return self._report(time.monotonic() - started, cause)

    def _report(self, seconds: float, cause: TidemarkError | None) -> Report:
        delivered, refused, given_up = Counter(self._handed_over), Counter[tuple[str, str]](), Counter[str]()
        for (topic, error), count in self._failed.items():
            delivered[topic] -= count
            if error in GIVEN_UP:
                given_up[topic] += count
            else:
                refused[topic, error] += count
        topics = sorted({topic for topic, error in self._failed if error == DENIED})
        lacking = denied(DENIED, "", writing(topics), self._kafka.client_config()) if topics else None
        return Report(delivered, refused, given_up, seconds, self._stopped(), cause, lacking)

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
                self._failed[topic, exc.args[0].name()] += 1
            count += 1
        self._handed_over.update(batch.topics[:count])
        self._producer.poll(0)

    def _send_when_free(self, event: Event) -> bool:
        """Return whether the event was handed over; it is not when we are stopped, or give up, before there is room."""
        topic, value, key, timestamp, headers, partition = event
        while not (self._stopped() or self._should_give_up()):
            self._producer.poll(WAIT_SECONDS)
            self._progress.show_waiting(len(self._producer))
            try:
                self._producer.produce(topic, value, key, partition, None, None, timestamp, headers)
            except BufferError:
                continue
            except KafkaException as exc:
                self._failed[topic, exc.args[0].name()] += 1
            return True
        return False

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


def open_topics(kafka: Kafka, topics: Collection[str]) -> tuple[AdminClient, dict[str, Limits]]:
    """Return a client of the cluster, and what `topics` take; raises what `Publisher` does."""
    admin = connect(kafka, topics)
    return admin, topic_limits(admin, topics)


def connection_config(kafka: Kafka, on_error: Callable[[KafkaError], None]) -> dict[str, Any]:
    """Return what every client needs: where the cluster is, how to log in, and where errors go."""
    return {**kafka.client_config(), "error_cb": on_error}


def producer_config(batching: Batching, limits: Collection[Limits]) -> dict[str, Any]:
    """Return librdkafka's properties for our guarantees, towards topics of these limits."""
    return {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",  # Java's: clients in Java and Streams find a key in the same partition
        "message.timeout.ms": MESSAGE_TIMEOUT_MS,
        "queue.buffering.max.messages": QUEUE_MESSAGES,
        # A record that is larger than the queue would be waited for without end.
        "queue.buffering.max.kbytes": max(QUEUE_KIBIBYTES, 2 * largest_record(limits) // 1024),
        "batch.num.messages": BATCH_MESSAGES,
        **batching.client_config(),
        **size_config(batching, limits),
    }
