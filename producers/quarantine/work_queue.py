"""The work queue: rejected records in a topic that a share group reads, so that each is resolved by somebody.

One partition: a share group hands out records, not partitions, to as many workers as there are. Each record is a batch
of its own on the brokers, which hand out no less than a batch.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from conf.settings import Settings
from conf.topics import Topic
from jobs.connectors.ledger import stops
from jobs.connectors.ledger.topic import topic_ids
from producers.preflight import create_topic
from producers.progress import Progress
from producers.publisher import Batch, never
from producers.quarantine import register as registers
from producers.quarantine.once import OnceWriter, Placed, writer_of
from producers.quarantine.records import Coordinates, Rejected
from producers.quarantine.redrive import MOST_BYTES, MOST_RECORDS
from producers.quarantine.register import Mark, Register
from producers.quarantine.resolutions import GIVEN_UP, Resolutions
from producers.quarantine.selection import Selection
from producers.quarantine.table import Quarantine, slices

PARTITION = 0
SECONDS = 30.0
LOCK = "share.record.lock.duration.ms"
DELIVERIES = "share.delivery.count.limit"


def queue_topic(settings: Settings) -> str:
    """The topic, and the share group, of the work queue."""
    return f"{settings.ledger.application}.quarantine"


def open_queue(settings: Settings, admin: AdminClient, lock_seconds: float | None = None) -> None:
    """Create the topic and its registers unless they are there, and make the share group read it from its start.

    Args:
        lock_seconds: how long a worker may take for a record; None leaves what the group has (30 by default).

    Raises:
        TidemarkError: TOPIC_NOT_CREATED, KAFKA_FAILED.
    """
    name = queue_topic(settings)
    create_topic(admin, Topic(name, 1, "", ""), settings.kafka.replication_factor)
    for register in (registers.queued_topic(settings), registers.resolved_topic(settings)):
        registers.create(settings, admin, register)
    # Of a fill that was cut short, nobody is to be handed a record.
    config = {"share.auto.offset.reset": "earliest", "share.isolation.level": "read_committed"}
    if lock_seconds is not None:
        config[LOCK] = str(round(lock_seconds * 1000))
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()]
    resource = ConfigResource(ResourceType.GROUP, name, incremental_configs=entries)
    try:
        admin.incremental_alter_configs([resource])[resource].result(SECONDS)
    except KafkaException as exc:
        raise stops.kafka_failed(f"share group {name}", exc.args[0].str()) from exc


class Terms(NamedTuple):
    """How long the group lets a worker have a record, and how often it hands one out."""

    lock_seconds: float
    deliveries: int


def terms(settings: Settings, admin: AdminClient) -> Terms:
    """Of the share group; raises TidemarkError KAFKA_FAILED."""
    resource = ConfigResource(ResourceType.GROUP, queue_topic(settings))
    try:
        entries = admin.describe_configs([resource], request_timeout=SECONDS)[resource].result(SECONDS)
    except KafkaException as exc:
        raise stops.kafka_failed(f"share group {resource.name}", exc.args[0].str()) from exc
    return Terms(int(entries[LOCK].value) / 1000, int(entries[DELIVERIES].value))


@dataclass
class Filling:
    """A run that puts the selected records into the queue, each once; `skipped` counts those that were put there.

    One that the group has given up is put there anew.
    """

    settings: Settings
    run: str
    stopped: Callable[[], bool] = never
    progress: Progress = field(default_factory=Progress)
    queued: int = 0
    skipped: int = 0

    def fill(self, table: Quarantine, selection: Selection) -> None:
        """Put them there, until stopped.

        Raises:
            TidemarkError: NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES, TOPIC_NOT_CREATED, FENCED, KAFKA_FAILED,
                TRANSACTION_TIMED_OUT, DELIVERY_FAILED; `queued` counts what is committed.
        """
        index = table.index(selection)
        admin = registers.connect(self.settings)
        open_queue(self.settings, admin)
        self._ids = topic_ids(admin, index["topic"].unique().to_pylist())
        once = self._writer(admin)
        for part in slices(index, MOST_RECORDS, MOST_BYTES):
            if self.stopped():
                return
            rows = table.rows(selection, part)
            sent = once.send(rows)
            self.queued += len(sent)
            self.skipped += len(rows) - len(sent)

    def _writer(self, admin: AdminClient) -> OnceWriter:
        topic, name = queue_topic(self.settings), registers.queued_topic(self.settings)
        where = {"sink": f"{topic}.fill", "step": "fill"}
        writer = writer_of(self.settings, admin, f"{topic}.fill", where, topic, name)
        writer = replace(writer, tuning={**writer.tuning, "batch.num.messages": 1})
        resolutions = Resolutions(self.settings)
        resolutions.read()
        given_up = resolutions.given_up()
        register = Register(self._ids, self.run, lambda mark: mark["queue_offset"] not in given_up)
        return OnceWriter("filling the queue", writer, register, self._batch, self._mark, self.stopped, self.progress)

    def _batch(self, rows: Sequence[Rejected]) -> Batch:
        count, topic = len(rows), queue_topic(self.settings)
        values = [json.dumps(row.to_json()).encode() for row in rows]
        keys = [str(row.at) for row in rows]
        return Batch([topic] * count, values, keys, [0] * count, partitions=[PARTITION] * count)

    def _mark(self, row: Rejected, placed: Placed) -> bytes:
        return registers.mark(row.at, self._ids, self.run, queue_offset=placed.offset)


def status(settings: Settings, admin: AdminClient) -> dict[str, int]:
    """Records in the queue, and of those by what became of them; the rest is `open`.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    there = admin.list_topics(timeout=SECONDS).topics
    if registers.queued_topic(settings) not in there:
        return {"queued": 0}
    newest: dict[Coordinates, int] = {}

    def take(mark: Mark, _: int) -> None:
        newest[Coordinates(mark["topic"], mark["partition"], mark["offset"])] = mark["queue_offset"]

    registers.marks(settings, registers.queued_topic(settings), 0, take)
    resolutions = Resolutions(settings)
    resolutions.read()
    counted = resolutions.count()
    told = {"queued": len(newest), "accepted": counted["accept"], "rejected": counted["reject"]}
    told[GIVEN_UP] = len(resolutions.given_up() & set(newest.values()))
    return told | {"open": 2 * len(newest) - sum(told.values())}
