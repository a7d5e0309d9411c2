"""Defines the ledger of a sink: its markers, what follows from the last one, and the topic that holds them.

Markers are JSON records: plans by the driver lie in partition 0, those of the writer of shard s in partition s + 1.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self, TypeGuard

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, ResourceType

from conf.errors import TidemarkError
from jobs.connectors.exactly_once.process import Author, this_process
from jobs.connectors.kafka.access import CLUSTER, CODES, Right, client_error, publishing

Layout = Literal["source", "state", "key", "whole"]
Progress = Literal["none", "some", "all"]  # of a batch, by its markers
PLAN, DONE, OPEN, PUBLISHED = "plan", "done", "open", "published"
ADOPT = "start the job once with --adopt"
SECONDS = 30.0
PAUSE_SECONDS = 0.2
PLAN_PARTITION = 0
MOST_NAME = 249  # characters, which Kafka takes as a topic's name
CAP = "transaction.max.timeout.ms"


@dataclass(frozen=True)
class BatchId:
    """Identifies a micro-batch by what may never change between two attempts at it.

    Args:
        query_id: the id in `<checkpoint>/metadata`.
        offsets_hash: SHA-256 of the batch's entry in the checkpoint's offset log.
    """

    query_id: str
    batch: int
    offsets_hash: str


def offsets_hash(entry: str) -> str:
    """Hash the text of a batch's entry in the offset log."""
    return hashlib.sha256(entry.encode()).hexdigest()


@dataclass(frozen=True)
class Marker:
    """What a ledger says of a batch; a JSON record with its `kind`."""

    kind: ClassVar[str]
    id: BatchId

    def to_json(self) -> bytes:
        return json.dumps({"kind": self.kind, **asdict(self)}).encode()

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        # A marker of a newer version of this code may say more.
        known: dict[str, Any] = {known.name: record[known.name] for known in fields(cls) if known.name in record}
        known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**known | {"id": BatchId(**record["id"])})


@dataclass(frozen=True)
class Plan(Marker):
    """How a batch is cut into shards, committed before any shard writes, and taken over by every later attempt.

    Args:
        layout: "source": a shard is a range of one source partition; "state": a shard is what one partition of the
            query's state gives; "key": a shard is a hash of the record key; "whole": the only shard has all records,
            and its marker is in the plan's own transaction.
        shards: how many there are.
        fingerprint: of the source ranges, where they are the shards; empty otherwise.
        topics: the output topics' ids by name, as far as they were known.
        checkpoint: the checkpoint's files that begin this batch, by their path in it, for `adopt`.
        code: the version of the code that planned it.
        accepted: whether shards that are written stay as they are, though the code may give other records now.
    """

    kind = PLAN
    layout: Layout
    shards: int
    fingerprint: str = ""
    topics: dict[str, str] = field(default_factory=dict)
    checkpoint: dict[str, str] = field(default_factory=dict)
    stateful: bool = False
    code: str = ""
    accepted: bool = False


@dataclass(frozen=True)
class Done(Marker):
    """A shard of a batch is in the output: `n` records, whose hashes add up to `checksum` (modulo 2^64)."""

    kind = DONE
    shard: int
    n: int = 0
    checksum: int = 0
    topics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published(Done):
    """A publisher has its input in the topics up to here; `n` counts this transaction's records, all else all so far.

    Args:
        id: of the transaction: the identity of the input, the transaction's number, and no hash.
        read: rows or events of the input that are behind it, of which `rejected` rows were not published.
        delivered: records by topic.
        topic_ids: the topics' ids by name, as far as they were known.
        facts: what the identity is a hash of.
        run: the process that wrote it.
    """

    kind = PUBLISHED
    read: int = 0
    rejected: int = 0
    delivered: dict[str, int] = field(default_factory=dict)
    complete: bool = False
    topic_ids: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    run: str = ""


def parse(value: bytes | None) -> Plan | Done | None:
    """Parse a plan, done or published marker; None for what marks no progress."""
    record = json.loads(value) if value else {}
    kind = next((kind for kind in (Plan, Done, Published) if kind.kind == record.get("kind")), None)
    return kind.from_record(record) if kind else None


def open_marker(writer: str) -> bytes:
    """Return the marker that a transaction begins with: its offset is the barrier. It names writer and process."""
    return json.dumps({"kind": OPEN, "writer": writer, "process": this_process().fields}).encode()


def author_of(value: bytes | None, writer: str) -> Author | None:
    """Return the process that began a transaction of `writer`, by its `open` marker;
    None where it is not that, or old."""
    record = json.loads(value) if value else {}
    if record.get("kind") != OPEN or record.get("writer") != writer:
        return None
    return Author.from_fields(record.get("process"))


def plan_due(last: Plan | Done | None, wanted: Plan, sink: str) -> Plan:
    """Return the plan to follow for `wanted.id`: `wanted` itself, to be committed, or the same batch's, taken over.

    Raises:
        TidemarkError: CHECKPOINT_REPLACED, CHECKPOINT_ROLLED_BACK, BATCH_CHANGED, LEDGER_GAP, TOPIC_RECREATED.
    """
    mine = wanted.id
    if not isinstance(last, Plan):
        if mine.batch > 0:
            raise _gap(sink, "is empty", mine.batch)
        return wanted
    for topic in sorted(last.topics.keys() & wanted.topics.keys()):
        if last.topics[topic] != wanted.topics[topic]:
            what = f"topic {topic} of sink {sink} was deleted and created again: what was written before is gone"
            raise TidemarkError("TOPIC_RECREATED", what, f"restore it; to go on with the new topic, {ADOPT}")
    if not is_same_batch(last.id, mine, sink):
        if last.id.batch < mine.batch - 1:
            raise _gap(sink, f"ends with batch {last.id.batch}", mine.batch)
        return replace(wanted, topics=last.topics | wanted.topics)
    is_cut_alike = (wanted.layout, wanted.fingerprint) == (last.layout, last.fingerprint)
    if last.layout == "source" and not is_cut_alike:
        raise _layout_changed(sink, mine.batch, "a shard for each source partition, and the query now shuffles")
    if last.layout == "state" and not (is_cut_alike and wanted.shards == last.shards):
        how = f"a shard for each of {last.shards} partitions of its state, and the query now has others, or none"
        raise _layout_changed(sink, mine.batch, how)
    return last


def is_done(last: Plan | Done | None, mine: BatchId, sink: str) -> TypeGuard[Done]:
    """Return whether the shard whose last marker is given has written the batch;
    the plan has proved the batch before it.

    Raises:
        TidemarkError: CHECKPOINT_REPLACED, CHECKPOINT_ROLLED_BACK, BATCH_CHANGED.
    """
    return isinstance(last, Done) and is_same_batch(last.id, mine, sink)


def is_same_batch(last: BatchId, mine: BatchId, sink: str) -> bool:
    """Return whether `last`, which a ledger ends with, is the batch `mine`; raises what `is_done` does."""
    if last.query_id != mine.query_id:
        raise checkpoint_replaced(sink, last.query_id, last.batch, mine.query_id)
    if last.batch > mine.batch:
        what = f"sink {sink} holds batch {last.batch} of this query, and batch {mine.batch} asks to be written"
        raise TidemarkError("CHECKPOINT_ROLLED_BACK", what, f"restore the newest checkpoint, or {ADOPT}")
    if last.batch == mine.batch and last.offsets_hash != mine.offsets_hash:
        begun = f"batch {mine.batch} of sink {sink} was begun before with other source offsets"
        remedy = f"restore the checkpoint that began it, or {ADOPT}: it goes on with the offsets that the ledger has"
        raise TidemarkError("BATCH_CHANGED", f"{begun}; a part of it may be in the topic", remedy)
    return last.batch == mine.batch


def checkpoint_replaced(sink: str, theirs: str, batch: int, ours: str) -> TidemarkError:
    what = f"sink {sink} was written by query {theirs} up to batch {batch}, this checkpoint is of query {ours}"
    remedy = f"restore the old checkpoint, or {ADOPT}: it goes on exactly where the ledger ends"
    return TidemarkError("CHECKPOINT_REPLACED", what, remedy)


def _layout_changed(sink: str, batch: int, how: str) -> TidemarkError:
    what = f"batch {batch} of sink {sink} was begun with {how}"
    remedy = "run the code and settings that began it once more, until it has caught up, then change them"
    return TidemarkError("LAYOUT_CHANGED", what, remedy)


def _gap(sink: str, ends: str, batch: int) -> TidemarkError:
    what = f"the ledger of sink {sink} {ends}, and batch {batch} asks to be written"
    remedy = f"restore the ledger topic; for a sink that is new in an old query {ADOPT}: it begins with this batch"
    return TidemarkError("LEDGER_GAP", what, remedy)


@dataclass(frozen=True)
class Ledger:
    """A compacted topic: partition 0 for plans, partition s + 1 for shard s."""

    name: str
    replication_factor: int

    def partition_of(self, shard: int) -> int:
        return PLAN_PARTITION + 1 + shard

    def shards(self, admin: AdminClient) -> int:
        """Return how many shards have a partition."""
        metadata = admin.list_topics(self.name, timeout=SECONDS).topics[self.name]
        return max(0, len(metadata.partitions) - 1)

    def require_shards(self, admin: AdminClient, shards: int, connection: Mapping[str, Any] | None = None) -> None:
        """Create the topic, or let it grow, so that there is a partition for each of `shards`; it never shrinks.

        Args:
            connection: of the client, for the command that grants a lacking right.

        Raises:
            TidemarkError: NAME_TOO_LONG, BROKER_UNREACHABLE, KAFKA_FAILED, NOT_AUTHORIZED.
        """
        if len(self.name) > MOST_NAME:
            what = f"the ledger's name {self.name} would have {len(self.name)} characters, Kafka takes {MOST_NAME}"
            remedy = "shorten ledger.application or the topic's name, or deliver at-least-once, which keeps no ledger"
            raise TidemarkError("NAME_TOO_LONG", what, remedy)
        operations: tuple[str, ...] = ("Create", "Read", "Write", "Describe")
        partitions = self.partition_of(shards)
        try:
            metadata = admin.list_topics(self.name, timeout=SECONDS).topics[self.name]
            if metadata.error is None and len(metadata.partitions) >= partitions:
                return
            if metadata.error is not None and metadata.error.code() in CODES:
                raise KafkaException(metadata.error)
            if metadata.error is not None:
                self._create(admin, partitions)
            else:
                operations = ("Alter", *operations)
                admin.create_partitions([NewPartitions(self.name, partitions)])[self.name].result(SECONDS)
            self._await_listed(admin, shards)
        except KafkaException as exc:
            needed = [Right("topic", self.name, operations), Right("cluster", CLUSTER, ("Create",))]
            raise client_error(f"topic {self.name}", exc.args[0], needed, connection or {}) from exc

    def _create(self, admin: AdminClient, partitions: int) -> None:
        config = {
            "cleanup.policy": "compact",
            "min.insync.replicas": str(max(1, self.replication_factor - 1)),
            "unclean.leader.election.enable": "false",
        }
        new = NewTopic(self.name, partitions, self.replication_factor, config=config)
        try:
            admin.create_topics([new])[self.name].result(SECONDS)
        except KafkaException as exc:
            if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def _await_listed(self, admin: AdminClient, shards: int) -> None:
        """Wait until the partitions that the controller has made are listed: else a broker may refuse the writers."""
        until = time.monotonic() + SECONDS
        while self.shards(admin) < shards:
            if time.monotonic() > until:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            time.sleep(PAUSE_SECONDS)


def ledger_topic(sink: str) -> str:
    """Return the topic that holds the markers of the sink with that id."""
    return f"__{sink}.ledger"


def sink_of(ledger: str) -> str:
    """Return the id of the sink whose ledger that topic is."""
    return ledger.removeprefix("__").removesuffix(".ledger")


def is_ledger(topic: str, application: str) -> bool:
    """Return whether a topic is the ledger of a sink of the installation `application`."""
    return sink_of(topic).startswith(f"{application}.") and topic == ledger_topic(sink_of(topic))


def sink_rights(sink: str, topics: Iterable[str], is_prefix: bool = False, shards: bool = True) -> list[Right]:
    """Return the rights that publishing to `topics` by way of a ledger needs.

    Args:
        sink: its id, or, where `is_prefix`, what the ids of several begin with.
        shards: whether transactional ids are the sink's id, a dot and more, as for queries.
    """
    ledger = f"__{sink}" if is_prefix else ledger_topic(sink)
    ids = f"{sink}." if shards and not is_prefix else sink
    without = "a ledger.transaction_timeout_ms above the brokers' limit is known only when a transaction begins"
    return [
        *publishing(topics),
        Right("topic", ledger, ("Read", "Write", "Create", *(("Alter",) if shards else ())), is_prefix),
        Right("transactional-id", ids, ("Write",), is_prefix or shards),
        Right("cluster", CLUSTER, ("DescribeConfigs",), without=without),
    ]


def require_timeout_below_cap(admin: AdminClient, timeout_ms: int) -> None:
    """Raises TidemarkError TRANSACTION_TIMEOUT_ABOVE_CAP, where the brokers allow less."""
    try:
        broker = next(iter(admin.list_topics(timeout=SECONDS).brokers))
        resource = ConfigResource(ResourceType.BROKER, str(broker))
        entries = admin.describe_configs([resource], request_timeout=SECONDS)[resource].result(SECONDS)
    except KafkaException as exc:
        if exc.args[0].code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            return  # a user who may not read the limit learns of it from the first transaction
        raise client_error(CAP, exc.args[0], [], {}) from exc
    cap = int(entries[CAP].value)
    if timeout_ms > cap:
        what = f"ledger.transaction_timeout_ms is {timeout_ms:,}, the brokers allow {cap:,} ({CAP})"
        raise TidemarkError("TRANSACTION_TIMEOUT_ABOVE_CAP", what, "lower the setting, or raise the brokers' limit")
