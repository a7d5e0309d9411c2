"""The tables under the root: which there are, what is worth doing to each, and doing it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

from pyspark.sql import SparkSession

from conf.durations import milliseconds
from conf.settings import Maintenance, Settings
from jobs.connectors import delta_upkeep as upkeep
from jobs.connectors.delta_commit import RANGE, REPLAYS
from jobs.connectors.delta_upkeep import Files
from jobs.failures import cause_line
from jobs.folders import Folders, Size
from jobs.maintenance.reading import megabytes
from jobs.maintenance.replays import Replay

MB = 1024 * 1024
LOG = "_delta_log"
# Between a version's commit and its time in the log, and between clocks of several machines.
SLACK = timedelta(hours=1)


@dataclass(frozen=True)
class TableReport:
    """What was done to a table; `stored` counts everything in its folder, the log too.

    Args:
        compaction, vacuum: what was done, or why nothing was.
        failed: the cause, where something went wrong; empty otherwise.
    """

    table: str
    before: Files
    after: Files
    stored_before: Size
    stored_after: Size
    compaction: str
    vacuum: str
    seconds: float
    failed: str = ""

    def lines(self) -> Iterator[str]:
        if self.failed:
            yield f"{self.table:<28} FAILED {self.failed}"
            return
        files = f"files {self.before.count:,} -> {self.after.count:,}"
        stored = f"stored {megabytes(self.stored_before.bytes)} -> {megabytes(self.stored_after.bytes)}"
        yield f"{self.table:<28} {files}  {stored}  {self.compaction}; {self.vacuum}  {self.seconds:.1f} s"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def table_names(folders: Folders, root: str, within: str = "") -> Iterator[str]:
    """Every Delta table under `root`, by its path there; tables of replays and of bounded ranges are left out."""
    entries = [entry for entry in folders.entries(f"{root}/{within}" if within else root) if entry.is_folder]
    if any(entry.name == LOG for entry in entries):
        yield within
        return
    for entry in entries:
        is_left_out = not within and (entry.name == REPLAYS or entry.name.startswith(RANGE))
        if not is_left_out and not entry.name.startswith((".", "_")):
            yield from table_names(folders, root, f"{within}/{entry.name}".lstrip("/"))


class Upkeep:
    """Looks after tables one by one: one that fails holds up no other."""

    def __init__(self, spark: SparkSession, settings: Settings, replays: list[Replay], dry_run: bool) -> None:
        self._spark, self._root, self._limits = spark, settings.paths.tables, settings.maintenance
        self._replays, self._dry_run = replays, dry_run
        self._folders = Folders(spark)

    def reports(self) -> Iterator[TableReport]:
        for name in table_names(self._folders, self._root):
            yield self._report(name)

    def _report(self, name: str) -> TableReport:
        began, path = monotonic(), f"{self._root}/{name}"
        before, stored = Files(0, 0, 0, 0), self._folders.size(path)
        try:
            before = self._files(path)
            compaction = self._compact(path, before)
            vacuum = self._vacuum(name, path)
            after, failed = self._files(path), ""
        except Exception as exc:
            compaction, vacuum, after, failed = "", "", before, cause_line(str(exc))
        seconds = round(monotonic() - began, 1)
        now = self._folders.size(path)
        return TableReport(name, before, after, stored, now, compaction, vacuum, seconds, failed)

    def _files(self, path: str) -> Files:
        return upkeep.data_files(self._spark, path, self._limits.small_file_mb * MB)

    def _compact(self, path: str, files: Files) -> str:
        if files.crowd < self._limits.small_files:
            return f"left alone: {files.crowd} small files in a partition, {self._limits.small_files} are worth it"
        if self._dry_run:
            return f"would compact {files.small:,} small files"
        sizes = self._limits.small_file_mb * MB, self._limits.target_file_mb * MB
        compacted = upkeep.compact(self._spark, path, *sizes)
        return "left alone: writers were in the way" if compacted is None else f"compacted {compacted:,} small files"

    def _vacuum(self, name: str, path: str) -> str:
        needed = [(replay, self._needed_since(replay, name, path)) for replay in self._replays if name in replay.tables]
        gone = [replay.id for replay, since in needed if since is None]
        if gone:
            return f"not vacuumed: replay {gone[0]} needs a version that the log no longer has"
        keep, why = kept(
            self._limits,
            upkeep.retention(self._spark, path),
            {replay.id: since for replay, since in needed if since},
            datetime.now(UTC),
        )
        count = upkeep.vacuum(self._spark, path, keep, not self._limits.allow_short_keep, self._dry_run)
        done = f"would vacuum {count:,} files" if self._dry_run else "vacuumed"
        return f"{done}, kept {keep / timedelta(days=1):.1f} days ({why})"

    def _needed_since(self, replay: Replay, name: str, path: str) -> datetime | None:
        return upkeep.version_time(self._spark, path, replay.tables[name])


def kept(limits: Maintenance, own: timedelta, replays: dict[str, datetime], now: datetime) -> tuple[timedelta, str]:
    """How long a table's removed files stay, and who wants it so.

    Args:
        own: the table's own retention, which `allow_short_keep` sets aside.
        replays: since when each open replay needs the table.
    """
    wanted = {"maintenance.keep": timedelta(milliseconds=milliseconds(limits.keep))}
    if not limits.allow_short_keep:
        wanted["the table's own retention"] = own
    wanted |= {f"replay {id}": now - since + SLACK for id, since in replays.items()}
    why = max(wanted, key=lambda name: wanted[name])
    return wanted[why], why
