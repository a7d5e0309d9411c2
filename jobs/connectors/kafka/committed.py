"""Finds which offsets of a partition hold a committed record, without a JVM."""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from conf.errors import TidemarkError
from conf.settings import Kafka
from jobs.connectors.kafka.access import CODES, not_authorized
from jobs.connectors.kafka.consumer import MESSAGES, is_end, messages, open_consumer
from jobs.connectors.kafka.offsets import resolve_offsets
from jobs.connectors.kafka.rights import reading

# Reading so many records takes no longer than to have a consumer begin at another offset.
NEAR = 5_000
Offsets = npt.NDArray[np.int64]
Runs = Sequence[tuple[int, int]]


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

    def records_within(self, topic: str, partition: int, runs: Runs) -> Offsets:
        """Return which offsets within `runs` (each from its first to before its second, in order) hold a record.

        The others hold what readers do not get: markers and records of transactions, or what compaction removed.
        """
        held = [
            int(message.offset() or 0)
            for start, stop in _joined(runs)
            for message in self._records(topic, partition, start, stop)
        ]
        offsets = np.asarray(held, np.int64)
        return np.concatenate([offsets[:0], *(_cut(offsets, start, end) for start, end in runs)])

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


def _cut(offsets: Offsets, start: int, end: int) -> Offsets:
    return offsets[np.searchsorted(offsets, start) : np.searchsorted(offsets, end)]


def count_committed(kafka: Kafka, topic: str) -> int:
    """Count records of `topic` that a `read_committed` reader finds: offsets do not tell, as transactions take some."""
    ends = resolve_offsets(kafka, topic, "latest")[topic]
    with ReadCommittedConsumer(kafka.client_config()) as consumer:
        return sum(len(consumer.records_within(topic, partition, [(0, end)])) for partition, end in ends.items() if end)
