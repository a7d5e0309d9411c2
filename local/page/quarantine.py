"""Reads the quarantine: rejects by code and rule, over time, some as far as they can be read, and the way back."""

import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from conf.errors import TidemarkError
from conf.settings import Settings
from local.page.charts import Chart, counts_over_time
from local.page.cluster import Brokers
from producers.quarantine import inspection, marker_log
from producers.quarantine.marker_log import MarkerLog
from producers.quarantine.records import Coordinates
from producers.quarantine.selection import Selection
from producers.quarantine.table import Count, Quarantine, Slice, count_rejects
from schemas.registry import RetryPolicy, open_registry

SAMPLES = 5
REGISTRY_SECONDS = 5.0
COMMAND = "local/tidemark quarantine"


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
        return f"{COMMAND} inspect {self.options}"

    @property
    def redrive(self) -> str:
        return f"{COMMAND} redrive {self.options}"


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
