"""Makes charts as data, which the script of the page draws with uPlot: of micro-batches, and of counts over time."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.operations.history import rows_of
from jobs.pipeline.monitoring import micro_batch_table

SPANS = ((2 * 3600, 60), (3 * 86_400, 3600))  # most seconds of a chart, and the seconds of a bar in it
DAY = 86_400
MOST_SERIES = 8
CHARTED = 300  # micro-batches
WHOLE = "triggerExecution"


@dataclass(frozen=True)
class Chart:
    """Lines, or bars, over time; `data` holds unix times, then a list of values for each of `series`."""

    title: str
    series: tuple[str, ...]
    data: tuple[tuple[float | None, ...], ...]
    bars: bool = False

    def to_json(self) -> str:
        return json.dumps({"series": self.series, "data": self.data, "bars": self.bars})

    @property
    def has_values(self) -> bool:
        return any(value is not None for values in self.data[1:] for value in values)


def read_charts(settings: Settings, query: str) -> tuple[Chart, ...]:
    """Return the newest micro-batches of a query as charts, oldest first; those that show nothing are left out.

    Raises:
        TidemarkError: UNKNOWN_QUERY.
    """
    where = (pc.field("query") == query) & (pc.field("outcome") == "done")
    rows = rows_of(micro_batch_table.newest(settings, CHARTED, where))
    if not rows:
        what = f"no micro-batch of a query `{query}` has been finished"
        raise TidemarkError("UNKNOWN_QUERY", what, "the view Queries has those that are known")
    return tuple(chart for chart in charts(rows) if chart.has_values)


def charts(rows: Sequence[Mapping[str, Any]]) -> Iterable[Chart]:
    """Draw what micro-batches say, over time."""
    times = tuple(row["began_at"].timestamp() for row in rows)

    def chart(title: str, **values: Iterable[float | None]) -> Chart:
        names = tuple(name.replace("_", " ") for name in values)
        return Chart(title, names, (times, *(tuple(column) for column in values.values())))

    yield chart("Records in each micro-batch", records=(row["rows_in"] for row in rows))
    yield chart("Records a second", records_a_second=map(rate, rows))
    yield chart("Records behind the end of the topics", lag=(row["lag"] for row in rows))
    yield chart("Seconds a micro-batch takes", seconds=(_seconds(row, WHOLE) for row in rows))
    phases = [{name: took for name, took in (row["phases"] or {}).items() if name != WHOLE} for row in rows]
    yield _phases("Seconds by phase", times, phases)
    yield _phases("Seconds of the parts of a write", times, [row["write_phases"] or {} for row in rows])
    yield chart("Hours from the newest event time back to the watermark", hours=map(_watermark_hours, rows))
    yield chart("Rows in the state", rows=(row["state_rows"] for row in rows))
    yield chart("Megabytes of state", megabytes=(_scaled(row["state_bytes"], 1e6) for row in rows))
    yield chart("Rejected and late", rejected=(row["rejected"] for row in rows), late=(row["late"] for row in rows))


def _phases(title: str, times: tuple[float, ...], phases: Sequence[Mapping[str, int]]) -> Chart:
    names = sorted({name for each in phases for name in each})
    lines = (tuple(_scaled(each.get(name), 1000) for each in phases) for name in names)
    return Chart(title, tuple(names), (times, *lines))


def rate(row: Mapping[str, Any]) -> float | None:
    """Count records a second of a micro-batch; None for one that did not say how long it took."""
    seconds = _seconds(row, WHOLE)
    return row["rows_in"] / seconds if seconds and row["rows_in"] is not None else None


def _seconds(row: Mapping[str, Any], phase: str) -> float | None:
    return _scaled((row["phases"] or {}).get(phase), 1000)


def _scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value / by


def _watermark_hours(row: Mapping[str, Any]) -> float | None:
    if row["watermark"] is None or row["max_event_time"] is None or row["watermark"].year < 1971:
        return None
    hours: float = (row["max_event_time"] - row["watermark"]).total_seconds() / 3600
    return hours


def counts_over_time(title: str, counts: Mapping[tuple[str, datetime], int]) -> Chart:
    """Return how many there were of each name, by minute, hour or day, whichever gives some dozens of bars.

    Args:
        counts: by name and time.
    """
    names = Counter[str]()
    for (name, _), count in counts.items():
        names[name] += count
    shown = [name for name, _ in names.most_common(MOST_SERIES)]
    times = [at.timestamp() for _, at in counts]
    width = bucket_seconds(max(times, default=0.0) - min(times, default=0.0))
    found: dict[str, Counter[float]] = {name: Counter() for name in shown}
    for (name, at), count in counts.items():
        if name in found:
            found[name][at.timestamp() // width * width] += count
    buckets = _every(width, [time for counter in found.values() for time in counter])
    lines = (tuple(float(found[name][bucket]) for bucket in buckets) for name in shown)
    return Chart(title, tuple(shown), (buckets, *lines), bars=True)


def bucket_seconds(span: float) -> int:
    """Return how long a bar of a chart lasts that covers `span` seconds."""
    return next((width for most, width in SPANS if span <= most), DAY)


def _every(width: int, times: Iterable[float]) -> tuple[float, ...]:
    known = sorted(set(times))
    if not known or (known[-1] - known[0]) / width > 400:
        return tuple(known)
    return tuple(known[0] + width * step for step in range(int((known[-1] - known[0]) // width) + 1))
