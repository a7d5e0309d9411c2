"""Holds the right to replay a job, which one process on one machine has at a time.

It is a partition of a topic, assigned to one member of a consumer group: the brokers keep the membership, and give the
partition to another member only when the one before has left, or has been silent for SESSION_MS.
"""

import os
import socket
import time
from threading import Event, Thread
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.kafka.access import CODES, Connection, Right, not_authorized

SESSION_MS = 10_000
# The group has rebalanced, and a dead member's session has ended, well within this.
PATIENCE_S = 30.0
POLL_S = 0.2


def lease_topic(settings: Settings) -> str:
    """Return the topic whose partition is the right to replay."""
    return f"__{settings.ledger.application}.leases"


def lease_group(settings: Settings, job: str) -> str:
    """Return the consumer group of the processes that want to replay `job`."""
    return f"{settings.ledger.application}.replay.{job}"


class ReplayLock:
    """Holds the right to replay `job` while the `with` block runs.

    Raises:
        TidemarkError: LOCKED, where another process holds it; BROKER_UNREACHABLE, BROKER_REFUSES,
            NOT_AUTHORIZED.
    """

    def __init__(self, settings: Settings, job: str) -> None:
        self._job, self._topic = job, lease_topic(settings)
        self._kafka = settings.kafka
        self._group = lease_group(settings, job)
        self._lost = Event()
        self._ending = Event()
        self._assigned = Event()
        self._settled = Event()
        self._refused: list[KafkaError] = []

    def _rights(self) -> list[Right]:
        return [
            Right("topic", self._topic, ("Read", "Create", "Describe")),
            Right("group", self._group, ("Read", "Describe")),
        ]

    def __enter__(self) -> Self:
        connection = Connection(self._kafka)
        admin = AdminClient(connection.config())
        if self._topic not in connection.metadata(admin).topics:
            topic = NewTopic(self._topic, 1, self._kafka.replication_factor)
            try:
                admin.create_topics([topic])[self._topic].result()
            except KafkaException as exc:
                if exc.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise connection.failed(admin, exc, self._rights()) from exc
        options = {
            "group.id": self._group,
            "client.id": f"{socket.gethostname()}-{os.getpid()}",
            "session.timeout.ms": SESSION_MS,
            # The one that has the partition keeps it when another asks.
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,
            "allow.auto.create.topics": False,
            "topic.metadata.refresh.interval.ms": 1000,
            "log_level": 0,
        }
        self._consumer = Consumer({**self._kafka.client_config(), **options})
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_lost, on_lost=self._on_lost
        )
        self._thread = Thread(target=self._poll, name="replay-lock", daemon=True)
        self._thread.start()
        if not self._wait_for_partition():
            self._leave()
            if self._refused:
                raise not_authorized(self._refused[0], self._rights(), self._kafka.client_config())
            holder = self._holder(admin)
            remedy = "wait until it has ended: what it does need not be done again"
            raise TidemarkError("LOCKED", f"a replay of job {self._job} is running already{holder}", remedy)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leave()

    def require(self) -> None:
        """Raise LEASE_LOST where the brokers have given the right to another: this process was silent for too long."""
        if self._lost.is_set():
            message = f"another process may replay job {self._job} now: this one was silent for too long"
            raise TidemarkError("LEASE_LOST", message, "look whether the other one goes on; nothing was doubled")

    def _wait_for_partition(self) -> bool:
        """Wait for the partition: True once it is ours, False where it stays with a member that is alive."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and not self._refused:
            if self._assigned.wait(POLL_S):
                return True
            # An assignment without the partition came: the holder has answered the group since we joined.
            if self._settled.is_set() and time.monotonic() - self._settled_at > SESSION_MS / 1000 + 2:
                return False
        return False

    def _poll(self) -> None:
        while not self._ending.is_set():
            message = self._consumer.poll(POLL_S)
            error = message.error() if message is not None else None
            if error is not None and error.code() in CODES:
                self._refused.append(error)
        self._consumer.close()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._settled_at = time.monotonic()
        (self._assigned if partitions else self._settled).set()

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if partitions and not self._ending.is_set():
            self._lost.set()

    def _leave(self) -> None:
        self._ending.set()
        self._thread.join()

    def _holder(self, admin: AdminClient) -> str:
        group = admin.describe_consumer_groups([self._group])[self._group].result()
        holders = [member.client_id for member in group.members if member.assignment.topic_partitions]
        return f" ({', '.join(holders)})" if holders else ""
