"""Finds the checkpoints of queries, removes what none needs any more, and reports what each keeps in its state."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pyspark.sql import SparkSession

from conf.setting_types import milliseconds
from conf.settings import Settings
from jobs import catalog
from jobs.connectors.causes import cause_line
from jobs.connectors.delta.log import REPLAYS
from jobs.connectors.hadoop_files import Entry, Folders
from jobs.operations.replay.record import FILE, Replay, ReplayPaths
from jobs.pipeline import checkpoint, paths, state_store
from jobs.pipeline.checkpoint_format import METADATA, OFFSETS, commit_file
from jobs.pipeline.outputs import query_name
from jobs.pipeline.state_store import PARTITIONS, Operator, start_coordinator


def megabytes(bytes: int) -> str:
    return f"{bytes / 1_000_000:,.1f} MB"


def days(age: timedelta) -> str:
    return f"{age / timedelta(days=1):.1f} days"


def read_replays(spark: SparkSession, folders: Folders, root: str) -> list[Replay]:
    """Return every replay under the tables root `root`, read as Hadoop reads files.

    Raises:
        TidemarkError: BAD_REPLAY, where a record cannot be read: then it is not known what that replay needs.
    """
    records = (f"{folder.uri}/{FILE}" for folder in folders.entries(paths.replays(root)) if folder.is_folder)
    return [Replay.from_json(checkpoint.read(spark, path) or "", path) for path in records if folders.exists(path)]


# Spark and Hadoop write `.NAME.UUID.tmp` and rename it; a checksum `.NAME.crc` goes with its file.
UNFINISHED = re.compile(r"^\..+\.tmp(\.crc)?$|^\.\..+\.crc$")
CHECKSUM = re.compile(r"^\.(?P<file>.+)\.crc$")
# Temporary files older than this are abandoned.
LEFT_OVER_AFTER = timedelta(days=1)
RETAINED = "spark.sql.streaming.minBatchesToRetain"


@dataclass(frozen=True)
class CleanupReport:
    """Something under the checkpoints root (or a replay's tables) and what became of it.

    Args:
        action: "removed", "would remove" or "kept".
    """

    what: str
    action: str
    why: str
    files: int = 0
    bytes: int = 0

    def lines(self) -> Iterator[str]:
        yield f"{self.what:<48} {self.action}: {self.why}, {self.files:,} files, {megabytes(self.bytes)}"


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint folder of an output, as `Run.checkpoint` names it.

    Args:
        is_replaced: whether it was moved aside, and no query goes on with it.
    """

    job: str
    output: str
    uri: str
    is_replaced: bool = False

    @property
    def query(self) -> str:
        return query_name(self.job, self.output)


def find_checkpoints(folders: Folders, root: str) -> Iterator[Checkpoint]:
    """Yield every folder under `root` that a query has used; those of replays are left out."""
    for job in folders.entries(root):
        if job.is_folder and job.name != REPLAYS:
            yield from _within(folders, job.name, job.uri, "")


def _within(folders: Folders, job: str, uri: str, parent: str) -> Iterator[Checkpoint]:
    for entry in folders.entries(uri):
        if not entry.is_folder:
            continue
        # An output's name may have slashes.
        output = f"{parent}/{entry.name}".lstrip("/")
        if {OFFSETS, METADATA} & {file.name for file in folders.entries(entry.uri)}:
            yield Checkpoint(job, output, entry.uri, _is_replaced(folders, job, output, entry.uri))
        else:
            yield from _within(folders, job, entry.uri, output)


def _is_replaced(folders: Folders, job: str, output: str, uri: str) -> bool:
    mark = paths.REPLACED.search(output)
    if not mark:
        return False
    # An output may be called so itself: its own checkpoint names it, one that was moved aside the other query.
    try:
        query = json.loads(folders.read(f"{uri}/{paths.STARTED_FILE}") or "")["query"]
    except (ValueError, KeyError, TypeError):
        return mark[0].startswith("~") or folders.exists(uri.rstrip("/").removesuffix(mark[0]))
    return bool(query == query_name(job, output[: mark.start()]))


class CheckpointCleanup:
    """Removes what is older than `maintenance.keep`, or only says so."""

    def __init__(self, spark: SparkSession, settings: Settings, replays: list[Replay], dry_run: bool) -> None:
        self._spark, self._settings, self._replays, self._dry_run = spark, settings, replays, dry_run
        self._keep = timedelta(milliseconds=milliseconds(settings.maintenance.keep))
        self._folders, self._now = Folders(spark), datetime.now(UTC)

    def reports(self) -> Iterator[CleanupReport]:
        """Look at everything, remove what is too old, and say so of each."""
        jobs = catalog.questions()
        for query in find_checkpoints(self._folders, self._settings.paths.checkpoints):
            if query.is_replaced:
                yield self._aged(query.uri, "a checkpoint that was replaced", self._folders.modified(query.uri))
                continue
            yield from self._leftovers(query)
            batches = [entry for entry in self._folders.entries(f"{query.uri}/{OFFSETS}") if entry.name.isdecimal()]
            why = f"{len(batches):,} batches in its log, Spark keeps {self._spark.conf.get(RETAINED)}"
            if query.job not in jobs:
                why += f"; there is no job {query.job}: remove it by hand where nobody will run it again"
            yield self._report(query.uri, "kept", why)
        for replay in self._replays:
            # The record stays: it says which range was replayed.
            places, why = ReplayPaths(self._settings, replay.id), f"replay {replay.id} is {replay.state}"
            for uri in filter(self._folders.exists, places.temporary):
                if replay.is_finished:
                    yield self._aged(uri, why, self._folders.modified(places.record))
                else:
                    yield self._report(uri, "kept", why)

    def _aged(self, uri: str, what: str, since: datetime | None) -> CleanupReport:
        age = self._now - since if since else self._keep
        if age < self._keep:
            return self._report(uri, "kept", f"{what}, {days(age)} old, kept for {days(self._keep)}")
        return self._removal(uri, f"{what}, {days(age)} old")

    def _leftovers(self, query: Checkpoint) -> Iterator[CleanupReport]:
        files = list(self._folders.files(query.uri))
        uris = {file.uri for file in files}
        for file in files:
            if self._now - file.modified >= LEFT_OVER_AFTER and is_left_over(file, uris):
                yield self._removal(file.uri, "what a write left that did not end")

    def _removal(self, uri: str, why: str) -> CleanupReport:
        report = self._report(uri, "would remove" if self._dry_run else "removed", why)
        if not self._dry_run:
            self._folders.remove(uri)
        return report

    def _report(self, uri: str, action: str, why: str) -> CleanupReport:
        size = self._folders.size(uri)
        return CleanupReport(uri.removeprefix("file:"), action, why, size.files, size.bytes)


def is_left_over(file: Entry, present: set[str]) -> bool:
    """Return whether a file is a write that did not end, or the checksum of a file that is not in `present` (URIs)."""
    if UNFINISHED.match(file.name):
        return True
    checksum = CHECKSUM.match(file.name)
    return checksum is not None and file.uri.removesuffix(file.name) + checksum["file"] not in present


@dataclass(frozen=True)
class StateReport:
    """The state that one stateful operator of a query keeps.

    Args:
        rows: None where they could not be read; `problem` says why.
        bytes: on disk, of all batches that are kept.
        schemas: `key` and `value` of each column family, as DDL.
        batch: the last that was committed, at `committed`.
    """

    query: str
    operator: int
    name: str
    partitions: int
    rows: int | None
    files: int
    bytes: int
    schemas: tuple[dict[str, str], ...]
    batch: int | None
    committed: datetime | None
    problem: str = ""

    def lines(self) -> Iterator[str]:
        rows = "rows unknown" if self.rows is None else f"{self.rows:,} rows"
        at = f"batch {self.batch}" + (f" at {self.committed:%Y-%m-%d %H:%M:%S}" if self.committed else "")
        content = f"{rows}  {megabytes(self.bytes)}  {self.partitions} partitions  {at}"
        problem = f"  PROBLEM {self.problem}" if self.problem else ""
        yield f"{self.query:<28} {self.operator} {self.name:<24} {content}{problem}"
        for schema in self.schemas:
            yield f"{'':<28}   {schema['family']}: {schema['key']} -> {schema['value']}"


def state_reports(spark: SparkSession, root: str) -> Iterator[StateReport]:
    """Report on every stateful operator of every query with a checkpoint under `root`."""
    folders = Folders(spark)
    start_coordinator(spark)
    for query in find_checkpoints(folders, root):
        batch = checkpoint.last_commit(spark, query.uri)
        if not query.is_replaced and batch is not None:
            for operator in state_store.operators(spark, query.uri):
                yield _report(spark, folders, query, operator, batch)


def _report(spark: SparkSession, folders: Folders, query: Checkpoint, operator: Operator, batch: int) -> StateReport:
    rows, problem = None, ""
    try:
        rows = state_store.rows(spark, query.uri, operator)
    except Exception as exc:
        problem = cause_line(exc)
    size = folders.size(f"{query.uri}/{state_store.STATE}/{operator.number}")
    return StateReport(
        query.query,
        operator.number,
        operator.name,
        # The state metadata may still have an older number of partitions.
        int(checkpoint.conf(spark, query.uri, batch).get(PARTITIONS, operator.partitions)),
        rows,
        size.files,
        size.bytes,
        tuple(_schema_fields(family) for family in operator.families),
        batch,
        folders.modified(f"{query.uri}/{commit_file(batch)}"),
        problem,
    )


def _schema_fields(family: state_store.Family) -> dict[str, str]:
    name = family.name if family.store == state_store.DEFAULT_STORE else f"{family.store}.{family.name}"
    return {"family": name, "key": family.key.simpleString(), "value": family.value.simpleString()}
