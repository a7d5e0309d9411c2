"""Compacts and vacuums the tables: one that fails holds up no other, and open replays keep what they need."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

from pyspark.sql import SparkSession

from conf.setting_types import milliseconds
from conf.settings import Maintenance, Settings
from jobs.connectors.causes import cause_line
from jobs.connectors.delta import maintenance as delta_maintenance
from jobs.connectors.delta.commit import RANGE
from jobs.connectors.delta.log import REPLAYS
from jobs.connectors.delta.maintenance import Files
from jobs.connectors.hadoop_files import Folders, Size
from jobs.operations.maintenance.checkpoints import days, megabytes
from jobs.operations.replay.record import Replay
from jobs.pipeline import paths
from jobs.pipeline.monitoring import micro_batch_table

MB = 1024 * 1024
LOG = "_delta_log"
SLACK = timedelta(hours=1)  # clock skew between machines, and between a version's commit and its time in the log


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


class TableMaintenance:
    """Compacts and vacuums tables one by one: one that fails holds up no other, open replays keep what they need."""

    def __init__(self, spark: SparkSession, settings: Settings, replays: list[Replay], dry_run: bool) -> None:
        self._spark, self._root, self._limits = spark, settings.paths.tables, settings.maintenance
        self._settings = settings
        self._replays, self._dry_run = [replay for replay in replays if not replay.is_finished], dry_run
        self._folders = Folders(spark)

    def reports(self) -> Iterator[TableReport]:
        for name in table_names(self._folders, self._root):
            yield self._report(name)
        if self._folders.exists(f"{paths.table(self._root, paths.MICRO_BATCHES)}/{LOG}"):
            if not self._dry_run:
                age = timedelta(milliseconds=milliseconds(self._settings.history.keep))
                micro_batch_table.expire(self._settings, datetime.now(UTC) - age)
            yield self._report(paths.MICRO_BATCHES)

    def _report(self, name: str) -> TableReport:
        began, path = monotonic(), paths.table(self._root, name)
        before, stored = Files(0, 0, 0, 0), self._folders.size(path)
        try:
            before = self._files(path)
            compaction = self._compact(path, before)
            vacuum = self._vacuum(name, path)
            after, failed = self._files(path), ""
        except Exception as exc:
            compaction, vacuum, after, failed = "", "", before, cause_line(exc)
        seconds = round(monotonic() - began, 1)
        now = self._folders.size(path)
        return TableReport(name, before, after, stored, now, compaction, vacuum, seconds, failed)

    def _files(self, path: str) -> Files:
        return delta_maintenance.data_files(self._spark, path, self._limits.small_file_mb * MB)

    def _compact(self, path: str, files: Files) -> str:
        if files.crowd < self._limits.small_files:
            return f"left alone: {files.crowd} small files in a partition, {self._limits.small_files} are worth it"
        if self._dry_run:
            return f"would compact {files.small:,} small files"
        sizes = self._limits.small_file_mb * MB, self._limits.target_file_mb * MB
        compacted = delta_maintenance.compact(self._spark, path, *sizes)
        return "left alone: writers were in the way" if compacted is None else f"compacted {compacted:,} small files"

    def _vacuum(self, name: str, path: str) -> str:
        since = {
            replay.id: delta_maintenance.version_time(self._spark, path, replay.table_versions[name])
            for replay in self._replays
            if name in replay.table_versions
        }
        retention, why = longest_retention(
            self._limits,
            delta_maintenance.retention(self._spark, path),
            {id: time for id, time in since.items() if time},
            datetime.now(UTC),
        )
        is_checked = not self._limits.allow_short_keep
        count = delta_maintenance.vacuum(self._spark, path, retention, is_checked, self._dry_run)
        done = f"would vacuum {count:,} files" if self._dry_run else "vacuumed"
        # What the log has no version of is lost to the replay, whatever files are kept.
        lost = [
            f"; replay {id} needs a version that the log no longer has: abandon it" for id in since if not since[id]
        ]
        return f"{done}, kept {days(retention)} ({why}){''.join(lost)}"


def longest_retention(
    limits: Maintenance, of_table: timedelta, replays: dict[str, datetime], now: datetime
) -> tuple[timedelta, str]:
    """Return how long a table's removed files stay, and what asks for it.

    Args:
        of_table: the table's own retention, which `allow_short_keep` sets aside.
        replays: since when each open replay needs the table.
    """
    retentions = {"maintenance.keep": timedelta(milliseconds=milliseconds(limits.keep))}
    if not limits.allow_short_keep:
        retentions["the table's own retention"] = of_table
    retentions |= {f"replay {id}": now - since + SLACK for id, since in replays.items()}
    why = max(retentions, key=lambda name: retentions[name])
    return retentions[why], why


def table_names(folders: Folders, root: str, within: str = "") -> Iterator[str]:
    """Yield every Delta table under `root`, by its path there; tables of replays and of bounded ranges are left out."""
    entries = [entry for entry in folders.entries(f"{root}/{within}" if within else root) if entry.is_folder]
    if any(entry.name == LOG for entry in entries):
        yield within
        return
    for entry in entries:
        is_left_out = not within and (entry.name == REPLAYS or entry.name.startswith(RANGE))
        if not is_left_out and not entry.name.startswith((".", "_")):
            yield from table_names(folders, root, f"{within}/{entry.name}".lstrip("/"))
