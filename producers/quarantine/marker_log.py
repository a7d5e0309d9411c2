"""Keeps marker logs: topics that remember what became of each rejected record, and Delta tables made of them."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from conf.settings import Settings
from jobs.connectors.exactly_once.ledger import Ledger
from jobs.connectors.files import table_uri
from jobs.connectors.kafka.access import CODES, Right, client_error
from jobs.connectors.kafka.consumer import read_to_end
from jobs.connectors.kafka.offsets import list_offsets, topic_ids
from jobs.pipeline import paths
from jobs.pipeline.paths import find_stored
from producers.quarantine.records import Coordinates

PARTITION = 0
READ_SECONDS = 120.0
# The end of a transaction reaches its partitions within some 10 ms.
SETTLE_SECONDS = 3.0
Marker = Mapping[str, Any]
TIME = pa.timestamp("us", "UTC")
RECORD = [("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64()), ("topic_id", pa.string())]
RECORD += [("run", pa.string()), ("at", TIME)]
REDRIVES = pa.schema(
    [
        *RECORD,
        ("attempt", pa.int32()),
        ("origin", pa.string()),
        ("error", pa.string()),
        ("rule", pa.string()),
        ("to_partition", pa.int32()),
        ("to_offset", pa.int64()),
        ("code_version", pa.string()),
    ]
)
RESOLUTIONS = pa.schema(
    [
        *RECORD,
        ("resolution", pa.string()),
        ("delivery", pa.int32()),
        ("queue_offset", pa.int64()),
        ("note", pa.string()),
    ]
)
ATTEMPTS = 5
COMMIT_ROWS = 20_000  # some 30 MB while they are markers


def redriven_topic(settings: Settings) -> str:
    """Return the log of records that were sent again."""
    return f"{settings.ledger.application}.redriven"


def queued_topic(settings: Settings) -> str:
    """Return the log of records that were put into the work queue."""
    return f"{settings.ledger.application}.quarantine.queued"


def resolved_topic(settings: Settings) -> str:
    """Return the log of what became of each delivery from the work queue."""
    return f"{settings.ledger.application}.quarantine.resolved"


def create(settings: Settings, admin: AdminClient, name: str) -> None:
    """Create the log unless it is there; raises TidemarkError KAFKA_FAILED, NOT_AUTHORIZED."""
    Ledger(name, settings.kafka.replication_factor).require_shards(admin, 0, settings.kafka.client_config())


def make_marker(at: Coordinates, ids: Mapping[str, str], run: str, **more: Any) -> bytes:
    """Return a marker of the record at `at`, made now; `ids`: topic -> its id, where it is known."""
    marker = {**at._asdict(), "topic_id": ids.get(at.topic, ""), "run": run, "at": datetime.now(UTC).isoformat()}
    return json.dumps(marker | more).encode()


def parse(message: Message) -> Marker | None:
    """Return the marker in a message; None for the beginning of a transaction."""
    value = message.value()
    record = json.loads(value) if value else {}
    return record if "offset" in record else None


def read_markers(settings: Settings, name: str, start: int, take: Callable[[Marker, int], None]) -> int:
    """Hand each committed marker from offset `start` on to `take`, with its offset; the offset to go on from.

    A transaction that has just been committed takes a moment to be seen, and is waited for; one that is open is not.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    position = start

    def take_message(message: Message) -> None:
        nonlocal position
        position = int(message.offset() or 0) + 1
        if (marker := parse(message)) is not None:
            take(marker, position - 1)

    connection = settings.kafka.client_config()
    try:
        end = _end(connection, name)
        position = read_to_end(connection, TopicPartition(name, PARTITION, start), READ_SECONDS, take_message)
        if position < end:
            with _as_far_as_committed():
                rest = TopicPartition(name, PARTITION, position)
                position = read_to_end(connection, rest, SETTLE_SECONDS, take_message, lambda offset: offset >= end)
    except KafkaException as exc:
        if exc.args[0].code() not in CODES:
            # If this user may not see the topic, the client says that it has no leader.
            topic_ids(AdminClient({**connection, "log_level": 0}), [name], connection, ("Read", "Describe"))
        needed = [Right("topic", name, ("Read", "Describe"))]
        raise client_error(name, exc.args[0], needed, connection) from exc
    return position


@contextmanager
def _as_far_as_committed() -> Iterator[None]:
    """Pass over a timeout: what is still open after SETTLE_SECONDS may stay so for long."""
    try:
        yield
    except KafkaException as exc:
        if exc.args[0].code() != KafkaError._TIMED_OUT:
            raise


def _end(connection: Mapping[str, str], name: str) -> int:
    """Return where the log ends for readers that do not wait for transactions."""
    admin, latest = AdminClient({**connection, "log_level": 0}), OffsetSpec.latest()  # type: ignore[no-untyped-call]
    return list_offsets(admin, [(name, PARTITION)], latest, IsolationLevel.READ_UNCOMMITTED)[name, PARTITION]


class MarkerLog:
    """Which records of some topics have a marker in a log, by `ids` (topic -> the id it has now).

    Args:
        run: its markers are told apart from others'; "" for no run.
        counts: whether a marker counts.
    """

    def __init__(
        self, ids: Mapping[str, str], run: str = "", counts: Callable[[Marker], bool] = lambda marker: True
    ) -> None:
        self._ids, self._run, self._counts = ids, run, counts
        self._offsets: dict[tuple[str, int], set[int]] = defaultdict(set)
        self._of_run: set[Coordinates] = set()
        self.position = 0

    def take(self, marker: Marker, _: int = 0) -> None:
        """Learn from a marker."""
        if self._ids.get(marker["topic"], "") != marker["topic_id"] or not self._counts(marker):
            return
        self._offsets[marker["topic"], marker["partition"]].add(marker["offset"])
        if marker["run"] == self._run:
            self._of_run.add(Coordinates(marker["topic"], marker["partition"], marker["offset"]))

    def take_message(self, message: Message) -> None:
        """Learn from a record of the topic."""
        if (marker := parse(message)) is not None:
            self.take(marker)

    def has(self, at: Coordinates) -> bool:
        """Return whether there is a marker of that record."""
        return at.offset in self._offsets.get((at.topic, at.partition), ())

    def forget_run(self) -> None:
        """Treat the run's markers so far as any others, so that they need no memory."""
        self._of_run.clear()

    def is_of_run(self, at: Coordinates) -> bool:
        """Return whether the run has made that marker since `forget_run` was called."""
        return at in self._of_run

    def among_rows(self, index: pa.Table) -> npt.NDArray[np.bool_]:
        """Return `has` for each row of a table with `topic`, `partition` and `offset`."""
        topics = index["topic"].to_numpy()
        partitions, offsets = index["partition"].to_numpy(), index["offset"].to_numpy()
        marked = np.zeros(index.num_rows, dtype=bool)
        for topic in np.unique(topics):
            of_topic = topics == topic
            for partition in np.unique(partitions[of_topic]):
                if with_marker := self._offsets.get((topic, int(partition))):
                    rows = of_topic & (partitions == partition)
                    marked[rows] = np.isin(offsets[rows], np.fromiter(with_marker, np.int64, len(with_marker)))
        return marked


def load_redriven(settings: Settings, admin: AdminClient, topics: Iterable[str]) -> MarkerLog:
    """Return which records of `topics` were redriven by now; none, where the cluster has no log of them.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    connection, log = settings.kafka.client_config(), redriven_topic(settings)
    markers = MarkerLog(topic_ids(admin, topics, connection))
    # The log is asked for by name: a list lacks topics that this user may not see.
    if topic_ids(admin, [log], connection, ("Read", "Describe")):
        markers.position = read_markers(settings, log, 0, markers.take)
    return markers


def bring_up_to_date(settings: Settings, admin: AdminClient) -> dict[str, int]:
    """Append what is new to the tables `redrives` and `resolutions`, where their logs are; returns rows added by table.

    Raises:
        TidemarkError: KAFKA_FAILED; as `naming_damage`, where a table cannot be read.
    """
    sources = {
        paths.REDRIVES: (redriven_topic(settings), REDRIVES),
        paths.RESOLUTIONS: (resolved_topic(settings), RESOLUTIONS),
    }
    ids = topic_ids(
        admin, [topic for topic, _ in sources.values()], settings.kafka.client_config(), ("Read", "Describe")
    )
    return {
        name: _append_new(settings, name, topic, ids[topic], schema)
        for name, (topic, schema) in sources.items()
        if topic in ids
    }


def _append_new(settings: Settings, name: str, topic: str, topic_id: str, schema: pa.Schema) -> int:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _append(settings, name, topic, topic_id, schema)
        except CommitFailedError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _append(settings: Settings, name: str, topic: str, topic_id: str, schema: pa.Schema) -> int:
    # The log's topic id is part of it: a log that was created again begins with offset 0.
    application = f"{topic}/{topic_id}"
    found, uri = find_stored(settings, name), table_uri(paths.table(settings.paths.tables, name))
    table = found.delta if found else DeltaTable.create(uri, schema, mode="ignore")
    rows: list[Marker] = []
    added = 0

    def commit(end: int) -> None:
        nonlocal added
        properties = CommitProperties(app_transactions=[Transaction(application, end)])
        columns = {
            field.name: pa.array([_value(marker, field.name) for marker in rows], field.type) for field in schema
        }
        write_deltalake(table, pa.table(columns), mode="append", commit_properties=properties)
        added += len(rows)
        rows.clear()

    def take(marker: Marker, offset: int) -> None:
        rows.append(marker)
        if len(rows) == COMMIT_ROWS:
            commit(offset + 1)

    end = read_markers(settings, topic, table.transaction_version(application) or 0, take)
    if rows:
        commit(end)
    return added


def _value(marker: Marker, name: str) -> Any:
    return datetime.fromisoformat(marker["at"]) if name == "at" else marker.get(name)
