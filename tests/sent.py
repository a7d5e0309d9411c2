"""Records put into topics by tests, with the coordinates that the broker gave them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from local.broker import Cluster

T0 = 1_357_020_000_000  # 2013-01-01T06:00:00Z, in milliseconds


@dataclass(frozen=True)
class Record:
    """What is sent; a `timestamp` of 0 leaves it to the producer."""

    value: bytes | None = None
    key: bytes | None = None
    partition: int = 0
    timestamp: int = T0
    headers: Sequence[tuple[str, bytes | None]] = ()


def send(broker: Cluster, topic: str, *records: Record) -> list[tuple[int, int]]:
    """Send in order and return each record's (partition, offset)."""
    placed: list[tuple[int, int]] = []

    def acknowledged(error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        placed.append((message.partition() or 0, message.offset() or 0))

    own = {"acks": "all", "linger.ms": 0, "message.max.bytes": 100_000_000}
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, **own})
    for record in records:
        produce(producer, topic, record, acknowledged)
        assert producer.flush(30) == 0
    return placed


def produce(producer: Producer, topic: str, record: Record, callback: Any = None) -> None:
    """Hand one record to a producer."""
    producer.produce(
        topic,
        record.value,
        record.key,
        partition=record.partition,
        timestamp=record.timestamp,
        headers=list(record.headers),
        on_delivery=callback,
    )
