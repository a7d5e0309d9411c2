"""Reads what the live job has: its queries, by their checkpoints, the records that bronze holds, and its late rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs import catalog
from jobs.connectors.files import listed, read_text
from jobs.connectors.kafka import source_sink
from jobs.operations.replay.record import Partitions
from jobs.pipeline import paths
from jobs.pipeline.checkpoint_format import (
    COMMITS,
    commit_file,
    entry_file,
    next_watermark_ms,
    source_offsets,
    topic_offsets,
)
from jobs.pipeline.paths import find_stored
from jobs.pipeline.query_description import QueryDescription

Integers = npt.NDArray[np.int64]
INGEST = "ingest"  # the job that writes bronze


@dataclass(frozen=True)
class LiveQuery:
    """A live query as its checkpoint tells of it.

    Args:
        until: where its last finished micro-batch ended, by topic and partition.
        watermark: None for a query without one, or that has none yet.
        sends_times: whether the records that it publishes have their event time as timestamp.
    """

    manifest: QueryDescription
    until: Mapping[str, Mapping[int, int]]
    watermark: datetime | None
    sends_times: bool = False


def live_queries(settings: Settings, job: str) -> list[LiveQuery]:
    """Return the queries of `job` that have a checkpoint, by their names."""
    root = paths.checkpoints_of(settings.paths, job)
    queries = (_live_query(f"{root}/{name}") for name in listed(root))
    return [query for query in queries if query]


def require_live(settings: Settings, job: str) -> list[LiveQuery]:
    """Return `live_queries`; UNKNOWN_JOB or NEVER_RUN where there are none."""
    queries = live_queries(settings, job)
    if not queries:
        catalog.require(job)
        remedy = "run it, or begin it with its whole history by --backfill; jobs that it runs have names of their own"
        raise TidemarkError("NEVER_RUN", f"job {job} has no checkpoint to take its topics and tables from", remedy)
    return queries


def _live_query(folder: str) -> LiveQuery | None:
    text = read_text(f"{folder}/{paths.STARTED_FILE}")
    if text is None:
        return None
    manifest = QueryDescription.from_json(text)
    batch = max((int(name) for name in listed(f"{folder}/{COMMITS}") if name.isdecimal()), default=None)
    if batch is None:
        return LiveQuery(manifest, {}, None)
    sources = source_offsets(read_text(f"{folder}/{entry_file(batch)}")) or ()
    until = {topic: offsets for source in sources for topic, offsets in topic_offsets(source).items()}
    watermark = _watermark(read_text(f"{folder}/{commit_file(batch)}") or "")
    return LiveQuery(manifest, until, watermark, _sends_times(folder))


def _sends_times(folder: str) -> bool:
    written = read_text(f"{folder}/{paths.WRITTEN_FILE}")
    try:
        description = QueryDescription.from_json(written or "")
    except (ValueError, KeyError, TypeError):
        return False  # it ran before that was kept
    return description.topic is not None and source_sink.TIMESTAMP in dict(description.columns)


def _watermark(commit: str) -> datetime | None:
    time_ms = next_watermark_ms(commit)
    return datetime.fromtimestamp(time_ms / 1000, UTC) if time_ms > 0 else None


def table_version(settings: Settings, table: str) -> int | None:
    """Return the newest version of a table under the tables root; None where there is no such table."""
    found = find_stored(settings, table)
    return None if found is None else found.version


@dataclass(frozen=True)
class RecordTimes:
    """The times at which the records of one partition were written: `offsets`, and `times` in ms since 1970."""

    offsets: Integers
    times: Integers

    def first_at(self, time_ms: int) -> int | None:
        """Return the first offset with a time at or after `time_ms`; None for none."""
        index = int(np.searchsorted(np.maximum.accumulate(self.times), time_ms)) if len(self.times) else 0
        return int(self.offsets[index]) if index < len(self.offsets) else None

    def between(self, start: int | None = None, until: int | None = None) -> Integers:
        """Return the times of the records with offsets in [start, until); None: from the first, to the last."""
        first, end = (None if edge is None else int(np.searchsorted(self.offsets, edge)) for edge in (start, until))
        return self.times[first:end]


class BronzeIndex:
    """Which records of `topic` the table bronze holds now, and when they were written.

    Attributes:
        exists: whether there is such a table.
        until: before which offset of each partition all are in it.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings, self._name = settings, paths.bronze(topic)
        self.exists = table_version(settings, self._name) is not None
        queries = live_queries(settings, INGEST) if self.exists else []
        self.until = next((dict(query.until[topic]) for query in queries if topic in query.until), {})

    def record_times(self, start: datetime | None, until: datetime | None) -> dict[int, RecordTimes]:
        """Return the records with times in [start, until), by partition; None: from the first, to the last."""
        # Opened after `until` was read: it has all of those.
        table = find_stored(self._settings, self._name) if self.exists else None
        if table is None:
            return {}
        condition = _between("timestamp", start, until)
        return _by_partition(table.rows(["partition", "offset", "timestamp"], condition))


def late_rows_end(
    settings: Settings, query: str, start: datetime | None, until: datetime | None
) -> dict[str, Partitions]:
    """Return before which offsets all late rows of the query with event times in [start, until) lie, by topic."""
    late = find_stored(settings, paths.LATE)
    if late is None:
        return {}
    condition = (pc.field("query") == query) & pc.field("offset").is_valid()
    in_span = _between("event_time", start, until)
    rows = late.rows(["topic", "partition", "offset"], condition if in_span is None else condition & in_span)
    ends: dict[str, dict[int, int]] = {}
    for row in rows.group_by(["topic", "partition"]).aggregate([("offset", "max")]).to_pylist():
        ends.setdefault(row["topic"], {})[row["partition"]] = row["offset_max"] + 1
    return dict(ends)


def _between(column: str, start: datetime | None, until: datetime | None) -> Any:
    """Return the condition start <= column < until, as far as there is one."""
    edges = ((start, pc.Expression.__ge__), (until, pc.Expression.__lt__))
    parts = [compare(pc.field(column), pc.scalar(edge)) for edge, compare in edges if edge is not None]
    return reduce(and_, parts) if parts else None


def _by_partition(rows: Any) -> dict[int, RecordTimes]:
    partitions, offsets = (rows[name].to_numpy() for name in ("partition", "offset"))
    times = rows["timestamp"].cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64()).to_numpy()
    order = np.lexsort((offsets, partitions))
    partitions, offsets, times = partitions[order], offsets[order], times[order]
    numbers, firsts = np.unique(partitions, return_index=True)
    edges = [*firsts.tolist(), len(partitions)]
    return {
        int(number): RecordTimes(offsets[start:end], times[start:end])
        for number, start, end in zip(numbers, edges, edges[1:], strict=False)
    }
