"""Reads committed records without a JVM: only here are consumers made that follow no group."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

READ_COMMITTED = {
    "isolation.level": "read_committed",
    "enable.partition.eof": True,
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "group.id": "tidemark-reader",  # asked for by the client, never joined
    # An empty answer tells the end of a partition; the broker holds it back for this long.
    "fetch.wait.max.ms": 5,
    "log_level": 0,
}
# A client looks for the coordinator of its group even if it joins none: a user without that right can still read.
PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError.GROUP_AUTHORIZATION_FAILED)
SECONDS = 30.0
MESSAGES = 10_000
# `consume` waits until it has as many records as it may take, or for this long.
POLL_SECONDS = 0.02


def open_consumer(connection: Mapping[str, Any]) -> Consumer:
    """Return a consumer of committed records that reports where a partition ends; the caller closes it."""
    return Consumer({**READ_COMMITTED, **connection})


def messages(consumer: Consumer, start: TopicPartition, seconds: float = SECONDS, most: int = 1) -> Iterator[Message]:
    """Yield the committed records from `start` on, and a message without a record where none is left (see `is_end`).

    Args:
        most: how many one call takes from the client: 1 where the next one is needed as soon as it is there.

    Raises:
        KafkaException: where the brokers refuse, or nothing comes for `seconds`.
    """
    consumer.assign([start])
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for message in consumer.consume(most, POLL_SECONDS):
            error = message.error()
            if error is None:
                until = time.monotonic() + seconds
            elif error.code() != KafkaError._PARTITION_EOF:
                if error.retriable() or error.code() in PASSING:
                    continue
                raise KafkaException(error)
            yield message
    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def is_end(message: Message) -> bool:
    """Return whether a message of `messages` says that its offset is the partition's end."""
    return message.error() is not None


def read_to_end(
    connection: Mapping[str, Any],
    start: TopicPartition,
    seconds: float,
    take: Callable[[Message], None],
    suffices: Callable[[int], bool] = lambda end: True,
) -> int:
    """Hand every record from `start` on to `take`, until the partition's end `suffices`; return that offset.

    Raises:
        KafkaException: as `messages` does.
    """
    consumer = open_consumer(connection)
    try:
        for message in messages(consumer, start, seconds):
            if not is_end(message):
                take(message)
            elif suffices(end := int(message.offset() or 0)):
                return end
        raise AssertionError("the loop has no end")
    finally:
        consumer.close()
