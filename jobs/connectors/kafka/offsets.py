"""Asks the brokers for offsets, and for the ids of topics, which tell whether offsets still mean the same records."""

import contextlib
import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice, takewhile
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, cast

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from conf.errors import TidemarkError
from conf.setting_types import moment
from conf.settings import Kafka
from jobs.connectors.kafka.access import Connection, Right, client_error, reading
from jobs.connectors.kafka.consumer import MESSAGES, ReadCommittedConsumer, is_end, messages, open_consumer

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS = 30.0
LOOKUP_SECONDS = 10.0
POLL_SECONDS = 0.1
# A broker answers these while it is not yet, or no longer, the partition's leader.
BETWEEN_LEADERS = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
# What Kafka's protocol has room for; -2 and -1 are its names for the first and the last offset.
PARTITIONS, OFFSETS = range(2**31), range(-2, 2**63)
# Another broker takes over from a lost one within 9 to 16 s.
ATTEMPT_SECONDS = 5.0
FAILOVER_SECONDS = 40.0
PAUSE_SECONDS = 0.2
FAILOVER = (
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_CONTROLLER,
    KafkaError.BROKER_NOT_AVAILABLE,
)
SAMPLE = 200  # records whose size stands for all

Partitions = Mapping[int, int]
"""An offset, by partition."""
Offsets = Mapping[str, Partitions]
Position = Literal["earliest", "latest"] | datetime | Offsets
"""Where reading starts, or ends before: an end of the log, a record timestamp, or offsets by topic and partition."""


class Edges(NamedTuple):
    """A partition's first offset, and the end: the one before which all transactions have ended."""

    first: int
    end: int


def parse_position(text: str) -> Position:
    """Parse `earliest`, `latest`, an ISO timestamp (UTC where it names no zone) or JSON offsets by topic and partition.

    Raises:
        TidemarkError: BAD_POSITION.
    """
    if text in ("earliest", "latest"):
        return cast(Literal["earliest", "latest"], text)
    try:
        if text.lstrip().startswith("{"):
            return {
                topic: {_whole(number, PARTITIONS): _whole(offset, OFFSETS) for number, offset in offsets.items()}
                for topic, offsets in json.loads(text).items()
            }
        return moment(text)
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        remedy = 'write earliest, latest, 2013-01-31T00:00:00+00:00 or {"topic": {"0": 42}}'
        raise TidemarkError("BAD_POSITION", f"`{text}` is no position in a topic", remedy) from exc


def _whole(value: object, room: range) -> int:
    """Return a number of JSON, or the text of one; raises ValueError where it is not whole, or outside of `room`."""
    if isinstance(value, bool) or not isinstance(value, int | str) or (number := int(value)) not in room:
        raise ValueError(f"{value!r} is no whole number of a partition or an offset")
    return number


def milliseconds(at: datetime) -> int:
    """Return `at` as Kafka's record timestamps are, rounded up: the first whole millisecond that is not before it."""
    return -((EPOCH - at) // timedelta(milliseconds=1))


def list_offsets(
    admin: AdminClient,
    partitions: Iterable[tuple[str, int]],
    spec: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
    seconds: float = SECONDS,
) -> dict[tuple[str, int], int]:
    """Return the offset that `spec` names of each (topic, partition); -1 for a time after which there is no record.

    A partition that is new or changes its leader is asked for again, for up to `seconds`.

    Raises:
        KafkaException: where the brokers do not say.
    """
    specs = {TopicPartition(topic, partition): spec for topic, partition in partitions}
    if not specs:
        return {}
    until = time.monotonic() + seconds
    while True:
        try:
            asked = admin.list_offsets(specs, isolation_level=isolation, request_timeout=seconds)
            found = {place: future.result(seconds).offset for place, future in asked.items()}
            return {(place.topic, place.partition): int(offset) for place, offset in found.items()}
        except KafkaException as exc:
            if exc.args[0].code() not in BETWEEN_LEADERS or time.monotonic() > until:
                raise
        time.sleep(POLL_SECONDS)
        admin.list_topics(timeout=seconds)  # else the client goes on asking the leader that it remembers


def edges(admin: AdminClient, topics: Collection[str]) -> dict[tuple[str, int], Edges]:
    """List the edges of each partition, by topic and partition; topics that the cluster lacks are left out.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    try:
        present = admin.list_topics(timeout=SECONDS).topics
        return _edges(
            admin, [(topic, p) for topic in sorted(set(topics) & present.keys()) for p in present[topic].partitions]
        )
    except KafkaException as exc:
        what = f"the offsets of topics: {exc.args[0].str()}"
        raise TidemarkError("KAFKA_FAILED", what, "see the brokers' logs, then ask again") from exc


def _edges(
    admin: AdminClient, partitions: Collection[tuple[str, int]], seconds: float = SECONDS
) -> dict[tuple[str, int], Edges]:
    first = list_offsets(admin, partitions, OffsetSpec.earliest(), seconds=seconds)  # type: ignore[no-untyped-call]
    end = list_offsets(admin, partitions, OffsetSpec.latest(), seconds=seconds)  # type: ignore[no-untyped-call]
    return {place: Edges(first[place], end[place]) for place in first}


def resolve_offsets(kafka: Kafka, topic: str, position: Position) -> Offsets:
    """Return `position` as an offset for each partition of `topic`:
    the first record's at or after it, or the partition's end.

    Offsets are checked; a partition that they leave out is at its end, and -2 and -1 mean earliest and latest.

    Raises:
        TidemarkError: BROKER_UNREACHABLE, BROKER_REFUSES, NOT_AUTHORIZED, or BAD_POSITION where there is no such
            partition or offset.
    """
    with OffsetLookup(kafka) as lookup:
        firsts, ends = lookup.edges(topic)
        if isinstance(position, datetime):
            return {topic: lookup.at(topic, position, ends)}
        if isinstance(position, str):
            return {topic: firsts if position == "earliest" else ends}
    given = position.get(topic, {})
    require_offsets(topic, given, ends)
    resolved = {}
    for number, end in ends.items():
        first, offset = firsts[number], given.get(number, -1)
        resolved[number] = {-2: first, -1: end}.get(offset, offset)
        if not first <= resolved[number] <= end:
            raise _bad_offset(f"partition {number} of topic {topic} holds offsets {first} to {end}, not {offset}")
    return {topic: resolved}


def count_committed(kafka: Kafka, topic: str) -> int:
    """Count records of `topic` that a `read_committed` reader finds: offsets do not tell, as transactions take some."""
    ends = resolve_offsets(kafka, topic, "latest")[topic]
    with ReadCommittedConsumer(kafka.client_config()) as consumer:
        return sum(len(consumer.records_within(topic, partition, [(0, end)])) for partition, end in ends.items() if end)


def require_offsets(topic: str, named: Mapping[int, int], ends: Mapping[int, int]) -> None:
    """Check that partitions whose offsets are named are there, and end at those or later.

    Raises:
        TidemarkError: BAD_POSITION.
    """
    for number, offset in sorted(named.items()):
        if number not in ends:
            raise _bad_offset(f"topic {topic} has no partition {number}")
        if offset > ends[number]:
            raise _bad_offset(f"partition {number} of topic {topic} ends at offset {ends[number]}, before {offset}")


def _bad_offset(message: str) -> TidemarkError:
    return TidemarkError("BAD_POSITION", message, "name one that is there, or a time")


def topic_ids(
    admin: AdminClient,
    names: Iterable[str],
    connection: Mapping[str, Any] | None = None,
    operations: tuple[str, ...] = ("Describe",),
) -> dict[str, str]:
    """Return the ids of those of `names` that are there: a topic that is deleted and created again has another one.

    Args:
        connection: of the client, for the command that grants a lacking right.
        operations: those that the ids are needed for; the error for a lacking right names them.

    Raises:
        TidemarkError: KAFKA_FAILED, NOT_AUTHORIZED.
    """
    topics = sorted(set(names))
    if not topics:
        return {}
    until = time.monotonic() + FAILOVER_SECONDS
    while True:
        ids, passing = {}, False
        for name, described in admin.describe_topics(TopicCollection(topics), request_timeout=ATTEMPT_SECONDS).items():
            try:
                ids[name] = str(described.result(SECONDS).topic_id)
            except KafkaException as exc:
                error = exc.args[0]
                if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    continue
                if error.code() not in FAILOVER or time.monotonic() > until:
                    needed = [Right("topic", name, operations)]
                    raise client_error(f"topic {name}", error, needed, connection or {}) from exc
                passing = True
        if not passing:
            return ids
        # The client learns who the controller is: else it would wait without end for one that is gone.
        time.sleep(PAUSE_SECONDS)
        with contextlib.suppress(KafkaException):
            admin.list_topics(timeout=ATTEMPT_SECONDS)


class OffsetLookup:
    """Asks for offsets and record times of topics by one client; to be closed.

    Raises:
        TidemarkError: BROKER_UNREACHABLE, BROKER_REFUSES, NOT_AUTHORIZED, KAFKA_FAILED, from each method.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._connection = Connection(kafka)
        self._admin = AdminClient(self._connection.config())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if "_consumer" in self.__dict__:
            self._consumer.close()

    def edges(self, topic: str) -> tuple[Partitions, Partitions]:
        """Return the first offset that is still there, and the end, of each partition."""
        with self._named(topic):
            numbers = self._connection.metadata(self._admin, topic).topics[topic].partitions
            partitions = _edges(self._admin, [(topic, number) for number in numbers], LOOKUP_SECONDS)
        return (
            {n: edge.first for (_, n), edge in partitions.items()},
            {n: edge.end for (_, n), edge in partitions.items()},
        )

    def at(self, topic: str, time: datetime, ends: Partitions) -> Partitions:
        """Return the first offset with a record time at or after `time`, of each partition;
        the end, where there is none."""
        # No record is older than 1970, and what is below 0 would stand for an end of the log.
        spec = OffsetSpec.for_timestamp(max(0, milliseconds(time)))
        with self._named(topic):
            offsets = list_offsets(self._admin, [(topic, number) for number in ends], spec, seconds=LOOKUP_SECONDS)
        return {number: offsets[topic, number] if offsets[topic, number] >= 0 else end for number, end in ends.items()}

    def time_at(self, topic: str, partition: int, offset: int) -> int | None:
        """Return the record time, ms since 1970, of the first record at or after `offset`;
        None at the end of the log."""
        return next((int(record.timestamp()[1]) for record in self._records(topic, partition, offset, 1)), None)

    def mean_bytes(self, topic: str, partition: int, offset: int) -> float:
        """Return the mean size of key and value, in bytes, of some records from `offset` on; 0 where there are none."""
        sizes = [
            len(record.value() or b"") + len(record.key() or b"")
            for record in self._records(topic, partition, offset, SAMPLE)
        ]
        return sum(sizes) / len(sizes) if sizes else 0.0

    def span(self, topic: str, partition: int, start: int, until: int) -> tuple[int, int] | None:
        """Return the least and the greatest record time, ms since 1970, of offsets [start, until); None for none."""
        records = self._records(topic, partition, start, until - start)
        within = takewhile(lambda record: int(record.offset() or 0) < until, records)
        times = [int(record.timestamp()[1]) for record in within]
        return (min(times), max(times)) if times else None

    def _records(self, topic: str, partition: int, offset: int, count: int) -> Iterator[Message]:
        """Yield up to `count` records from `offset` on."""
        start = TopicPartition(topic, partition, offset)
        with self._named(topic):
            coming = messages(self._consumer, start, LOOKUP_SECONDS, min(count, MESSAGES))
            yield from islice(takewhile(lambda message: not is_end(message), coming), count)

    @cached_property
    def _consumer(self) -> Consumer:
        return open_consumer(self._connection.config())

    @contextlib.contextmanager
    def _named(self, topic: str) -> Iterator[None]:
        try:
            yield
        except KafkaException as exc:
            raise self._connection.failed(self._admin, exc, reading([topic])) from exc
