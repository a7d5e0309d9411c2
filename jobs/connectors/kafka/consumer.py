"""Reads committed records without a JVM: only here are consumers made that follow no group."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from conf.errors import TidemarkError
from jobs.connectors.kafka.access import CODES, not_authorized, reading

if TYPE_CHECKING:  # whoever becomes spark-submit imports this, and has no array
    import numpy as np
    import numpy.typing as npt

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
# Reading so many records takes no longer than to have a consumer begin at another offset.
NEAR = 5_000
Runs = Sequence[tuple[int, int]]


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


class ReadCommittedConsumer:
    """Reads committed records of many partitions, one after the other, by one consumer.

    Raises:
        TidemarkError: KAFKA_FAILED, NOT_AUTHORIZED, from each method.
    """

    def __init__(self, connection: Mapping[str, Any]) -> None:
        self._connection = connection
        self._opened: Consumer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._opened is not None:
            self._opened.close()

    def records_within(self, topic: str, partition: int, runs: Runs) -> "npt.NDArray[np.int64]":
        """Return which offsets within `runs` (each from its first to before its second, in order) hold a record.

        The others hold what readers do not get: markers and records of transactions, or what compaction removed.
        """
        import numpy as np

        held = [
            int(message.offset() or 0)
            for start, stop in _joined(runs)
            for message in self._records(topic, partition, start, stop)
        ]
        offsets = np.asarray(held, np.int64)
        edges = np.searchsorted(offsets, np.asarray(runs, np.int64).reshape(-1, 2))
        return np.concatenate([offsets[:0], *(offsets[first:last] for first, last in edges)])

    def tail(self, topic: str, partition: int, start: int) -> list[Message]:
        """Return the records from `start` to the partition's end."""
        return list(self._records(topic, partition, start))

    def _records(self, topic: str, partition: int, start: int, stop: int | None = None) -> Iterator[Message]:
        """Yield the records from `start` to before `stop`, or to the partition's end."""
        if self._opened is None:
            self._opened = open_consumer(self._connection)
        try:
            for message in messages(self._opened, TopicPartition(topic, partition, start), most=MESSAGES):
                if is_end(message) or (stop is not None and int(message.offset() or 0) >= stop):
                    return
                yield message
        except KafkaException as exc:
            if exc.args[0].code() in CODES:
                raise not_authorized(exc.args[0], reading([topic]), self._connection) from exc
            what = f"topic {topic} partition {partition}: {exc.args[0].str()}"
            raise TidemarkError("KAFKA_FAILED", what, "see the brokers' logs, then ask again") from exc


def _joined(runs: Runs) -> list[tuple[int, int]]:
    """Return `runs` as fewer ones: those that lie near each other are read in one go."""
    joined: list[tuple[int, int]] = []
    for start, end in runs:
        if joined and start - joined[-1][1] <= NEAR:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined
