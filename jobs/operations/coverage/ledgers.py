"""Reads what ledgers and checkpoints say of output topics: which offsets are published, and which batch is not."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Message
from confluent_kafka.admin import AdminClient
from pyarrow import fs

from jobs.connectors.delta.log import REPLAYS
from jobs.connectors.exactly_once.ledger_topic import PLAN_PARTITION
from jobs.connectors.exactly_once.markers import Done, Plan, parse
from jobs.connectors.files import lacks_folder, storage
from jobs.connectors.kafka.consumer import ReadCommittedConsumer
from jobs.connectors.kafka.offsets import Edges, edges
from jobs.operations.coverage.query_offsets import Key, OffsetCommit, QueryOffsets, query_offsets_of
from jobs.pipeline.checkpoint_format import COMMITS, METADATA, batch_offsets
from jobs.pipeline.paths import SHARED, SOURCE_TOPICS_FILE, STARTED_FILE

DEEPEST = 5


def topic_ids_by_query(root: str) -> dict[str, dict[str, str]]:
    """Return the ids of source topics by name, by query id,
    of the checkpoints in the folder `root` and the folders in it.

    A file that is damaged is left out: the query itself stops by it.
    """
    ids_by_query: dict[str, dict[str, str]] = {}
    for files, folder in checkpoints_under(root):
        metadata, ids = (_json(files, f"{folder}/{name}") for name in (METADATA, SOURCE_TOPICS_FILE))
        if "id" in metadata:
            ids_by_query[metadata["id"]] = ids
    return ids_by_query


def written_tables(root: str) -> dict[str, str]:
    """Return the tables that queries with a finished batch write, by the name of each: the query's.

    Tables that queries share are left out: they are made when there is something for them. A description that is
    damaged, or lacking, is left out, too.
    """
    queries: dict[str, str] = {}
    for files, folder in checkpoints_under(root):
        batches = files.get_file_info(fs.FileSelector(f"{folder}/{COMMITS}", allow_not_found=True))
        if not any(info.base_name.isdecimal() for info in batches) or f"/{REPLAYS}/" in folder:
            continue
        description = _json(files, f"{folder}/{STARTED_FILE}")
        with suppress(LookupError, TypeError):
            queries |= {table["table"]: description["query"] for table in description["tables"]}
    return {name: query for name, query in queries.items() if name not in SHARED}


def checkpoints_under(root: str) -> Iterator[tuple[fs.FileSystem, str]]:
    """Yield each checkpoint in the folder `root` and the folders in it, with the file system that it lies in."""
    if lacks_folder(root):
        return
    files, base = storage(root)
    for folder in _checkpoints(files, base.rstrip("/"), DEEPEST):
        yield files, folder


def _checkpoints(files: fs.FileSystem, folder: str, depth: int) -> Iterator[str]:
    infos = files.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    if any(info.base_name == METADATA and info.type == fs.FileType.File for info in infos):
        yield folder
    elif depth:
        for info in infos:
            if info.type == fs.FileType.Directory:
                yield from _checkpoints(files, info.path, depth - 1)


def _json(files: fs.FileSystem, path: str) -> dict[str, Any]:
    try:
        with files.open_input_stream(path) as file:
            fields = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


PUBLISH = "publish"  # the statement that a sink's batches count as
# A plan takes three offsets, and the newest one is within the last few; of these batches the links are verified.
PLAN_TAIL = 256
VERIFIED_TAIL = 3_000
# The last marker of a shard is within the last few, unless transactions were aborted again and again.
SHARD_TAIL = 256


@dataclass(frozen=True)
class SinkCoverage:
    """Says what an output topic holds, by the ledger of its sink.

    Args:
        sink: its id, which names the ledger.
        topics: the output topics' ids by name.
        source_topics: the source topics' ids by name, as the query's checkpoint knew them.
        chain: of the batches that are published whole; None where the ledger says nothing of offsets.
        batch: the newest batch that was begun.
        records: that it has published so far.
        shards: how many there are of it; `missing`: those that are not published.
    """

    sink: str
    topics: dict[str, str]
    source_topics: dict[str, str]
    chain: QueryOffsets | None
    batch: int
    records: int
    shards: int
    missing: tuple[int, ...]
    at: datetime | None

    @property
    def query(self) -> str:
        """Return the name of the query that feeds it."""
        return self.sink.split(".", 1)[-1]


def sink_coverages(
    admin: AdminClient, reader: ReadCommittedConsumer, application: str, verify: bool = False
) -> list[SinkCoverage]:
    """Return every sink of the installation `application` that has published, by its id.

    Args:
        verify: read more than the newest batches, so that the links between them can be verified.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    begin, end = f"__{application}.", ".ledger"
    names = [
        name for name in sorted(admin.list_topics(timeout=30).topics) if name.startswith(begin) and name.endswith(end)
    ]
    ends = edges(admin, names)
    most = VERIFIED_TAIL if verify else PLAN_TAIL
    found = (_sink(reader, name, {p: at for (topic, p), at in ends.items() if topic == name}, most) for name in names)
    return [sink for sink in found if sink is not None]


def _sink(reader: ReadCommittedConsumer, ledger: str, ends: dict[int, Edges], most: int) -> SinkCoverage | None:
    plans = _plans(reader, ledger, ends, most)
    if not plans:
        return None  # a publisher's ledger, or one without a batch
    newest, message = plans[-1]
    done = [_done(reader, ledger, shard, ends) for shard in range(newest.shards)]
    missing = tuple(n for n, marker in enumerate(done) if marker is None or marker.id != newest.id)
    sink = ledger.removeprefix("__").removesuffix(".ledger")
    commits = [_offset_commit(sink, plan, written) for plan, written in plans]
    if missing:
        commits[-1] = _commit_before(commits[-1])
    offset_commits = [commit for commit in commits if commit is not None]
    return SinkCoverage(
        sink,
        newest.topics,
        dict(json.loads(newest.checkpoint.get(SOURCE_TOPICS_FILE) or "{}")),
        query_offsets_of(_of_newest_query(offset_commits)) if offset_commits else None,
        newest.id.batch,
        sum(marker.n for n, marker in enumerate(done) if marker is not None and n not in missing),
        newest.shards,
        missing,
        _time(message),
    )


def _plans(reader: ReadCommittedConsumer, ledger: str, ends: dict[int, Edges], most: int) -> list[tuple[Plan, Message]]:
    """Read the plans within the last `most` offsets; where none is there, all."""
    everything = ends[PLAN_PARTITION].end if PLAN_PARTITION in ends else 0
    for behind in (most, everything):
        tail = _tail(reader, ledger, PLAN_PARTITION, ends, behind)
        parsed = [(parse(message.value()), message) for message in tail]
        plans = [(plan, message) for plan, message in parsed if isinstance(plan, Plan)]
        if plans or behind >= everything:
            return plans
    return []


def _tail(
    reader: ReadCommittedConsumer, ledger: str, partition: int, ends: dict[int, Edges], most: int
) -> list[Message]:
    if partition not in ends or ends[partition].first == ends[partition].end:
        return []
    return reader.tail(ledger, partition, max(ends[partition].first, ends[partition].end - most))


def _done(reader: ReadCommittedConsumer, ledger: str, shard: int, ends: dict[int, Edges]) -> Done | None:
    messages = _tail(reader, ledger, PLAN_PARTITION + 1 + shard, ends, SHARD_TAIL)
    markers = [parse(message.value()) for message in messages]
    return next((marker for marker in reversed(markers) if isinstance(marker, Done)), None)


def _offset_commit(sink: str, plan: Plan, message: Message) -> OffsetCommit | None:
    """Return which offsets the plan's batch took; None for a plan that only marks where a ledger begins anew."""
    offsets: dict[str, Any] = batch_offsets(plan.checkpoint, plan.id.batch)
    if offsets["until"] is None:
        return None
    key = Key(sink, plan.id.query_id, PUBLISH)
    return OffsetCommit(key, plan.id.batch, int(message.offset() or 0), _time(message), True, offsets)


def _commit_before(begun: OffsetCommit | None) -> OffsetCommit | None:
    """Return the offsets that the batches took before one that is not published whole."""
    if begun is None or begun.sources["from"] is None:
        return None
    ends = {"from": None, "until": begun.sources["from"], "since": begun.sources["since"]}
    return replace(begun, batch=begun.batch - 1, sources=ends)


def _of_newest_query(offset_commits: Sequence[OffsetCommit]) -> list[OffsetCommit]:
    """Select the commits of the newest one's query, a batch once: taking over topics writes a plan again."""
    by_batch: dict[int, OffsetCommit] = {}
    for commit in offset_commits:
        if commit.key == offset_commits[-1].key:
            # A plan that says where the batch began is better than what `_commit_before` made of its successor.
            by_batch[commit.batch] = by_batch.get(commit.batch, commit) if commit.sources["from"] is None else commit
    return [by_batch[batch] for batch in sorted(by_batch)]


def _time(message: Message) -> datetime | None:
    milliseconds = message.timestamp()[1]
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds > 0 else None
