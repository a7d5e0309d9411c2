"""Checks, before the first event, that the broker and the topics are there, and that they keep what is sent."""

import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from conf.errors import TidemarkError, nearest
from conf.settings import Kafka
from conf.topics import Topic
from jobs.connectors.kafka.access import CLUSTER, CODES, Connection, Right, not_authorized, writing
from jobs.connectors.kafka.refusals import Limits, retention_warning

# A broker on the way up answers within this; one that is away is not waited for longer.
METADATA_SECONDS = 5.0


def create_topic(
    admin: AdminClient,
    topic: Topic,
    replication_factor: int,
    more: Mapping[str, str] | None = None,
    connection: Mapping[str, Any] | None = None,
    only_ask: bool = False,
) -> bool:
    """Create `topic` unless it is there, with `more` settings; returns whether it was created.

    Args:
        connection: of the client, for the command that grants a lacking right.
        only_ask: whether to leave it at asking the cluster if it would create it.

    Raises:
        TidemarkError: TOPIC_NOT_CREATED, NOT_AUTHORIZED.
    """
    copies = topic.replication_factor or replication_factor
    new = NewTopic(topic.name, topic.partitions, copies, config={**topic.config, **(more or {})})
    try:
        admin.create_topics([new], request_timeout=METADATA_SECONDS, validate_only=only_ask)[topic.name].result()
    except KafkaException as exc:
        error = exc.args[0]
        if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        if error.code() in CODES:
            needed = [
                Right("topic", topic.name, ("Create", "Describe")),
                Right("cluster", CLUSTER, ("Create",)),
            ]
            raise not_authorized(error, needed, connection or {}) from exc
        remedy = "check that the broker is there, and that this user may create topics"
        raise TidemarkError("TOPIC_NOT_CREATED", f"topic {topic.name}: {error.str()}", remedy) from exc
    return True


def connect(kafka: Kafka, topics: Collection[str] = ()) -> AdminClient:
    """Return a client of the cluster, once that has answered and has every one of `topics`, which are to be written to.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES, NOT_AUTHORIZED, NO_TOPIC.
    """
    connection = Connection(kafka, METADATA_SECONDS)
    admin = AdminClient({**connection.config(), "allow.auto.create.topics": False})
    on_cluster = set(connection.metadata(admin).topics)
    missing = sorted(set(topics) - on_cluster)
    for topic in missing:
        # The list lacks topics that this user may not see.
        connection.metadata(admin, topic, writing([topic]))
    if missing:
        names = " ".join(missing)
        close = f" ({nearest(missing[0], sorted(on_cluster))})" if on_cluster and len(missing) == 1 else ""
        what = f"no topic {names} on {kafka.bootstrap_servers}{close}"
        raise TidemarkError(
            "NO_TOPIC",
            what,
            "create the declared ones with `local/tidemark topics apply`, any with `publish file --create-topic`",
        )
    return admin


def is_missing(kafka: Kafka, topic: Topic) -> bool:
    """Return whether the cluster has no such topic, and would create it.

    Raises:
        TidemarkError: BROKER_UNREACHABLE, BROKER_REFUSES, TOPIC_NOT_CREATED.
    """
    connection = Connection(kafka, METADATA_SECONDS)
    admin = AdminClient(connection.config())
    if topic.name in connection.metadata(admin).topics:
        return False
    return create_topic(admin, topic, kafka.replication_factor, only_ask=True)


class RetentionWatch:
    """Warns once of each topic that would soon delete what it is sent."""

    def __init__(self, limits: Mapping[str, Limits]) -> None:
        self._limits = limits
        self._seen: set[str] = set()

    def look(self, topics: Sequence[str], timestamps: Sequence[int]) -> None:
        """Judge each topic by its first record; the timestamps are in ms."""
        for topic in set(topics) - self._seen:
            first = timestamps[topics.index(topic)]
            warning = retention_warning(topic, self._limits[topic], first, time.time() * 1000)
            if warning:
                print(f"warning: {warning}", file=sys.stderr)
        self._seen.update(topics)
