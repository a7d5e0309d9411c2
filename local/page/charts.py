"""Makes charts as data, which the script of the page draws with uPlot."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

SPANS = ((2 * 3600, 60), (3 * 86_400, 3600))  # most seconds of a chart, and the seconds of a bar in it
DAY = 86_400
MOST_SERIES = 8


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
