"""Reads what all tables hold, by their commits, and all output topics, by their ledgers."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Message
from confluent_kafka.admin import AdminClient
from pyarrow import fs

from conf.errors import TidemarkError, nearest
from conf.settings import Settings
from jobs.connectors.delta.log import REPLAYS, log_damaged, tables_under
from jobs.connectors.exactly_once.ledger import PLAN_PARTITION, Done, Plan, is_ledger, parse, sink_of
from jobs.connectors.files import lacks_folder, storage
from jobs.connectors.kafka.consumer import ReadCommittedConsumer
from jobs.connectors.kafka.offsets import Edges, edges
from jobs.operations.coverage.query_offsets import Key, OffsetCommit, QueryOffsets, query_offsets_of
from jobs.operations.coverage.tables import TableCoverage, table_coverage
from jobs.pipeline import paths
from jobs.pipeline.checkpoint_format import COMMITS, METADATA, batch_offsets
from jobs.pipeline.paths import lost_table_remedy

DEEPEST = 5  # folders of checkpoints within folders
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


@dataclass(frozen=True)
class Coverage:
    """The offsets that tables, by name, and the sinks of output topics hold.

    Args:
        missing: tables that are not there, though queries have written them, by name: the query's.
    """

    tables: dict[str, TableCoverage]
    sinks: list[SinkCoverage]
    missing: Mapping[str, str] = field(default_factory=dict)

    def only(self, names: Sequence[str]) -> "Coverage":
        """Choose those that are named, lie in a named folder, are of a named query, or read or write a named topic.

        Raises:
            TidemarkError: NOTHING_COVERED, with the nearest name.
        """
        if not names:
            return self
        of_tables = {
            name: {*_folders(name), *topics_of(table.chains), *(chain.key.sink for chain in table.chains)}
            for name, table in self.tables.items()
        }
        of_sinks = {
            sink.sink: {sink.sink, sink.query, *sink.topics, *topics_of([sink.chain] if sink.chain else [])}
            for sink in self.sinks
        }
        of_missing = {name: {*_folders(name), query} for name, query in self.missing.items()}
        known = set().union(*of_tables.values(), *of_sinks.values(), *of_missing.values())
        for name in names:
            if name not in known:
                what = f"there is no table, folder of tables or topic `{name}` that has anything to cover"
                raise TidemarkError("NOTHING_COVERED", what, nearest(name, sorted(known)))
        chosen = set(names)
        tables = {name: self.tables[name] for name, table_names in of_tables.items() if table_names & chosen}
        missing = {name: query for name, query in self.missing.items() if of_missing[name] & chosen}
        return Coverage(tables, [sink for sink in self.sinks if of_sinks[sink.sink] & chosen], missing)


def _folders(table: str) -> Iterable[str]:
    """Return the folders that a table lies in, and its own name."""
    parts = table.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))


def topics_of(chains: Iterable[QueryOffsets]) -> set[str]:
    """Return the topics that chains have read."""
    return {span.topic for chain in chains for span in chain.spans}


def read_coverage(
    settings: Settings, admin: AdminClient | None, reader: ReadCommittedConsumer, verify: bool
) -> Coverage:
    """Read what all tables and output topics hold.

    Args:
        admin: None leaves the output topics out.
        verify: see `table_coverage`.

    Raises:
        TidemarkError: TABLE_LOG_DAMAGED, KAFKA_FAILED.
    """
    root = settings.paths.tables
    # Before the tables: a query that begins meanwhile has made its tables by its first finished batch.
    written = written_tables(settings.paths.checkpoints)
    tables = {name: read_table(root, name, verify) for name in tables_under(root)}
    covering = {name: table for name, table in tables.items() if table.chains or table.replaced or table.undone}
    # `len` of a client is the length of its queue: an idle one would count as false.
    in_sinks = [] if admin is None else sink_coverages(admin, reader, settings.ledger.application, verify)
    return Coverage(covering, in_sinks, {name: query for name, query in written.items() if name not in tables})


def read_table(root: str, name: str, verify: bool = False) -> TableCoverage:
    """Read what one table holds; errors as `table_coverage`, and for a log without a commit."""
    table = table_coverage(paths.table(root, name), verify, lost_table_remedy(name))
    if table.version < 0:
        raise log_damaged(table.path, "it has no commit", table.anew)
    return table


def topic_ids_by_query(root: str) -> dict[str, dict[str, str]]:
    """Return the ids of source topics by name, by query id, of the checkpoints under the folder `root`.

    A file that is damaged is left out: the query itself stops by it.
    """
    ids_by_query: dict[str, dict[str, str]] = {}
    for files, folder in _checkpoints(root):
        metadata, ids = (_json(files, f"{folder}/{name}") for name in (METADATA, paths.SOURCE_TOPICS_FILE))
        if "id" in metadata:
            ids_by_query[metadata["id"]] = ids
    return ids_by_query


def written_tables(root: str) -> dict[str, str]:
    """Return the tables that queries with a finished batch write, by the name of each: the query's.

    Tables that queries share are left out: they are made when there is something for them. A description that is
    damaged, or lacking, is left out, too.
    """
    queries: dict[str, str] = {}
    for files, folder in _checkpoints(root):
        batches = files.get_file_info(fs.FileSelector(f"{folder}/{COMMITS}", allow_not_found=True))
        if not any(info.base_name.isdecimal() for info in batches) or f"/{REPLAYS}/" in folder:
            continue
        description = _json(files, f"{folder}/{paths.STARTED_FILE}")
        with suppress(LookupError, TypeError):
            queries |= {table["table"]: description["query"] for table in description["tables"]}
    return {name: query for name, query in queries.items() if name not in paths.SHARED}


def _checkpoints(root: str) -> Iterator[tuple[fs.FileSystem, str]]:
    """Yield each checkpoint under the folder `root`, with the file system that it lies in."""
    if lacks_folder(root):
        return
    files, base = storage(root)
    folders = [base.rstrip("/")]
    for _ in range(DEEPEST + 1):
        deeper: list[str] = []
        for folder in folders:
            infos = files.get_file_info(fs.FileSelector(folder, allow_not_found=True))
            if any(info.base_name == METADATA and info.type == fs.FileType.File for info in infos):
                yield files, folder
            else:
                deeper += [info.path for info in infos if info.type == fs.FileType.Directory]
        folders = deeper


def _json(files: fs.FileSystem, path: str) -> dict[str, Any]:
    try:
        with files.open_input_stream(path) as file:
            fields = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


def sink_coverages(
    admin: AdminClient, reader: ReadCommittedConsumer, application: str, verify: bool = False
) -> list[SinkCoverage]:
    """Return every sink of the installation `application` that has published, by its id.

    Args:
        verify: read more than the newest batches, so that the links between them can be verified.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    names = sorted(name for name in admin.list_topics(timeout=30).topics if is_ledger(name, application))
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
    sink = sink_of(ledger)
    commits = [_offset_commit(sink, plan, written) for plan, written in plans]
    if missing:
        commits[-1] = _commit_before(commits[-1])
    offset_commits = [commit for commit in commits if commit is not None]
    return SinkCoverage(
        sink,
        newest.topics,
        dict(json.loads(newest.checkpoint.get(paths.SOURCE_TOPICS_FILE) or "{}")),
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
