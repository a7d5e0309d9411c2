"""A worker at the queue: takes one record after the other from the share group, has it resolved, and says so.

    take         from now on nobody else has it, until it is acknowledged or its lock runs out
    resolve      accept (done), reject (never again), release (give it to somebody, maybe this worker, again)
    note         in the register of resolutions, which `quarantine audit` turns into a table
    acknowledge  accepted and rejected records are gone from the group

A worker that dies leaves its record to be taken by another one when the lock has run out.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message, Producer, ShareConsumer

from conf.settings import Settings
from jobs.connectors.ledger import stops
from jobs.connectors.ledger.failpoints import reach
from jobs.connectors.ledger.topic import topic_ids
from producers.publisher import connection_config, never, producer_config
from producers.quarantine import register as registers
from producers.quarantine.records import Rejected
from producers.quarantine.redrive import Redriver
from producers.quarantine.resolving import Resolution, Resolve
from producers.quarantine.work_queue import Resolutions, mark, open_queue, queue_topic

ACKNOWLEDGE = {
    "accept": confluent_kafka.AcknowledgeType.ACCEPT,
    "release": confluent_kafka.AcknowledgeType.RELEASE,
    "reject": confluent_kafka.AcknowledgeType.REJECT,
}
POLL_SECONDS = 0.5
COMMIT_SECONDS = 30.0
# Shorter than a lock: what a worker leaves open when it dies holds up the others' transactions for so long.
TRANSACTION_MS = 10_000
# What is noted where an acknowledgement comes too late: somebody else has the record by then.
EXPIRED = "expired"


@dataclass
class Worker:
    """One worker.

    Args:
        name: of this worker, in what it notes.
        resolve: decides; may take until the lock runs out.
        idle_seconds: end when nothing came for so long; None waits on.
        most: end after so many records; None has no limit.
    """

    settings: Settings
    name: str
    resolve: Resolve
    idle_seconds: float | None = None
    most: int | None = None
    lock_seconds: float | None = None
    stopped: Callable[[], bool] = never
    told: Callable[[str], None] = print
    resolved: Counter[str] = field(default_factory=Counter)

    def work(self) -> Counter[str]:
        """Resolve records until there is a reason to end; counts by resolution.

        Raises:
            TidemarkError: NO_BROKER, BROKER_UNREACHABLE, KAFKA_FAILED, and what redriving raises; the record that was
                in hand is released then.
        """
        self._ended = False
        self._ids: dict[str, str] = {}
        self._admin = registers.connect(self.settings)
        open_queue(self.settings, self._admin, self.lock_seconds)
        self._earlier = Resolutions(self.settings)
        self._redrivers: dict[str, Redriver] = {}
        connection = connection_config(self.settings.kafka, lambda error: None)
        self._producer = Producer({**connection, **producer_config(self.settings.producer, []), "linger.ms": 0})
        own = {"group.id": queue_topic(self.settings), "share.acknowledgement.mode": "explicit", "max.poll.records": 1}
        with ShareConsumer({**connection, **own}) as consumer:
            consumer.subscribe([queue_topic(self.settings)])
            for messages in self._taken(consumer):
                self._work_on(consumer, messages)
        return self.resolved

    def _taken(self, consumer: Any) -> Iterator[list[Message]]:
        last = time.monotonic()
        while not self._is_done():
            try:
                messages = list(consumer.poll(POLL_SECONDS))
            except KafkaException as exc:
                raise stops.kafka_failed(queue_topic(self.settings), exc.args[0].str()) from exc
            if taken := [message for message in messages if message.error() is None]:
                yield taken
                last = time.monotonic()
            elif self.idle_seconds is not None and time.monotonic() - last > self.idle_seconds:
                return

    def _is_done(self) -> bool:
        return self.stopped() or self._ended or (self.most is not None and self.resolved.total() >= self.most)

    def _work_on(self, consumer: Any, messages: list[Message]) -> None:
        """Each in turn; what is not resolved when this ends, for whatever reason, is given back."""
        left = list(messages)
        try:
            while left and not self._is_done():
                row = Rejected.from_json(json.loads(left[0].value() or b""))
                self._reach("taken", row)
                resolution = self._resolve(row, left[0])
                self._note(row, left[0], resolution.kind, resolution.note)
                self._reach("noted", row)
                self._acknowledge(consumer, row, left.pop(0), resolution)
                self._ended = resolution.stop
        finally:
            for message in left:
                consumer.acknowledge(message, ACKNOWLEDGE["release"])

    def _resolve(self, row: Rejected, message: Message) -> Resolution:
        delivery = message.delivery_count() or 1
        if delivery > 1:
            self._earlier.read()
            if found := self._earlier.final(int(message.offset() or 0)):
                return Resolution(found["resolution"], f"as resolved at delivery {found['delivery']}")
        resolution = self.resolve(row, delivery)
        if resolution.redrive:
            self._redriver(row.at.topic).send([row])
        return resolution

    def _redriver(self, topic: str) -> Redriver:
        if topic not in self._redrivers:
            ledger = self.settings.ledger.model_copy(update={"transaction_timeout_ms": TRANSACTION_MS})
            settings = self.settings.model_copy(update={"ledger": ledger})
            self._redrivers[topic] = Redriver(settings, topic, self.name, self.name, self.stopped)
        return self._redrivers[topic]

    def _acknowledge(self, consumer: Any, row: Rejected, message: Message, resolution: Resolution) -> None:
        try:
            consumer.acknowledge(message, ACKNOWLEDGE[resolution.kind])
            failure = next(filter(None, consumer.commit_sync(COMMIT_SECONDS).values()), None)
        except KafkaException as exc:
            failure = exc
        kind = resolution.kind if failure is None else EXPIRED
        if failure is not None:
            self._note(row, message, EXPIRED, failure.args[0].str())
        self.resolved[kind] += 1
        self.told(f"{kind:8}{row.at}  {row.error}  delivery {message.delivery_count()}  {resolution.note}".rstrip())

    def _note(self, row: Rejected, message: Message, kind: str, note: str) -> None:
        offset, delivery = int(message.offset() or 0), message.delivery_count() or 1
        more: dict[str, str | int] = {"resolution": kind, "delivery": delivery, "queue_offset": offset, "note": note}
        if row.at.topic not in self._ids:
            self._ids |= topic_ids(self._admin, [row.at.topic])
        noted = mark(row.at, self._ids, self.name, **more)
        refused: list[KafkaError] = []

        def answered(error: KafkaError | None, _: Message) -> None:
            refused.extend([error] if error else [])

        register = registers.resolved_topic(self.settings)
        self._producer.produce(register, noted, f"{offset}/{delivery}", registers.PARTITION, on_delivery=answered)
        self._producer.flush()
        if refused:
            raise stops.kafka_failed(register, refused[0].str())

    def _reach(self, point: str, row: Rejected) -> None:
        reach(f"work-{point}", sink=f"{queue_topic(self.settings)}.work", offset=row.at.offset, worker=self.name)
