"""Finds the checkpoints of queries, removes what none needs any more: replaced ones, finished replays, leftovers."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import SparkSession

from conf.durations import milliseconds
from conf.settings import Settings
from jobs import catalog
from jobs.connectors.delta.commit import REPLAYS
from jobs.connectors.hadoop_files import Entry, Folders
from jobs.operations.replay.record import FILE, Replay, ReplayPaths
from jobs.pipeline import checkpoint, paths
from jobs.pipeline.checkpoint_format import METADATA, OFFSETS
from jobs.pipeline.outputs import query_name


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

    def to_json(self) -> dict[str, Any]:
        return self.__dict__


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
            yield from self._left_over(query)
            yield self._in_use(query, jobs)
        for replay in self._replays:
            # The record stays: it says which range was replayed.
            for uri in ReplayPaths.of(self._settings, replay.id).temporary:
                if self._folders.exists(uri):
                    yield self._of_replay(uri, replay)

    def _of_replay(self, uri: str, replay: Replay) -> CleanupReport:
        why = f"replay {replay.id} is {replay.state}"
        if not replay.is_finished:
            return self._report(uri, "kept", why)
        return self._aged(uri, why, self._folders.modified(ReplayPaths.of(self._settings, replay.id).record))

    def _aged(self, uri: str, what: str, since: datetime | None) -> CleanupReport:
        age = self._now - since if since else self._keep
        if age < self._keep:
            return self._report(uri, "kept", f"{what}, {days(age)} old, kept for {days(self._keep)}")
        return self._removal(uri, f"{what}, {days(age)} old")

    def _left_over(self, query: Checkpoint) -> Iterator[CleanupReport]:
        files = list(self._folders.files(query.uri))
        uris = {file.uri for file in files}
        for file in files:
            if self._now - file.modified >= LEFT_OVER_AFTER and is_left_over(file, uris):
                yield self._removal(file.uri, "what a write left that did not end")

    def _in_use(self, query: Checkpoint, jobs: dict[str, str]) -> CleanupReport:
        batches = [entry for entry in self._folders.entries(f"{query.uri}/{OFFSETS}") if entry.name.isdecimal()]
        why = f"{len(batches):,} batches in its log, Spark keeps {self._spark.conf.get(RETAINED)}"
        if query.job not in jobs:
            why += f"; there is no job {query.job}: remove it by hand where nobody will run it again"
        return self._report(query.uri, "kept", why)

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
