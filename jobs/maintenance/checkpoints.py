"""What no query needs any more under the checkpoints root: replaced checkpoints, finished replays, leftovers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import SparkSession

from conf.durations import milliseconds
from conf.settings import Settings
from jobs import catalog
from jobs.connectors.delta_commit import REPLAYS
from jobs.folders import Entry, Folders
from jobs.maintenance.reading import days, megabytes
from jobs.maintenance.replays import Replay
from jobs.outputs import query_name
from jobs.replay.record import WORKPLACES

REPLACED = re.compile(r"\.replaced-[0-9]+$")
# Spark and Hadoop write `.NAME.UUID.tmp` and rename it; a checksum `.NAME.crc` goes with its file.
UNFINISHED = re.compile(r"^\..+\.tmp(\.crc)?$|^\.\..+\.crc$")
CHECKSUM = re.compile(r"^\.(?P<of>.+)\.crc$")
# A write that has taken so long is none any more.
LEFT_OVER_AFTER = timedelta(days=1)
OFFSETS = "offsets"
RETAINED = "spark.sql.streaming.minBatchesToRetain"


@dataclass(frozen=True)
class Finding:
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
    """The checkpoint folder of an output, as `Run.checkpoint` names it."""

    job: str
    output: str
    uri: str

    @property
    def query(self) -> str:
        return query_name(self.job, self.output)

    @property
    def is_replaced(self) -> bool:
        return bool(REPLACED.search(self.output))


def checkpoints(folders: Folders, root: str) -> Iterator[Checkpoint]:
    """Every folder under `root` that a query has used; those of replays are left out."""
    for job in folders.entries(root):
        if job.is_folder and job.name != REPLAYS:
            yield from _within(folders, job.name, job.uri, "")


def _within(folders: Folders, job: str, uri: str, parent: str) -> Iterator[Checkpoint]:
    for entry in folders.entries(uri):
        if not entry.is_folder:
            continue
        # An output's name may have slashes.
        output = f"{parent}/{entry.name}".lstrip("/")
        if {OFFSETS, "metadata"} & {each.name for each in folders.entries(entry.uri)}:
            yield Checkpoint(job, output, entry.uri)
        else:
            yield from _within(folders, job, entry.uri, output)


class Cleaning:
    """Removes what is older than `maintenance.keep`, or only says so."""

    def __init__(self, spark: SparkSession, settings: Settings, replays: list[Replay], dry_run: bool) -> None:
        self._spark, self._dry_run, self._replays = spark, dry_run, replays
        self._checkpoints = settings.paths.checkpoints
        self._keep = timedelta(milliseconds=milliseconds(settings.maintenance.keep))
        self._folders, self._now = Folders(spark), datetime.now(UTC)

    def findings(self) -> Iterator[Finding]:
        jobs = catalog.questions()
        for entry in checkpoints(self._folders, self._checkpoints):
            if entry.is_replaced:
                yield self._aged(entry.uri, "a checkpoint that was replaced", self._folders.modified(entry.uri))
                continue
            yield from self._left_over(entry)
            yield self._in_use(entry, jobs)
        for replay in self._replays:
            # The record stays: it says which range was replayed.
            places = [f"{replay.uri}/{each}" for each in WORKPLACES]
            for uri in (*places, f"{self._checkpoints}/{REPLAYS}/{replay.id}"):
                if self._folders.exists(uri):
                    yield self._of_replay(uri, replay)

    def _of_replay(self, uri: str, replay: Replay) -> Finding:
        if not replay.is_finished:
            return self._finding(uri, "kept", f"replay {replay.id} is {replay.state}")
        return self._aged(uri, f"replay {replay.id} is {replay.state}", replay.recorded)

    def _aged(self, uri: str, what: str, since: datetime | None) -> Finding:
        age = self._now - since if since else self._keep
        if age < self._keep:
            return self._finding(uri, "kept", f"{what}, {days(age)} old, kept for {days(self._keep)}")
        return self._removal(uri, f"{what}, {days(age)} old")

    def _left_over(self, checkpoint: Checkpoint) -> Iterator[Finding]:
        present = list(self._folders.files(checkpoint.uri))
        names = {entry.uri for entry in present}
        for entry in present:
            if self._now - entry.modified >= LEFT_OVER_AFTER and is_left_over(entry, names):
                yield self._removal(entry.uri, "what a write left that did not end")

    def _in_use(self, checkpoint: Checkpoint, jobs: dict[str, str]) -> Finding:
        batches = [each for each in self._folders.entries(f"{checkpoint.uri}/{OFFSETS}") if each.name.isdecimal()]
        why = f"{len(batches):,} batches in its log, Spark keeps {self._spark.conf.get(RETAINED)}"
        if checkpoint.job not in jobs:
            why += f"; there is no job {checkpoint.job}: remove it by hand where nobody will run it again"
        return self._finding(checkpoint.uri, "kept", why)

    def _removal(self, uri: str, why: str) -> Finding:
        finding = self._finding(uri, "would remove" if self._dry_run else "removed", why)
        if not self._dry_run:
            self._folders.remove(uri)
        return finding

    def _finding(self, uri: str, action: str, why: str) -> Finding:
        size = self._folders.size(uri)
        return Finding(uri.removeprefix("file:"), action, why, size.files, size.bytes)


def is_left_over(entry: Entry, present: set[str]) -> bool:
    """Whether a file is a write that did not end, or the checksum of a file that is gone."""
    if UNFINISHED.match(entry.name):
        return True
    checksum = CHECKSUM.match(entry.name)
    return bool(checksum) and entry.uri.removesuffix(entry.name) + str(checksum and checksum["of"]) not in present
