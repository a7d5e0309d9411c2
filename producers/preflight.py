"""Before the first event: is the broker there, are the topics, and will they keep what is sent?"""

import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from conf.errors import TidemarkError, nearest
from conf.topics import Topic

# A broker on the way up answers within this; one that is away is not waited for longer.
METADATA_SECONDS = 5.0
REFUSALS = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL)


@dataclass(frozen=True)
class Limits:
    """What a topic does with records, None where that is not known or without limit.

    `max_message_bytes`: the largest batch it takes. `retention_ms`: how long it keeps records. `ahead_ms`: how far
    a record's timestamp may lie ahead of the broker's clock. `compacts`: whether only the newest of a key stays.
    """

    max_message_bytes: int | None = None
    retention_ms: int | None = None
    ahead_ms: int | None = None
    compacts: bool | None = None


def create_topic(admin: AdminClient, topic: Topic, replication_factor: int) -> bool:
    """Create `topic` unless it is there; whether it was created. Raises TidemarkError TOPIC_NOT_CREATED."""
    config = {"cleanup.policy": topic.cleanup_policy, "retention.ms": str(topic.retention_ms)}
    copies = topic.replication_factor or replication_factor
    new = NewTopic(topic.name, topic.partitions, copies, config=config)
    try:
        admin.create_topics([new], request_timeout=METADATA_SECONDS)[topic.name].result()
    except KafkaException as exc:
        error = exc.args[0]
        if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        remedy = "check that the broker is there, and that this user may create topics"
        raise TidemarkError("TOPIC_NOT_CREATED", f"topic {topic.name}: {error.str()}", remedy) from exc
    return True


def require_topics(admin: AdminClient, servers: str, topics: Collection[str], refusal: list[KafkaError]) -> None:
    """Find every one of `topics` on the cluster at `servers`; `refusal` is where the error callback puts errors.

    Raises:
        TidemarkError: BROKER_UNREACHABLE, BROKER_REFUSES, NO_TOPIC.
    """
    known = _topic_names(admin, servers, refusal)
    missing = sorted(set(topics) - known)
    if missing:
        names = " ".join(missing)
        close = f" ({nearest(missing[0], sorted(known))})" if known and len(missing) == 1 else ""
        what = f"no topic {names} on {servers}{close}"
        raise TidemarkError(
            "NO_TOPIC",
            what,
            "create the declared ones with `local/tidemark topics apply`, any with `publish file --create-topic`",
        )


def _topic_names(admin: AdminClient, servers: str, refusal: list[KafkaError]) -> set[str]:
    deadline = time.monotonic() + METADATA_SECONDS
    while True:
        try:
            return set(admin.list_topics(timeout=1.0).topics)
        except KafkaException as exc:
            admin.poll(0)
            refused = next((error for error in refusal if error.code() in REFUSALS), None)
            if refused:
                remedy = "check kafka.security_protocol, kafka.sasl_* and kafka.ssl_ca_location"
                raise TidemarkError("BROKER_REFUSES", f"{servers}: {refused.str()}", remedy) from exc
            if time.monotonic() > deadline:
                raise unreachable(servers) from exc


def unreachable(servers: str) -> TidemarkError:
    """The one line for a broker that does not answer."""
    what = f"no Kafka broker answers at {servers}"
    remedy = "start it (`local/tidemark broker start` for the embedded one), or set kafka.bootstrap_servers"
    return TidemarkError("BROKER_UNREACHABLE", what, remedy)


def topic_limits(admin: AdminClient, topics: Collection[str]) -> dict[str, Limits]:
    """Topic -> its limits, as far as the cluster lets this user see them."""
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
    limits = {}
    for resource, future in admin.describe_configs(resources, request_timeout=METADATA_SECONDS).items():
        try:
            limits[resource.name] = _limits(future.result())
        except KafkaException:
            # Reading the configuration is a right of its own: without it the check is skipped, not the publishing.
            limits[resource.name] = Limits()
    return limits


def retention_warning(topic: str, limits: Limits, timestamp_ms: int, now_ms: float) -> str | None:
    """A line of warning where the broker would soon delete a record of this time, 0 being now."""
    if limits.retention_ms is None or not timestamp_ms or timestamp_ms > now_ms - limits.retention_ms:
        return None
    days = limits.retention_ms / 86_400_000
    event_day = datetime.fromtimestamp(timestamp_ms / 1000, UTC).date()
    return (
        f"topic {topic} deletes records {days:g} days after their timestamp, and these are of {event_day}: "
        "set its retention.ms to -1, or they will be gone soon"
    )


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


def _limits(config: Mapping[str, Any]) -> Limits:
    deletes = "delete" in config["cleanup.policy"].value
    retention = int(config["retention.ms"].value)
    return Limits(
        max_message_bytes=int(config["max.message.bytes"].value),
        retention_ms=retention if deletes and retention >= 0 else None,
        ahead_ms=int(config["message.timestamp.after.max.ms"].value),
        compacts="compact" in config["cleanup.policy"].value,
    )
