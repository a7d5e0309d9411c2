"""Reads rows that reached no table of their topic: rejects in quarantine, and rows that came after the watermark."""

import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.delta.reading import StoredTable
from jobs.connectors.files import table_uri
from jobs.pipeline import paths
from jobs.pipeline.paths import find_stored
from local.page.background import Brokers
from local.page.charts import Chart, counts_over_time
from producers.quarantine import inspection, marker_log
from producers.quarantine.selection import Selection
from producers.quarantine.table import Count, Quarantine, Slice, count_rejects
from schemas.open_registry import open_registry
from schemas.registry import RetryPolicy

SAMPLES = 5
REGISTRY_SECONDS = 5.0
LATE_SHOWN = 30
LATE_GROUP = ("query", "operator", "topic")


@dataclass(frozen=True)
class Group:
    """Rejects of one topic, error and rule (empty for none)."""

    topic: str
    error: str
    rule: str = ""

    def command(self, action: str) -> str:
        """Return the command of `quarantine` that does `action` with these."""
        options = ["--topic", self.topic, "--error", self.error, *(["--rule", self.rule] if self.rule else [])]
        return shlex.join(["local/tidemark", "quarantine", action, *options])


@dataclass(frozen=True)
class Rejects:
    """All groups with their counts; `missing` is why there is no table, `broker` why nobody knows what was redriven."""

    counts: tuple[tuple[Group, Count], ...]
    chart: Chart
    missing: TidemarkError | None = None
    broker: TidemarkError | None = None

    @property
    def total(self) -> int:
        return sum(count.records for _, count in self.counts)

    @property
    def open(self) -> int:
        """Return the rejects that were not sent again; all, where that is not known."""
        return sum(count.records - (count.redriven or 0) for _, count in self.counts)


def read_rejects(settings: Settings, brokers: Brokers) -> Rejects:
    """Count what is in quarantine.

    Raises:
        TidemarkError: NO_SUCH_COLUMN, for a table of an older version; as `Quarantine`, where the table is damaged.
    """
    try:
        table = Quarantine(settings)
    except TidemarkError as error:
        if error.code != "NO_QUARANTINE":
            raise
        return Rejects((), counts_over_time("", {}), missing=error)
    over_time, topics = _over_time(table)
    admin, down = brokers.ask(settings.kafka)
    redriven = None if admin is None else marker_log.load_redriven(settings, admin, topics)
    counted = count_rejects(table, Selection(), redriven)
    groups = tuple((Group(count.topic, count.error, count.rule), count) for count in counted)
    return Rejects(groups, counts_over_time("Rejects by code and rule", over_time), broker=down)


def read_samples(settings: Settings, group: Group) -> tuple[str, ...]:
    """Return the first SAMPLES of a group, each as the lines of `quarantine inspect`: personal data is hidden in them.

    Errors are those of `Quarantine` and of the registry.
    """
    table = Quarantine(settings)
    selected = Selection((group.topic,), (group.error,), (group.rule,) if group.rule else ())
    registry = open_registry(settings.registry, RetryPolicy(REGISTRY_SECONDS))
    first: list[Slice] = []
    for batch in table.batches(selected, ("topic", "partition", "offset")):
        rows = batch.slice(0, SAMPLES - len(first)).to_pylist()
        first += [Slice(row["topic"], row["partition"], row["offset"], row["offset"]) for row in rows]
        if len(first) >= SAMPLES:
            break
    rejects = (row for place in first for row in table.rows(selected, place))
    return tuple("\n".join(inspection.lines(row, inspection.read(row, registry), None)) for row in rejects)


def _over_time(table: Quarantine) -> tuple[Counter[tuple[str, datetime]], set[str]]:
    """Return rejects by code and rule, and the minute in which they were put into quarantine; and their topics."""
    counts: Counter[tuple[str, datetime]] = Counter()
    topics: set[str] = set()
    for batch in table.batches(Selection(), ("topic", "error", "rule", "quarantined_at", "timestamp")):
        at = pc.floor_temporal(pc.coalesce(batch["quarantined_at"], batch["timestamp"]), unit="minute")
        rule = pc.fill_null(batch["rule"].cast(pa.string()), "")
        rows = pa.table({"error": batch["error"].cast(pa.string()), "rule": rule, "at": at})
        for row in rows.group_by(["error", "rule", "at"]).aggregate([([], "count_all")]).to_pylist():
            if row["at"] is not None:
                counts[" ".join(filter(None, (row["error"], row["rule"]))), row["at"]] += row["count_all"]
        topics |= set(batch["topic"].unique().to_pylist())
    return counts, topics


@dataclass(frozen=True)
class Late:
    """Late rows.

    Args:
        groups: by query, operator and topic: rows, of which Spark counted `dropped`, and when the newest was listed.
        newest: whole rows of the table, the newest first.
        command: what prints the table.
    """

    groups: tuple[Mapping[str, Any], ...]
    newest: tuple[Mapping[str, Any], ...]
    chart: Chart
    command: str

    @property
    def total(self) -> int:
        return sum(group["rows"] for group in self.groups)


def read_late(settings: Settings) -> Late:
    """Read the table `late`; empty where nothing was late, which makes no table. Errors as `naming_damage`."""
    uri = table_uri(paths.table(settings.paths.tables, paths.LATE))
    program = f"from deltalake import DeltaTable; print(DeltaTable({uri!r}).to_pandas().to_string())"
    command = shlex.join([sys.executable, "-c", program])
    table = find_stored(settings, paths.LATE)
    if table is None:
        return Late((), (), counts_over_time("", {}), command)
    rows = table.rows([*LATE_GROUP, "dropped", "listed_at"])
    rows = rows.append_column("minute", pc.floor_temporal(rows["listed_at"], unit="minute"))
    groups = rows.group_by(list(LATE_GROUP)).aggregate([("dropped", "sum"), ("listed_at", "max"), ([], "count_all")])
    groups = groups.rename_columns({"dropped_sum": "dropped", "listed_at_max": "at", "count_all": "rows"})
    over_time: Counter[tuple[str, datetime]] = Counter()
    for row in rows.group_by(["query", "minute"]).aggregate([([], "count_all")]).to_pylist():
        if row["minute"] is not None:
            over_time[row["query"], row["minute"]] += row["count_all"]
    chart = counts_over_time("Late rows by query, when they were listed", over_time)
    ordered = sorted(groups.to_pylist(), key=lambda group: (-group["rows"], str(group["query"])))
    return Late(tuple(ordered), _newest_late(table, rows["listed_at"]), chart, command)


def _newest_late(table: StoredTable, listed: pa.ChunkedArray) -> tuple[Mapping[str, Any], ...]:
    if not len(listed):
        return ()
    order = [("listed_at", "descending")]
    since = pa.table({"listed_at": listed}).sort_by(order).slice(0, LATE_SHOWN)["listed_at"][-1]
    found = table.rows(where=pc.field("listed_at") >= since).sort_by(order).slice(0, LATE_SHOWN)
    return tuple(found.to_pylist())
