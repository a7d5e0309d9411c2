"""Positions in topics: an edge of the log, a time, or offsets, and what they come to on the brokers."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, cast

from confluent_kafka import Consumer, KafkaException, TopicPartition

from conf.errors import TidemarkError
from conf.settings import Kafka

METADATA_TIMEOUT_S = 10
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Offsets = Mapping[str, Mapping[int, int]]
Position = Literal["earliest", "latest"] | datetime | Offsets
"""Where reading starts, or ends before: an end of the log, a record timestamp, or offsets by topic and partition."""


def parse_position(text: str) -> Position:
    """`earliest`, `latest`, an ISO timestamp (UTC where it names no zone) or JSON offsets by topic and partition.

    Raises:
        TidemarkError: BAD_POSITION.
    """
    if text in ("earliest", "latest"):
        return cast(Literal["earliest", "latest"], text)
    try:
        if text.lstrip().startswith("{"):
            return {topic: {int(p): int(o) for p, o in offsets.items()} for topic, offsets in json.loads(text).items()}
        at = datetime.fromisoformat(text)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, TypeError, AttributeError) as exc:
        remedy = 'write earliest, latest, 2013-01-31T00:00:00+00:00 or {"topic": {"0": 42}}'
        raise TidemarkError("BAD_POSITION", f"`{text}` is no position in a topic", remedy) from exc


def unreachable(kafka: Kafka) -> TidemarkError:
    """BROKER_UNREACHABLE, with the address that was tried."""
    remedy = "check kafka.bootstrap_servers, or start the embedded broker: `local/tidemark broker start`"
    return TidemarkError("BROKER_UNREACHABLE", f"no Kafka broker answers at {kafka.bootstrap_servers}", remedy)


def resolve(kafka: Kafka, topic: str, position: Position) -> Offsets:
    """`position` as an offset for each partition of `topic`: the first record's at or after it, or the partition's end.

    Offsets are checked; a partition that they leave out is at its end, and -2 and -1 mean earliest and latest.

    Raises:
        TidemarkError: BROKER_UNREACHABLE, or BAD_POSITION where there is no such partition or offset.
    """
    own = {"group.id": "tidemark-resolve", "enable.auto.commit": False, "log_level": 0}
    consumer = Consumer({**kafka.client_config(), **own})
    try:
        numbers = consumer.list_topics(topic, timeout=METADATA_TIMEOUT_S).topics[topic].partitions
        given = position.get(topic, {}) if isinstance(position, Mapping) else {}
        if given.keys() - numbers:
            raise _bad_offset(f"topic {topic} has no partition {min(given.keys() - numbers)}")
        return {topic: {number: _resolve_partition(consumer, topic, number, position) for number in numbers}}
    except KafkaException as exc:
        raise unreachable(kafka) from exc
    finally:
        consumer.close()


def _resolve_partition(consumer: Consumer, topic: str, number: int, position: Position) -> int:
    first, end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=METADATA_TIMEOUT_S)
    if isinstance(position, datetime):
        wanted = TopicPartition(topic, number, milliseconds(position))
        found = int(consumer.offsets_for_times([wanted], timeout=METADATA_TIMEOUT_S)[0].offset)
        return found if found >= 0 else int(end)
    if isinstance(position, str):
        return int(first if position == "earliest" else end)
    offset = position.get(topic, {}).get(number, -1)
    offset = {-2: int(first), -1: int(end)}.get(offset, offset)
    if not first <= offset <= end:
        raise _bad_offset(f"partition {number} of topic {topic} holds offsets {first} to {end}, not {offset}")
    return offset


def milliseconds(at: datetime) -> int:
    """`at` as Kafka's record timestamps are, rounded up: the first whole millisecond that is not before it."""
    return -((EPOCH - at) // timedelta(milliseconds=1))


def _bad_offset(message: str) -> TidemarkError:
    return TidemarkError("BAD_POSITION", message, "name one that is there, or a time")
