"""Topics as `read_committed` readers see them, without a JVM: where partitions begin and end, what is a record."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from conf.errors import TidemarkError
from conf.settings import Kafka
from jobs.connectors.ledger.reading import CONSUMER, PASSING
from jobs.connectors.positions import METADATA_TIMEOUT_S, unreachable

SECONDS = 30.0
# Reading so many records takes no longer than to have a consumer begin at another offset.
NEAR = 5_000
MESSAGES = 10_000
# `consume` waits until it has all that it may take, or for so long.
POLL_SECONDS = 0.02
Offsets = npt.NDArray[np.int64]
Runs = Sequence[tuple[int, int]]


class Edges(NamedTuple):
    """Of a partition: its first offset, and the one before which all transactions have ended."""

    first: int
    end: int


def edges(admin: AdminClient, topics: Collection[str]) -> dict[tuple[str, int], Edges]:
    """By topic and partition; topics that the cluster has not are left out.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    try:
        there = admin.list_topics(timeout=SECONDS).topics
        wanted = [
            TopicPartition(topic, partition)
            for topic in sorted(set(topics) & there.keys())
            for partition in there[topic].partitions
        ]
        if not wanted:
            return {}
        first = _listed(admin, wanted, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        end = _listed(admin, wanted, OffsetSpec.latest())  # type: ignore[no-untyped-call]
    except KafkaException as exc:
        raise _failed("the offsets of topics", exc) from exc
    return {place: Edges(first[place], end[place]) for place in first}


def _listed(admin: AdminClient, wanted: Iterable[TopicPartition], spec: OffsetSpec) -> dict[tuple[str, int], int]:
    level = IsolationLevel.READ_COMMITTED
    asked = admin.list_offsets(dict.fromkeys(wanted, spec), isolation_level=level, request_timeout=SECONDS)
    return {(each.topic, each.partition): int(future.result(SECONDS).offset) for each, future in asked.items()}


def connect(kafka: Kafka) -> AdminClient:
    """A client of the cluster; raises TidemarkError NO_BROKER, BROKER_UNREACHABLE."""
    admin = AdminClient({**kafka.client_config(), "log_level": 0, "socket.connection.setup.timeout.ms": 5000})
    try:
        admin.list_topics(timeout=METADATA_TIMEOUT_S)
    except KafkaException as exc:
        raise unreachable(kafka) from exc
    return admin


class CommittedReader:
    """Reads committed records; one consumer for all that is asked.

    Raises:
        TidemarkError: KAFKA_FAILED, from each method.
    """

    def __init__(self, connection: Mapping[str, str]) -> None:
        self._connection = connection
        self._opened: Consumer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._opened is not None:
            self._opened.close()

    def records_within(self, topic: str, partition: int, runs: Runs) -> Offsets:
        """Which offsets within `runs` (each from its first to before its second, in order) hold a record.

        The others hold what readers do not get: markers and records of transactions, or what compaction removed.
        """
        found: list[int] = []
        for start, stop in _joined(runs):
            self._read(topic, partition, start, stop, found.append)
        offsets = np.asarray(found, np.int64)
        return np.concatenate([offsets[:0], *(_cut(offsets, start, end) for start, end in runs)])

    def tail(self, topic: str, partition: int, start: int) -> list[Message]:
        """The records from `start` to the partition's end."""
        found: list[Message] = []
        self._each(topic, partition, start, found.append, lambda offset: False)
        return found

    def _read(self, topic: str, partition: int, start: int, stop: int, take: Callable[[int], None]) -> None:
        def take_offset(message: Message) -> None:
            take(int(message.offset() or 0))

        self._each(topic, partition, start, take_offset, lambda offset: offset >= stop)

    def _each(
        self, topic: str, partition: int, start: int, take: Callable[[Message], None], is_past: Callable[[int], bool]
    ) -> None:
        """Hand over records from `start` on, until one is past what is wanted, or there are no more."""
        consumer = self._consumer()
        try:
            consumer.assign([TopicPartition(topic, partition, start)])
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                for message in consumer.consume(MESSAGES, POLL_SECONDS):
                    until = time.monotonic() + SECONDS
                    error = message.error()
                    if error is None and is_past(int(message.offset() or 0)):
                        return
                    if error is None:
                        take(message)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        return
                    elif not (error.retriable() or error.code() in PASSING):
                        raise KafkaException(error)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        except KafkaException as exc:
            raise _failed(f"topic {topic} partition {partition}", exc) from exc

    def _consumer(self) -> Consumer:
        if self._opened is None:
            config: dict[str, Any] = {**CONSUMER, "group.id": "tidemark-coverage", **self._connection}
            self._opened = Consumer(config)
        return self._opened


def _joined(runs: Runs) -> list[tuple[int, int]]:
    """`runs` as fewer ones: those that lie near each other are read in one go."""
    joined: list[tuple[int, int]] = []
    for start, end in runs:
        if joined and start - joined[-1][1] <= NEAR:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _cut(offsets: Offsets, start: int, end: int) -> Offsets:
    return offsets[np.searchsorted(offsets, start) : np.searchsorted(offsets, end)]


def _failed(what: str, exc: KafkaException) -> TidemarkError:
    return TidemarkError("KAFKA_FAILED", f"{what}: {exc.args[0].str()}", "see the brokers' logs, then ask again")
