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
from confluent_kafka import KafkaException, Message, ShareConsumer

from conf.settings import Settings
from jobs.connectors.ledger import stops
from jobs.connectors.ledger.failpoints import reach
from producers.publisher import connection_config, never
from producers.quarantine import register as registers
from producers.quarantine.records import Rejected
from producers.quarantine.redrive import Redriver
from producers.quarantine.resolutions import EXPIRED, GIVEN_UP, Notes, Resolutions
from producers.quarantine.resolving import Resolution, Resolve
from producers.quarantine.work_queue import open_queue, queue_topic, terms

ACKNOWLEDGE = {
    "accept": confluent_kafka.AcknowledgeType.ACCEPT,
    "release": confluent_kafka.AcknowledgeType.RELEASE,
    "reject": confluent_kafka.AcknowledgeType.REJECT,
}
POLL_SECONDS = 0.5
COMMIT_SECONDS = 30.0
# Shorter than a lock: what a worker leaves open when it dies holds up the others' transactions for so long.
TRANSACTION_MS = 10_000
# A member learns what it is to read with its second heartbeat, 5 s after the first.
JOIN_SECONDS = 10.0
# A record that is released is handed out again at once: without a pause its deliveries would soon be used up.
PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0


@dataclass
class Worker:
    """One worker.

    Args:
        name: of this worker, in what it notes.
        resolve: decides; may take until the lock runs out.
        idle_seconds: end when nothing came for so long; None waits on.
        lock_seconds: how long the group lets workers have a record from now on; None leaves that.
        into_compacted: see `Redriver`.
        most: end after so many records; None has no limit.
    """

    settings: Settings
    name: str
    resolve: Resolve
    idle_seconds: float | None = None
    most: int | None = None
    lock_seconds: float | None = None
    into_compacted: bool = False
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
        self._admin = registers.connect(self.settings)
        open_queue(self.settings, self._admin, self.lock_seconds)
        self._resolutions = Resolutions(self.settings)
        self._redrivers: dict[str, Redriver] = {}
        connection = connection_config(self.settings.kafka, lambda error: None)
        self._notes = Notes(self.settings, self._admin, self.name)
        self._terms = terms(self.settings, self._admin)
        self._taken_at = 0.0
        own = {"group.id": queue_topic(self.settings), "share.acknowledgement.mode": "explicit", "max.poll.records": 1}
        with ShareConsumer({**connection, **own}) as consumer:
            consumer.subscribe([queue_topic(self.settings)])
            for messages in self._taken(consumer):
                self._work_on(consumer, messages)
        return self.resolved

    def _taken(self, consumer: Any) -> Iterator[list[Message]]:
        last = time.monotonic() + JOIN_SECONDS
        while not self._is_done():
            try:
                messages = list(consumer.poll(POLL_SECONDS))
            except KafkaException as exc:
                raise stops.kafka_failed(queue_topic(self.settings), exc.args[0].str()) from exc
            if taken := [message for message in messages if message.error() is None]:
                self._taken_at = time.monotonic()
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
                self._acknowledge(consumer, row, left.pop(0), resolution)
                self._ended = resolution.stop
        finally:
            for message in left:
                consumer.acknowledge(message, ACKNOWLEDGE["release"])

    def _resolve(self, row: Rejected, message: Message) -> Resolution:
        if (message.delivery_count() or 1) > 1 and (earlier := self._resolved_by_another(message)):
            return earlier
        resolution = self.resolve(row, message.delivery_count() or 1)
        # By half the lock's time nobody else can have had it, whichever clock is asked.
        is_late = time.monotonic() - self._taken_at > self._terms.lock_seconds / 2
        if is_late and (earlier := self._resolved_by_another(message)):
            return earlier
        if resolution.redrive:
            self._redriver(row.at.topic).send([row])
        return resolution

    def _resolved_by_another(self, message: Message) -> Resolution | None:
        """Brokers do not say so: they pass over what acknowledges a record that is gone."""
        self._resolutions.read()
        found = self._resolutions.final(int(message.offset() or 0))
        return Resolution(found["resolution"], f"as resolved at delivery {found['delivery']}") if found else None

    def _redriver(self, topic: str) -> Redriver:
        if topic not in self._redrivers:
            ledger = self.settings.ledger.model_copy(update={"transaction_timeout_ms": TRANSACTION_MS})
            settings = self.settings.model_copy(update={"ledger": ledger})
            self._redrivers[topic] = Redriver(settings, topic, self.name, self.into_compacted, self.name, self.stopped)
        return self._redrivers[topic]

    def _acknowledge(self, consumer: Any, row: Rejected, message: Message, resolution: Resolution) -> None:
        kind = self._noted_as(resolution, message)
        self._notes.add(row, message, kind, resolution.note)
        self._reach("noted", row)
        if failure := _commit(consumer, message, ACKNOWLEDGE[resolution.kind]):
            kind = EXPIRED
            self._notes.add(row, message, kind, failure.args[0].str())
        self.resolved[kind] += 1
        self.told(f"{kind:8}  {row.at}  {row.error}  delivery {message.delivery_count()}  {resolution.note}".rstrip())
        if kind == "release":
            self._pause(message.delivery_count() or 1)

    def _noted_as(self, resolution: Resolution, message: Message) -> str:
        is_last = (message.delivery_count() or 1) >= self._terms.deliveries
        return GIVEN_UP if resolution.kind == "release" and is_last else resolution.kind

    def _pause(self, delivery: int) -> None:
        until = time.monotonic() + min(PAUSE_SECONDS * 2 ** (delivery - 1), LONGEST_PAUSE_SECONDS)
        while not self.stopped() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, POLL_SECONDS))

    def _reach(self, point: str, row: Rejected) -> None:
        reach(f"work-{point}", sink=f"{queue_topic(self.settings)}.work", offset=row.at.offset, worker=self.name)


def _commit(consumer: Any, message: Message, how: confluent_kafka.AcknowledgeType) -> KafkaException | None:
    """What came of an acknowledgement; None where the brokers have taken it."""
    try:
        consumer.acknowledge(message, how)
        return next(filter(None, consumer.commit_sync(COMMIT_SECONDS).values()), None)
    except KafkaException as exc:
        return exc
