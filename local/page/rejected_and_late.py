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
from producers.quarantine.marker_log import MarkerLog
from producers.quarantine.records import Coordinates
from producers.quarantine.selection import Selection
from producers.quarantine.table import Count, Quarantine, Slice, count_rejects
from schemas.registry import RetryPolicy, open_registry

SAMPLES = 5
REGISTRY_SECONDS = 5.0
QUARANTINE = "local/tidemark quarantine"
LATE_SHOWN = 30
LATE_GROUP = ("query", "operator", "topic")


@dataclass(frozen=True)
class Group:
    """Rejects of one topic, error and rule (empty for none)."""

    topic: str
    error: str
    rule: str = ""

    @property
    def selection(self) -> Selection:
        return Selection((self.topic,), (self.error,), (self.rule,) if self.rule else ())

    @property
    def options(self) -> str:
        words = ["--topic", self.topic, "--error", self.error, *(["--rule", self.rule] if self.rule else [])]
        return shlex.join(words)

    @property
    def inspect(self) -> str:
        return f"{QUARANTINE} inspect {self.options}"

    @property
    def redrive(self) -> str:
        return f"{QUARANTINE} redrive {self.options}"


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


@dataclass(frozen=True)
class Samples:
    """Some rejects of a group, each as the lines of `quarantine inspect`: personal data is hidden in them."""

    group: Group
    records: tuple[str, ...]


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
    redriven, down = _redriven(settings, brokers, topics)
    counted = count_rejects(table, Selection(), redriven)
    groups = tuple((Group(count.topic, count.error, count.rule), count) for count in counted)
    return Rejects(groups, counts_over_time("Rejects by code and rule", over_time), broker=down)


def read_samples(settings: Settings, group: Group) -> Samples:
    """Read the first SAMPLES of a group; errors as those of `Quarantine` and of the registry."""
    table, selected = Quarantine(settings), group.selection
    registry = open_registry(settings.registry, RetryPolicy(REGISTRY_SECONDS))
    records = []
    for at in _first(table, selected):
        for row in table.rows(selected, Slice(at.topic, at.partition, at.offset, at.offset)):
            records.append("\n".join(inspection.lines(row, inspection.read(row, registry), None)))
    return Samples(group, tuple(records))


def _first(table: Quarantine, selected: Selection) -> list[Coordinates]:
    places: list[Coordinates] = []
    for batch in table.batches(selected, ("topic", "partition", "offset")):
        rows = batch.slice(0, SAMPLES - len(places)).to_pylist()
        places += [Coordinates(row["topic"], row["partition"], row["offset"]) for row in rows]
        if len(places) >= SAMPLES:
            break
    return places


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


def _redriven(settings: Settings, brokers: Brokers, topics: set[str]) -> tuple[MarkerLog | None, TidemarkError | None]:
    admin, down = brokers.ask(settings.kafka)
    if admin is None:
        return None, down
    return marker_log.load_redriven(settings, admin, topics), None


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
    rows = rows.set_column(4, "minute", pc.floor_temporal(rows["listed_at"], unit="minute")).append_column(
        "listed_at", rows["listed_at"]
    )
    grouped = rows.group_by(list(LATE_GROUP)).aggregate([("dropped", "sum"), ("listed_at", "max"), ([], "count_all")])
    groups = [
        {name: row[name] for name in LATE_GROUP}
        | {"rows": row["count_all"], "dropped": row["dropped_sum"], "at": row["listed_at_max"]}
        for row in grouped.to_pylist()
    ]
    over_time: Counter[tuple[str, datetime]] = Counter()
    for row in rows.group_by(["query", "minute"]).aggregate([([], "count_all")]).to_pylist():
        if row["minute"] is not None:
            over_time[row["query"], row["minute"]] += row["count_all"]
    chart = counts_over_time("Late rows by query, when they were listed", over_time)
    ordered = sorted(groups, key=lambda group: (-group["rows"], str(group["query"])))
    return Late(tuple(ordered), _newest_late(table, rows["listed_at"]), chart, command)


def _newest_late(table: StoredTable, listed: pa.ChunkedArray) -> tuple[Mapping[str, Any], ...]:
    if not len(listed):
        return ()
    order = [("listed_at", "descending")]
    since = pa.table({"listed_at": listed}).sort_by(order).slice(0, LATE_SHOWN)["listed_at"][-1]
    found = table.rows(where=pc.field("listed_at") >= since).sort_by(order).slice(0, LATE_SHOWN)
    return tuple(found.to_pylist())
