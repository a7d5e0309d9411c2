"""Defines the markers of a ledger (plans by the driver, others by the writers), and what follows from the last one.

Markers are JSON records of the topic in `ledger_topic`: plans lie in partition 0, shard s in partition s + 1.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

from jobs.connectors.exactly_once import errors
from jobs.connectors.exactly_once.authors import Author, this_process

Layout = Literal["source", "state", "key", "whole"]
PLAN = "plan"
DONE = "done"
OPEN = "open"
PUBLISHED = "published"
Progress = Literal["none", "some", "all"]  # of a batch, by its markers


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
class Plan:
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

    id: BatchId
    layout: Layout
    shards: int
    fingerprint: str = ""
    topics: dict[str, str] = field(default_factory=dict)
    checkpoint: dict[str, str] = field(default_factory=dict)
    stateful: bool = False
    code: str = ""
    accepted: bool = False

    def to_json(self) -> bytes:
        return _to_json(PLAN, self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        return cls(**_known(cls, record) | {"id": BatchId(**record["id"])})


@dataclass(frozen=True)
class Done:
    """A shard of a batch is in the output: `n` records, whose hashes add up to `checksum` (modulo 2^64)."""

    id: BatchId
    shard: int
    n: int = 0
    checksum: int = 0
    topics: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        return _to_json(DONE, self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        return cls(**_known(cls, record) | {"id": BatchId(**record["id"]), "topics": tuple(record["topics"])})


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

    read: int = 0
    rejected: int = 0
    delivered: dict[str, int] = field(default_factory=dict)
    complete: bool = False
    topic_ids: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    run: str = ""

    def to_json(self) -> bytes:
        return _to_json(PUBLISHED, self)


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


def plan_due(last: Plan | None, wanted: Plan, sink: str) -> Plan:
    """Return the plan to follow for `wanted.id`: `wanted` itself, to be committed, or the same batch's, taken over.

    Raises:
        TidemarkError: CHECKPOINT_REPLACED, CHECKPOINT_ROLLED_BACK, BATCH_CHANGED, LEDGER_GAP, TOPIC_RECREATED.
    """
    mine = wanted.id
    if last is None:
        if mine.batch > 0:
            raise errors.ledger_gap(sink, None, mine.batch)
        return wanted
    _require_same_topics(last, wanted, sink)
    if not is_same_batch(last.id, mine, sink):
        if last.id.batch < mine.batch - 1:
            raise errors.ledger_gap(sink, last.id.batch, mine.batch)
        return replace(wanted, topics=last.topics | wanted.topics)
    is_cut_alike = (wanted.layout, wanted.fingerprint) == (last.layout, last.fingerprint)
    if last.layout == "source" and not is_cut_alike:
        raise errors.layout_changed(sink, mine.batch, "a shard for each source partition, and the query now shuffles")
    if last.layout == "state" and not (is_cut_alike and wanted.shards == last.shards):
        how = f"a shard for each of {last.shards} partitions of its state, and the query now has others, or none"
        raise errors.layout_changed(sink, mine.batch, how)
    return last


def is_done(last: Done | None, mine: BatchId, sink: str) -> bool:
    """Return whether the shard whose last marker is given has written the batch;
    the plan has proved the batch before it.

    Raises:
        TidemarkError: CHECKPOINT_REPLACED, CHECKPOINT_ROLLED_BACK, BATCH_CHANGED.
    """
    return last is not None and is_same_batch(last.id, mine, sink)


def is_same_batch(last: BatchId, mine: BatchId, sink: str) -> bool:
    """Return whether `last`, which a ledger ends with, is the batch `mine`; raises what `is_done` does."""
    if last.query_id != mine.query_id:
        raise errors.checkpoint_replaced(sink, last.query_id, last.batch, mine.query_id)
    if last.batch > mine.batch:
        raise errors.checkpoint_rolled_back(sink, last.batch, mine.batch)
    if last.batch == mine.batch and last.offsets_hash != mine.offsets_hash:
        raise errors.other_offsets(sink, mine.batch)
    return last.batch == mine.batch


def _require_same_topics(last: Plan, wanted: Plan, sink: str) -> None:
    for topic in sorted(last.topics.keys() & wanted.topics.keys()):
        if last.topics[topic] != wanted.topics[topic]:
            raise errors.topic_recreated(sink, topic)


def _to_json(kind: str, marker: Any) -> bytes:
    return json.dumps({"kind": kind, **asdict(marker)}).encode()


def _known(cls: Any, record: dict[str, Any]) -> dict[str, Any]:
    # A marker of a newer version of this code may say more.
    return {known.name: record[known.name] for known in fields(cls) if known.name in record}


def parse(value: bytes | None) -> Plan | Done | None:
    """Parse a plan, done or published marker; None for what marks no progress."""
    record = json.loads(value) if value else {}
    if record.get("kind") == PUBLISHED:
        return Published.from_record(record)
    if record.get("kind") == PLAN:
        return Plan.from_record(record)
    return Done.from_record(record) if record.get("kind") == DONE else None
