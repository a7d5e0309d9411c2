"""Creates the ledger topic of a sink; asks for the ids of topics, and for the brokers' limit on transactions."""

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, ResourceType

from jobs.connectors.exactly_once import errors
from jobs.connectors.kafka.access import CLUSTER, CODES, Right, client_error, publishing

SECONDS = 30.0
# Another broker takes over from a lost one within 9 to 16 s.
ATTEMPT_SECONDS = 5.0
FAILOVER_SECONDS = 40.0
PAUSE_SECONDS = 0.2
FAILOVER = (
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_CONTROLLER,
    KafkaError.BROKER_NOT_AVAILABLE,
)
PLAN_PARTITION = 0
MOST_NAME = 249  # characters, which Kafka takes as a topic's name
CAP = "transaction.max.timeout.ms"
LIMIT_UNKNOWN = "a ledger.transaction_timeout_ms above the brokers' limit is known only when a transaction begins"


@dataclass(frozen=True)
class Ledger:
    """A compacted topic: partition 0 for plans, partition s + 1 for shard s."""

    name: str
    replication_factor: int

    def partition_of(self, shard: int) -> int:
        return PLAN_PARTITION + 1 + shard

    def shards(self, admin: AdminClient) -> int:
        """Return how many shards have a partition."""
        metadata = admin.list_topics(self.name, timeout=SECONDS).topics[self.name]
        return max(0, len(metadata.partitions) - 1)

    def require_shards(self, admin: AdminClient, shards: int, connection: Mapping[str, Any] | None = None) -> None:
        """Create the topic, or let it grow, so that there is a partition for each of `shards`; it never shrinks.

        Args:
            connection: of the client, for the command that grants a lacking right.

        Raises:
            TidemarkError: NAME_TOO_LONG, BROKER_UNREACHABLE, KAFKA_FAILED, NOT_AUTHORIZED.
        """
        if len(self.name) > MOST_NAME:
            raise errors.ledger_name_too_long(self.name, MOST_NAME)
        operations: tuple[str, ...] = ("Create", "Read", "Write", "Describe")
        partitions = self.partition_of(shards)
        try:
            metadata = admin.list_topics(self.name, timeout=SECONDS).topics[self.name]
            if metadata.error is None and len(metadata.partitions) >= partitions:
                return
            if metadata.error is not None and metadata.error.code() in CODES:
                raise KafkaException(metadata.error)
            if metadata.error is not None:
                self._create(admin, partitions)
            else:
                operations = ("Alter", *operations)
                admin.create_partitions([NewPartitions(self.name, partitions)])[self.name].result(SECONDS)
            self._await_listed(admin, shards)
        except KafkaException as exc:
            needed = [Right("topic", self.name, operations), Right("cluster", CLUSTER, ("Create",))]
            raise client_error(f"topic {self.name}", exc.args[0], needed, connection or {}) from exc

    def _create(self, admin: AdminClient, partitions: int) -> None:
        config = {
            "cleanup.policy": "compact",
            "min.insync.replicas": str(max(1, self.replication_factor - 1)),
            "unclean.leader.election.enable": "false",
        }
        new = NewTopic(self.name, partitions, self.replication_factor, config=config)
        try:
            admin.create_topics([new])[self.name].result(SECONDS)
        except KafkaException as exc:
            if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def _await_listed(self, admin: AdminClient, shards: int) -> None:
        """Wait until the partitions that the controller has made are listed: else a broker may refuse the writers."""
        until = time.monotonic() + SECONDS
        while self.shards(admin) < shards:
            if time.monotonic() > until:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            time.sleep(PAUSE_SECONDS)


def sink_rights(sink: str, topics: Iterable[str], is_prefix: bool = False, shards: bool = True) -> list[Right]:
    """Return the rights that publishing to `topics` by way of a ledger needs.

    Args:
        sink: its id, or, where `is_prefix`, what the ids of several begin with.
        shards: whether transactional ids are the sink's id, a dot and more, as for queries.
    """
    ledger = f"__{sink}" if is_prefix else f"__{sink}.ledger"
    ids = f"{sink}." if shards and not is_prefix else sink
    return [
        *publishing(topics),
        Right("topic", ledger, ("Read", "Write", "Create", *(("Alter",) if shards else ())), is_prefix),
        Right("transactional-id", ids, ("Write",), is_prefix or shards),
        Right("cluster", CLUSTER, ("DescribeConfigs",), without=LIMIT_UNKNOWN),
    ]


def topic_ids(
    admin: AdminClient,
    names: Iterable[str],
    connection: Mapping[str, Any] | None = None,
    operations: tuple[str, ...] = ("Describe",),
) -> dict[str, str]:
    """Return the ids of those of `names` that are there: a topic that is deleted and created again has another one.

    Args:
        connection: of the client, for the command that grants a lacking right.
        operations: those that the ids are needed for; the error for a lacking right names them.

    Raises:
        TidemarkError: KAFKA_FAILED, NOT_AUTHORIZED.
    """
    topics = sorted(set(names))
    if not topics:
        return {}
    until = time.monotonic() + FAILOVER_SECONDS
    while True:
        ids, passing = {}, False
        for name, described in admin.describe_topics(TopicCollection(topics), request_timeout=ATTEMPT_SECONDS).items():
            try:
                ids[name] = str(described.result(SECONDS).topic_id)
            except KafkaException as exc:
                error = exc.args[0]
                if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    continue
                if error.code() not in FAILOVER or time.monotonic() > until:
                    needed = [Right("topic", name, operations)]
                    raise client_error(f"topic {name}", error, needed, connection or {}) from exc
                passing = True
        if not passing:
            return ids
        _ask_anew(admin)


def _ask_anew(admin: AdminClient) -> None:
    """Let the client learn who the controller is: else it would wait without end for one that is gone."""
    time.sleep(PAUSE_SECONDS)
    with contextlib.suppress(KafkaException):
        admin.list_topics(timeout=ATTEMPT_SECONDS)


def require_timeout_below_cap(admin: AdminClient, timeout_ms: int) -> None:
    """Raises TidemarkError TRANSACTION_TIMEOUT_ABOVE_CAP, where the brokers allow less."""
    try:
        broker = next(iter(admin.list_topics(timeout=SECONDS).brokers))
        resource = ConfigResource(ResourceType.BROKER, str(broker))
        entries = admin.describe_configs([resource], request_timeout=SECONDS)[resource].result(SECONDS)
    except KafkaException as exc:
        if exc.args[0].code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            return  # a user who may not read the limit learns of it from the first transaction
        raise client_error(CAP, exc.args[0], [], {}) from exc
    cap = int(entries[CAP].value)
    if timeout_ms > cap:
        raise errors.timeout_above_cap(timeout_ms, cap)
