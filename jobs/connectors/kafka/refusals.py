"""Says what Kafka refuses: records beyond the limits of their topic, and what an error of a client means.

A broker judges a record batch as it comes, compressed and with its headers, by the topic's own `max.message.bytes`; the
broker's `message.max.bytes` is only what a topic has that does not say otherwise. Clients refuse what is larger before
they compress it, by a limit of their own (1 MB): here that limit is the topic's. Readers and replicas need no setting:
since KIP-74 a first batch that is larger than what they ask for is handed out all the same.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource

from conf.errors import TidemarkError
from conf.settings import Batching

SECONDS = 5.0
LIMIT, LIMIT_OF_CLIENT = "max.message.bytes", "message.max.bytes"
AHEAD_LIMIT = "message.timestamp.after.max.ms"
# Where a topic's limit is not known, the broker decides. No request may be larger than this (socket.request.max.bytes).
REQUEST_BYTES = 100_000_000
# librdkafka's own limit must be within these.
LEAST_BYTES, MOST_BYTES = 1_000, 1_000_000_000
# The header of a batch, format 2.
BATCH_BYTES = 61
SHOWN_KEY = 60
MEBIBYTE = 1 << 20

Headers = Sequence[tuple[str, str | bytes | None]] | None


@dataclass(frozen=True)
class Limits:
    """The bounds that a topic sets to records, None where one is not known or there is none.

    `max_message_bytes`: the largest batch it takes. `retention_ms`: how long it keeps records. `ahead_ms`: how far
    a record's timestamp may lie ahead of the broker's clock. `compacts`: whether only the newest of a key stays.
    `stamps`: whether the broker sets all timestamps itself (LogAppendTime).
    """

    max_message_bytes: int | None = None
    retention_ms: int | None = None
    ahead_ms: int | None = None
    compacts: bool | None = None
    stamps: bool | None = None


def topic_limits(admin: AdminClient, topics: Collection[str]) -> dict[str, Limits]:
    """Return each topic's limits, as far as the cluster lets this user see them."""
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
    limits = {}
    for resource, future in admin.describe_configs(resources, request_timeout=SECONDS).items() if resources else ():
        try:
            limits[resource.name] = _limits(future.result())
        except KafkaException:
            # Reading the configuration is a right of its own: without it the check is skipped, not the publishing.
            limits[resource.name] = Limits()
    return limits


def _limits(config: Mapping[str, Any]) -> Limits:
    deletes = "delete" in config["cleanup.policy"].value
    retention = int(config["retention.ms"].value)
    return Limits(
        max_message_bytes=int(config[LIMIT].value),
        retention_ms=retention if deletes and retention >= 0 else None,
        ahead_ms=int(config[AHEAD_LIMIT].value),
        compacts="compact" in config["cleanup.policy"].value,
        stamps=config["message.timestamp.type"].value == "LogAppendTime",
    )


def retention_warning(topic: str, limits: Limits, timestamp_ms: int, now_ms: float) -> str | None:
    """Return a line of warning where the broker would soon delete a record of this time, 0 being now."""
    if limits.retention_ms is None or not timestamp_ms or timestamp_ms > now_ms - limits.retention_ms:
        return None
    days = limits.retention_ms / 86_400_000
    event_day = datetime.fromtimestamp(timestamp_ms / 1000, UTC).date()
    return (
        f"topic {topic} deletes records {days:g} days after their timestamp, and these are of {event_day}: "
        "set its retention.ms to -1, or they will be gone soon"
    )


def largest_record(limits: Iterable[Limits]) -> int:
    """Return the bytes that a client must let pass, so that topics of these limits refuse a record, not the client."""
    known = [topic.max_message_bytes for topic in limits]
    sizes = [REQUEST_BYTES if size is None else size for size in known] or [REQUEST_BYTES]
    return min(max(LEAST_BYTES, *sizes), MOST_BYTES)


def size_config(batching: Batching, limits: Collection[Limits]) -> dict[str, int]:
    """Return librdkafka's properties for the sizes of batches and records, towards topics of these limits."""
    known = [topic.max_message_bytes for topic in limits if topic.max_message_bytes is not None]
    return {
        # The broker refuses a batch above the topic's limit whole, with every record in it.
        "batch.size": min([batching.batch_bytes, *known]),
        LIMIT_OF_CLIENT: largest_record(limits),
    }


def record_bytes(key: str | bytes | None, value: bytes | None, headers: Headers = None) -> int:
    """Return the bytes of a batch that holds this record alone, before compression (Kafka's record format 2)."""
    body = 3 + _with_length(key) + _with_length(value) + _varint_bytes(len(headers or ()))
    for name, content in headers or ():
        body += _with_length(name) + _with_length(content)
    return BATCH_BYTES + _varint_bytes(body) + body


def _with_length(text: str | bytes | None) -> int:
    data = text.encode() if isinstance(text, str) else text
    return 1 if data is None else _varint_bytes(len(data)) + len(data)


def _varint_bytes(number: int) -> int:
    """Count the bytes of a number that is not negative, in zigzag."""
    return max(1, -(-(2 * number).bit_length() // 7))


@dataclass(frozen=True)
class SizeLimits:
    """How large a record may be, and how new.

    Args:
        by_topic: bytes of the largest record, of topics where that is known.
        servers: for the command that raises a limit.
        otherwise: records that are larger may be refused by the other topics.
        ahead_ms: see `Limits`, of topics where that is known.
        compacted: topics that take no record without a key.
    """

    by_topic: Mapping[str, int]
    servers: str = ""
    otherwise: int = 1_000_000
    ahead_ms: Mapping[str, int] = field(default_factory=dict)
    compacted: Collection[str] = ()

    @classmethod
    def of(cls, limits: Mapping[str, Limits], servers: str, otherwise: int = 1_000_000) -> Self:
        """Make the limits out of what `topic_limits` gave."""
        known = {
            topic: limit.max_message_bytes for topic, limit in limits.items() if limit.max_message_bytes is not None
        }
        ahead = {t: limit.ahead_ms for t, limit in limits.items() if limit.ahead_ms is not None and not limit.stamps}
        return cls(known, servers, otherwise, ahead, tuple(t for t, limit in limits.items() if limit.compacts))

    def too_large(
        self, what: str, topic: str, key: str | bytes | None, value: bytes | None, headers: Headers = None
    ) -> TidemarkError:
        """Return the RECORD_TOO_LARGE error for a record that `topic` does not take; `what` names it."""
        size, limit = record_bytes(key, value, headers), self.by_topic.get(topic)
        takes = f"takes {limit:,} (max.message.bytes)" if limit is not None else "takes less (its max.message.bytes)"
        enough = -(-size // MEBIBYTE) * MEBIBYTE
        return TidemarkError(
            "RECORD_TOO_LARGE",
            f"{what} is {size:,} bytes, topic {topic} {takes}",
            f"raise the topic's limit, then start the same again: {alter_topic(topic, LIMIT, enough, self.servers)}",
        )


def alter_topic(topic: str, setting: str, value: object, servers: str) -> str:
    """Return the command that changes a setting of a topic."""
    alter = f"--alter --entity-type topics --entity-name {topic} --add-config {setting}={value}"
    return f"`kafka-configs.sh --bootstrap-server {servers or 'HOST:PORT'} {alter}`"


def shown_key(key: str | bytes | None) -> str:
    """Return a record's key for people: its text or its bytes, cut short."""
    if key is None:
        return "no key"
    text = key if isinstance(key, str) else key.decode(errors="backslashreplace")
    return f"key {text[:SHOWN_KEY]!r}{'…' if len(text) > SHOWN_KEY else ''}"


class Refusal(NamedTuple):
    """One meaning of several errors; `jobs.pipeline.supervision.PASSING` has the codes that may pass by themselves.

    Args:
        errors: their names in librdkafka.
        java: the classes of Java's exceptions, without `org.apache.kafka.common.errors`.
    """

    code: str
    remedy: str
    errors: tuple[str, ...]
    java: tuple[str, ...] = ()


UNREACHABLE = "BROKER_UNREACHABLE"
TOPIC_MISSING = "TOPIC_MISSING"
REFUSALS = (
    Refusal(
        "RECORD_TOO_LARGE",
        "raise max.message.bytes of the topic, or publish smaller values",
        ("MSG_SIZE_TOO_LARGE",),
        ("RecordTooLargeException",),
    ),
    Refusal(
        "TIMESTAMP_AHEAD",
        "the broker refuses event times that lie ahead of its clock: mend the event times, or raise the topic's "
        "message.timestamp.after.max.ms",
        ("INVALID_TIMESTAMP",),
        ("InvalidTimestampException",),
    ),
    Refusal(
        "RECORD_REFUSED",
        "a compacted topic takes no record without a key: name a key field, or give every record a key",
        ("INVALID_RECORD",),
        ("InvalidRecordException",),
    ),
    Refusal(
        "RECORD_REFUSED",
        "mend the column `partition`, or give the topic more partitions",
        ("_UNKNOWN_PARTITION",),
    ),
    Refusal(
        TOPIC_MISSING,
        "create it with `local/tidemark topics apply`, or see kafka.bootstrap_servers",
        ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"),
        ("UnknownTopicOrPartitionException",),
    ),
    Refusal(
        "TOPIC_NOT_CREATED",
        "see kafka.replication_factor (not more than there are brokers), and what the brokers' policy allows",
        ("INVALID_REPLICATION_FACTOR", "POLICY_VIOLATION", "TOPIC_EXCEPTION"),
    ),
    Refusal(
        "TRANSACTION_TIMEOUT_ABOVE_CAP",
        "lower ledger.transaction_timeout_ms, or raise the brokers' transaction.max.timeout.ms",
        ("INVALID_TRANSACTION_TIMEOUT",),
        ("InvalidTxnTimeoutException",),
    ),
    Refusal(
        UNREACHABLE,
        "too few brokers have the partition: see that all of them run",
        ("NOT_ENOUGH_REPLICAS", "NOT_ENOUGH_REPLICAS_AFTER_APPEND"),
        ("NotEnoughReplicasException", "NotEnoughReplicasAfterAppendException"),
    ),
    Refusal(
        UNREACHABLE,
        "the broker was away for too long: see that the brokers run",
        ("_ALL_BROKERS_DOWN", "_TRANSPORT", "_RESOLVE", "_TIMED_OUT", "_MSG_TIMED_OUT", "REQUEST_TIMED_OUT"),
        ("TimeoutException", "DisconnectException"),
    ),
)
BY_ERROR = {name: refusal for refusal in REFUSALS for name in refusal.errors}
