"""Before the first event: is the broker there, are the topics, and will they keep what is sent?"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource

from conf.errors import TidemarkError, nearest

# A broker on the way up answers within this; one that is away is not waited for longer.
METADATA_SECONDS = 5.0
REFUSALS = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL)


@dataclass(frozen=True)
class Limits:
    """What a topic does to the records it gets: bytes of the largest batch, and ms for which it keeps records."""

    max_message_bytes: int | None = None
    retention_ms: int | None = None


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
        raise TidemarkError("NO_TOPIC", what, "create it: `local/tidemark topics apply` creates the declared ones")


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


def _limits(config: Mapping[str, Any]) -> Limits:
    deletes = "delete" in config["cleanup.policy"].value
    retention = int(config["retention.ms"].value)
    return Limits(
        max_message_bytes=int(config["max.message.bytes"].value),
        retention_ms=retention if deletes and retention >= 0 else None,
    )
