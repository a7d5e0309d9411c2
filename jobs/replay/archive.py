"""Bronze as a second supply of a topic's records: which offsets it holds, and when they were."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from conf.settings import Settings
from jobs.replay.live import live_queries, table_version

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
        dataset = DeltaTable(self._path).to_pyarrow_dataset()
        condition: Any = None
        for at, compare in ((start, pc.Expression.__ge__), (until, pc.Expression.__lt__)):
            if at is not None:
                part = compare(pc.field("timestamp"), pc.scalar(at))
                condition = part if condition is None else condition & part
        return _by_partition(dataset.to_table(columns=["partition", "offset", "timestamp"], filter=condition))


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
