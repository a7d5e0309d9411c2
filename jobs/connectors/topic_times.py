"""A topic's log by offsets and record times, asked of the brokers by one consumer."""

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from conf.settings import Kafka
from jobs.connectors.positions import METADATA_TIMEOUT_S, milliseconds, unreachable

SAMPLE = 200  # records whose size stands for all
POLL_S = 5.0

Partitions = Mapping[int, int]


class TopicTimes:
    """What one consumer finds out; to be closed.

    Raises:
        TidemarkError: BROKER_UNREACHABLE.
    """

    def __init__(self, kafka: Kafka) -> None:
        own = {
            "group.id": "tidemark-times",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
        self._kafka = kafka
        self._consumer = Consumer({**kafka.client_config(), **own})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._consumer.close()

    def edges(self, topic: str) -> tuple[Partitions, Partitions]:
        """The first offset that is still there, and the end, of each partition."""
        try:
            numbers = self._consumer.list_topics(topic, timeout=METADATA_TIMEOUT_S).topics[topic].partitions
            found = {number: self._watermarks(topic, number) for number in numbers}
        except KafkaException as exc:
            raise unreachable(self._kafka) from exc
        lows, highs = ({number: edges[side] for number, edges in found.items()} for side in (0, 1))
        return lows, highs

    def _watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=METADATA_TIMEOUT_S)
        return int(low), int(high)

    def at(self, topic: str, time: datetime, ends: Partitions) -> Partitions:
        """The first offset with a record time at or after `time`, of each partition; the end, where there is none."""
        wanted = [TopicPartition(topic, partition, milliseconds(time)) for partition in ends]
        found = self._consumer.offsets_for_times(wanted, timeout=METADATA_TIMEOUT_S)
        return {each.partition: int(each.offset) if each.offset >= 0 else ends[each.partition] for each in found}

    def time_at(self, topic: str, partition: int, offset: int) -> int | None:
        """The record time, ms since 1970, of the first record at or after `offset`; None at the end of the log."""
        for _, time, _ in self._records(topic, partition, offset, 1):
            return time
        return None

    def mean_bytes(self, topic: str, partition: int, offset: int) -> float:
        """Of key and value of some records from `offset` on; 0 where there are none."""
        sizes = [size for _, _, size in self._records(topic, partition, offset, SAMPLE)]
        return sum(sizes) / len(sizes) if sizes else 0.0

    def span(self, topic: str, partition: int, start: int, until: int) -> tuple[int, int] | None:
        """The least and the greatest record time, ms since 1970, of offsets [start, until); None for none."""
        times = [time for _, time, _ in self._records(topic, partition, start, until - start, until)]
        return (min(times), max(times)) if times else None

    def _records(
        self, topic: str, partition: int, offset: int, count: int, until: int | None = None
    ) -> list[tuple[int, int, int]]:
        """Offset, time and bytes of up to `count` records from `offset` to before `until`."""
        self._consumer.assign([TopicPartition(topic, partition, offset)])
        found: list[tuple[int, int, int]] = []
        while len(found) < count:
            messages = self._consumer.consume(min(count - len(found), 10_000), timeout=POLL_S)
            for message in messages:
                at = message.offset() or 0
                if message.error() is not None or (until is not None and at >= until):
                    return found
                size = len(message.value() or b"") + len(message.key() or b"")
                found.append((at, int(message.timestamp()[1]), size))
            if not messages:
                break
        return found
