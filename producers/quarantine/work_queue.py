"""Keeps the work queue: rejected records in a topic that a share group reads, so that some worker resolves each.

One partition: a share group hands out records, not partitions, to as many workers as there are. Each record is a batch
of its own on the brokers, which hand out no less than a batch.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from conf.settings import Settings
from conf.topics import Topic
from jobs.connectors.kafka.access import Right, client_error, writing
from jobs.connectors.kafka.offsets import topic_ids
from jobs.connectors.kafka.refusals import LIMIT, REQUEST_BYTES, SizeLimits, topic_limits
from producers.kafka.pacing import Progress
from producers.kafka.preflight import connect, create_topic
from producers.kafka.publisher import Batch, connection_config, producer_config
from producers.quarantine import marker_log
from producers.quarantine.marker_log import Marker, MarkerLog
from producers.quarantine.records import Coordinates, Rejected
from producers.quarantine.redrive import MOST_BYTES, MOST_RECORDS, ExactlyOnceSender, open_writer
from producers.quarantine.selection import Selection
from producers.quarantine.table import Quarantine, slices

PARTITION = 0
SECONDS = 30.0
# An envelope is larger than its record, by a third and its headers: any record up to half of the request size fits.
ENVELOPE_BYTES = 64 << 20
LOCK = "share.record.lock.duration.ms"
DELIVERIES = "share.delivery.count.limit"
FINAL = ("accept", "reject")
# The record was released too often: the group hands a record out a limited number of times.
GIVEN_UP = "given up"
# The acknowledgement came too late: another worker had the record by then.
EXPIRED = "expired"


def queue_topic(settings: Settings) -> str:
    """Return the topic, and the share group, of the work queue."""
    return f"{settings.ledger.application}.quarantine"


def open_queue(settings: Settings, admin: AdminClient, lock_seconds: float | None = None) -> None:
    """Create the topic and its marker logs unless they are there, and make the share group read it from its start.

    Args:
        lock_seconds: how long a worker may take for a record; None leaves what the group has (30 by default).

    Raises:
        TidemarkError: TOPIC_NOT_CREATED, KAFKA_FAILED.
    """
    name, connection = queue_topic(settings), settings.kafka.client_config()
    create_topic(
        admin, Topic(name, 1, "", ""), settings.kafka.replication_factor, {LIMIT: str(ENVELOPE_BYTES)}, connection
    )
    for log in (marker_log.queued_topic(settings), marker_log.resolved_topic(settings)):
        marker_log.create(settings, admin, log)
    # No worker may get a record of a fill that was cut short.
    config = {"share.auto.offset.reset": "earliest", "share.isolation.level": "read_committed"}
    if lock_seconds is not None:
        config[LOCK] = str(round(lock_seconds * 1000))
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()]
    resource = ConfigResource(ResourceType.GROUP, name, incremental_configs=entries)
    try:
        admin.incremental_alter_configs([resource])[resource].result(SECONDS)
    except KafkaException as exc:
        needed = [Right("group", name, ("AlterConfigs", "DescribeConfigs", "Describe", "Read"))]
        raise client_error(f"share group {name}", exc.args[0], needed, connection) from exc


class Terms(NamedTuple):
    """How long the group lets a worker have a record, and how often it hands one out."""

    lock_seconds: float
    deliveries: int


def queue_terms(settings: Settings, admin: AdminClient) -> Terms:
    """Return the terms of the share group; raises TidemarkError KAFKA_FAILED."""
    resource = ConfigResource(ResourceType.GROUP, queue_topic(settings))
    try:
        entries = admin.describe_configs([resource], request_timeout=SECONDS)[resource].result(SECONDS)
    except KafkaException as exc:
        needed = [Right("group", resource.name, ("DescribeConfigs",))]
        raise client_error(f"share group {resource.name}", exc.args[0], needed, settings.kafka.client_config()) from exc
    return Terms(int(entries[LOCK].value) / 1000, int(entries[DELIVERIES].value))


class QueueFiller(ExactlyOnceSender):
    """Puts records of `topics` into the queue, each once, in the run `run`; one that the group has given up, anew.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES, TOPIC_NOT_CREATED, KAFKA_FAILED.
    """

    def __init__(self, settings: Settings, run: str, topics: Collection[str], stopped: Callable[[], bool]) -> None:
        self._run, self._queue, self.queued = run, queue_topic(settings), 0
        admin = connect(settings.kafka)
        open_queue(settings, admin)
        self._ids = topic_ids(admin, topics, settings.kafka.client_config())
        identity = f"{self._queue}.fill"
        where = {"sink": identity, "step": "fill"}
        writer = open_writer(settings, admin, identity, where, self._queue, marker_log.queued_topic(settings))
        writer = replace(writer, tuning={**writer.tuning, "batch.num.messages": 1})
        outcomes = Outcomes(settings)
        outcomes.read()
        given_up = outcomes.given_up()
        markers = MarkerLog(self._ids, run, lambda marker: marker["queue_offset"] not in given_up)
        sizes = SizeLimits.of(topic_limits(admin, [self._queue]), settings.kafka.bootstrap_servers, REQUEST_BYTES)
        super().__init__("filling the queue", writer, markers, sizes, stopped, Progress())

    def fill(self, table: Quarantine, selection: Selection, index: pa.Table) -> None:
        """Put the selected records there, which lie as `index` says, until stopped; `queued` counts what is committed.

        Raises:
            TidemarkError: FENCED, KAFKA_FAILED, TRANSACTION_TIMED_OUT, DELIVERY_FAILED; RECORD_TOO_LARGE, once all
                others are queued.
        """
        for part in slices(index, MOST_RECORDS, MOST_BYTES):
            if self._stopped():
                return
            self.queued += len(self.send(table.rows(selection, part)))
        self.require_all_taken()

    def make_batch(self, rows: Sequence[Rejected]) -> Batch:
        """Return the envelopes of the records."""
        values = [json.dumps(row.to_json()).encode() for row in rows]
        count, keys = len(rows), [str(row.at) for row in rows]
        return Batch([self._queue] * count, values, keys, [0] * count, partitions=[PARTITION] * count)

    def make_marker(self, row: Rejected, partition: int, offset: int) -> bytes:
        """Return a marker that says where in the queue the record is."""
        return marker_log.make_marker(row.at, self._ids, self._run, queue_offset=offset)


@dataclass
class Outcomes:
    """The outcomes of the deliveries so far, by the record's offset in the queue."""

    settings: Settings
    position: int = 0
    last: dict[int, dict[int, Marker]] = field(default_factory=dict)

    def read(self) -> None:
        """Read on to the end; raises TidemarkError KAFKA_FAILED."""
        log = marker_log.resolved_topic(self.settings)
        self.position = marker_log.read_markers(self.settings, log, self.position, self._take)

    def final(self, queue_offset: int) -> Marker | None:
        """Return how the record was resolved for good, if it was."""
        markers = self.last.get(queue_offset, {}).values()
        return next((marker for marker in markers if marker["resolution"] in FINAL), None)

    def given_up(self) -> set[int]:
        """Return the queue's offsets of records that the group hands out no more, though they are not resolved."""
        return {offset for offset in self.last if self._of(offset) == GIVEN_UP}

    def count(self) -> Counter[str]:
        """Return the records by what became of them in the end, or of their last delivery so far."""
        return Counter(self._of(offset) for offset in self.last)

    def _of(self, offset: int) -> str:
        deliveries = self.last[offset]
        return str((self.final(offset) or deliveries[max(deliveries)])["resolution"])

    def _take(self, marker: Marker, _: int) -> None:
        self.last.setdefault(marker["queue_offset"], {})[marker["delivery"]] = marker


class OutcomeLog:
    """Writes down what a worker, of that `name`, does."""

    def __init__(self, settings: Settings, admin: AdminClient, name: str) -> None:
        self._log, self._admin, self._name = marker_log.resolved_topic(settings), admin, name
        self._connection = settings.kafka.client_config()
        connection = connection_config(settings.kafka, lambda error: None)
        self._producer = Producer({**connection, **producer_config(settings.producer, []), "linger.ms": 0})
        self._ids: dict[str, str] = {}

    def add(self, row: Rejected, message: Message, resolution: str, note: str) -> None:
        """Write down what becomes of a delivery; raises TidemarkError KAFKA_FAILED."""
        offset, delivery = int(message.offset() or 0), message.delivery_count() or 1
        if row.at.topic not in self._ids:
            self._ids |= topic_ids(self._admin, [row.at.topic], self._connection)
        more = {"resolution": resolution, "delivery": delivery, "queue_offset": offset, "note": note}
        marker = marker_log.make_marker(row.at, self._ids, self._name, **more)
        refused: list[KafkaError] = []

        def note_refusal(error: KafkaError | None, _: Message) -> None:
            refused.extend([error] if error else [])

        self._producer.produce(
            self._log, marker, f"{offset}/{delivery}", marker_log.PARTITION, on_delivery=note_refusal
        )
        self._producer.flush()
        if refused:
            raise client_error(self._log, refused[0], writing([self._log]), self._connection)


def status(settings: Settings, admin: AdminClient) -> dict[str, int]:
    """Count the records in the queue, and of those by what became of them; the rest is `open`.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    log = marker_log.queued_topic(settings)
    # The topic is asked for by name: a list lacks topics that this user may not see.
    if not topic_ids(admin, [log], settings.kafka.client_config(), ("Read", "Describe")):
        return {"queued": 0}
    newest: dict[Coordinates, int] = {}

    def take(marker: Marker, _: int) -> None:
        newest[Coordinates(marker["topic"], marker["partition"], marker["offset"])] = marker["queue_offset"]

    marker_log.read_markers(settings, log, 0, take)
    outcomes = Outcomes(settings)
    outcomes.read()
    resolved = outcomes.count()
    counts = {"queued": len(newest), "accepted": resolved["accept"], "rejected": resolved["reject"]}
    counts[GIVEN_UP] = len(outcomes.given_up() & set(newest.values()))
    return counts | {"open": 2 * len(newest) - sum(counts.values())}
