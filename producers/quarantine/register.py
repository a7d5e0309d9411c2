"""Registers: compacted topics of one partition that remember, by a rejected record's coordinates, what became of it.

A mark is a JSON record `{"topic", "partition", "offset", "topic_id", "run", "at", ...}` under the key
`topic/partition/offset`. It counts while the topic has the same id: one that was deleted and created again gives the
same coordinates to other records.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from conf.settings import Settings
from jobs.connectors.ledger import stops
from jobs.connectors.ledger.reading import read
from jobs.connectors.ledger.topic import Ledger, topic_ids
from producers.preflight import require_topics
from producers.publisher import connection_config
from producers.quarantine.records import Coordinates

PARTITION = 0
READ_SECONDS = 120.0
# The end of a transaction reaches its partitions within some 10 ms.
SETTLE_SECONDS = 3.0
RAW = {"group.id": "tidemark-ledger", "isolation.level": "read_uncommitted", "log_level": 0}
Mark = Mapping[str, Any]


def redriven_topic(settings: Settings) -> str:
    """The register of records that were sent again."""
    return f"{settings.ledger.application}.redriven"


def queued_topic(settings: Settings) -> str:
    """The register of records that were put into the work queue."""
    return f"{settings.ledger.application}.quarantine.queued"


def resolved_topic(settings: Settings) -> str:
    """What became of each delivery from the work queue."""
    return f"{settings.ledger.application}.quarantine.resolved"


def create(settings: Settings, admin: AdminClient, name: str) -> None:
    """Create the register unless it is there; raises TidemarkError KAFKA_FAILED."""
    Ledger(name, settings.kafka.replication_factor).require_shards(admin, 0)


def marks(settings: Settings, name: str, start: int, take: Callable[[Mark, int], None]) -> int:
    """Hand each committed mark from offset `start` on to `take`, with its offset; the offset to go on from.

    A transaction that has just been committed takes a moment to be seen, and is waited for; one that is open is not.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    position = start

    def take_mark(message: Message) -> None:
        nonlocal position
        position = int(message.offset() or 0) + 1
        if (mark := parse(message)) is not None:
            take(mark, position - 1)

    connection = settings.kafka.client_config()
    try:
        end = _end(connection, name)
        position = read(connection, TopicPartition(name, PARTITION, start), READ_SECONDS, take_mark)
        if position < end:
            with _patience():
                rest = TopicPartition(name, PARTITION, position)
                position = read(connection, rest, SETTLE_SECONDS, take_mark, lambda offset: offset >= end)
    except KafkaException as exc:
        raise stops.kafka_failed(name, exc.args[0].str()) from exc
    return position


@contextmanager
def _patience() -> Iterator[None]:
    """What is still open after SETTLE_SECONDS may stay so for long: what is there then is all for now."""
    try:
        yield
    except KafkaException as exc:
        if exc.args[0].code() != KafkaError._TIMED_OUT:
            raise


def _end(connection: Mapping[str, str], name: str) -> int:
    """Where the register ends for those who do not wait for transactions."""
    consumer = Consumer({**connection, **RAW})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(name, PARTITION), timeout=READ_SECONDS)[1])
    finally:
        consumer.close()


def parse(message: Message) -> Mark | None:
    """The mark; None for the beginning of a transaction."""
    value = message.value()
    record = json.loads(value) if value else {}
    return record if "offset" in record else None


def mark(at: Coordinates, ids: Mapping[str, str], run: str, **more: Any) -> bytes:
    """A mark of that record, made now; `ids`: topic -> its id, where it is known."""
    told = {**at._asdict(), "topic_id": ids.get(at.topic, ""), "run": run, "at": datetime.now(UTC).isoformat()}
    return json.dumps(told | more).encode()


class Register:
    """What a register says of the records of some topics, by `ids` (topic -> the id it has now).

    Args:
        run: whose own marks are told apart; "" for nobody's.
        counts: whether a mark is to be heeded.
    """

    def __init__(
        self, ids: Mapping[str, str], run: str = "", counts: Callable[[Mark], bool] = lambda mark: True
    ) -> None:
        self._ids, self._run, self._counts = ids, run, counts
        self._seen: dict[tuple[str, int], set[int]] = defaultdict(set)
        self._own: set[Coordinates] = set()
        self.position = 0

    def take(self, mark: Mark, _: int = 0) -> None:
        """Learn from a mark."""
        if self._ids.get(mark["topic"], "") != mark["topic_id"] or not self._counts(mark):
            return
        self._seen[mark["topic"], mark["partition"]].add(mark["offset"])
        if mark["run"] == self._run:
            self._own.add(Coordinates(mark["topic"], mark["partition"], mark["offset"]))

    def take_message(self, message: Message) -> None:
        """Learn from a record of the topic."""
        if (mark := parse(message)) is not None:
            self.take(mark)

    def has(self, at: Coordinates) -> bool:
        """Whether there is a mark of that record."""
        return at.offset in self._seen.get((at.topic, at.partition), ())

    def forget_own(self) -> None:
        """Take this run's marks so far for anybody's, so that they need no memory."""
        self._own.clear()

    def is_own(self, at: Coordinates) -> bool:
        """Whether this run has made that mark, since it was told to forget its own."""
        return at in self._own

    def among(self, topic: str, partitions: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """`has` for many records of one topic."""
        found = np.zeros(len(offsets), dtype=bool)
        for partition in np.unique(partitions):
            if known := self._seen.get((topic, int(partition))):
                here = partitions == partition
                found[here] = np.isin(offsets[here], np.fromiter(known, np.int64, len(known)))
        return found

    def among_rows(self, index: pa.Table) -> npt.NDArray[np.bool_]:
        """`has` for each row of a table with `topic`, `partition` and `offset`."""
        topics = index["topic"].to_numpy()
        partitions, offsets = index["partition"].to_numpy(), index["offset"].to_numpy()
        found = np.zeros(index.num_rows, dtype=bool)
        for topic in np.unique(topics):
            here = topics == topic
            found[here] = self.among(topic, partitions[here], offsets[here])
        return found


def known(settings: Settings, admin: AdminClient, name: str, topics: Iterable[str]) -> Register:
    """What is committed in the register `name` now; an empty one where the cluster has no such topic.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    register = Register(topic_ids(admin, topics))
    if name in admin.list_topics(timeout=READ_SECONDS).topics:
        register.position = marks(settings, name, 0, register.take)
    return register


def connect(settings: Settings) -> AdminClient:
    """A client of the cluster; raises TidemarkError NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES."""
    errors: list[KafkaError] = []
    admin = AdminClient(connection_config(settings.kafka, errors.append))
    require_topics(admin, settings.kafka.bootstrap_servers, [], errors)
    return admin
