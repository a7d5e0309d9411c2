"""Bronze as a second supply of a topic's records: which offsets it holds, and when they were."""

from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from conf.settings import Settings
from jobs.connectors.files import table_uri
from jobs.late.listing import TABLE as LATE
from jobs.replay.live import live_queries, table_version
from jobs.replay.record import Partitions

Integers = npt.NDArray[np.int64]
INGEST = "ingest"


@dataclass(frozen=True)
class Track:
    """Records of one partition, by offset: `offsets`, and `times` in ms since 1970."""

    offsets: Integers
    times: Integers

    def first_at(self, time_ms: int) -> int | None:
        """The first offset with a time at or after `time_ms`; None for none."""
        index = int(np.searchsorted(np.maximum.accumulate(self.times), time_ms)) if len(self.times) else 0
        return int(self.offsets[index]) if index < len(self.offsets) else None

    def between(self, start: int | None = None, until: int | None = None) -> Integers:
        """The times of the records with offsets in [start, until); None: from the first, to the last."""
        first, end = (None if at is None else int(np.searchsorted(self.offsets, at)) for at in (start, until))
        return self.times[first:end]


class Archive:
    """The table bronze of `topic` as it is now."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._path = f"{settings.paths.tables}/bronze/{topic}"
        self.exists = table_version(settings, f"bronze/{topic}") is not None
        found = (live for live in live_queries(settings, INGEST) if topic in live.until) if self.exists else ()
        self.until = next((dict(live.until[topic]) for live in found), {})

    def tracks(self, start: datetime | None, until: datetime | None) -> dict[int, Track]:
        """The records with times in [start, until), by partition."""
        if not self.exists:
            return {}
        dataset = DeltaTable(table_uri(self._path)).to_pyarrow_dataset()
        condition = _between("timestamp", start, until)
        return _by_partition(dataset.to_table(columns=["partition", "offset", "timestamp"], filter=condition))


def late_until(settings: Settings, query: str, start: datetime | None, until: datetime | None) -> dict[str, Partitions]:
    """Before which offsets all late rows of the query with event times in [start, until) lie, by topic."""
    if table_version(settings, LATE) is None:
        return {}
    condition = (pc.field("query") == query) & pc.field("offset").is_valid()
    span = _between("event_time", start, until)
    dataset = DeltaTable(table_uri(f"{settings.paths.tables}/{LATE}")).to_pyarrow_dataset()
    columns = ["topic", "partition", "offset"]
    rows = dataset.to_table(columns=columns, filter=condition if span is None else condition & span)
    found: dict[str, dict[int, int]] = {}
    for row in rows.group_by(["topic", "partition"]).aggregate([("offset", "max")]).to_pylist():
        found.setdefault(row["topic"], {})[row["partition"]] = row["offset_max"] + 1
    return dict(found)


def _between(column: str, start: datetime | None, until: datetime | None) -> Any:
    """The condition start <= column < until, as far as there is one."""
    edges = ((start, pc.Expression.__ge__), (until, pc.Expression.__lt__))
    parts = [compare(pc.field(column), pc.scalar(at)) for at, compare in edges if at is not None]
    return reduce(and_, parts) if parts else None


def _by_partition(rows: Any) -> dict[int, Track]:
    partitions, offsets = (rows[name].to_numpy() for name in ("partition", "offset"))
    times = rows["timestamp"].cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64()).to_numpy()
    order = np.lexsort((offsets, partitions))
    partitions, offsets, times = partitions[order], offsets[order], times[order]
    numbers, firsts = np.unique(partitions, return_index=True)
    edges = [*firsts.tolist(), len(partitions)]
    return {
        int(number): Track(offsets[edges[at] : edges[at + 1]], times[edges[at] : edges[at + 1]])
        for at, number in enumerate(numbers)
    }
