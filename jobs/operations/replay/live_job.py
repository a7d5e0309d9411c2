"""Reads what the live job has done: its queries, by their checkpoints, its late rows, and which periods are due."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from operator import and_

import pyarrow as pa
import pyarrow.compute as pc

from conf.errors import TidemarkError, nearest
from conf.settings import Settings
from jobs import catalog
from jobs.connectors.files import listed, read_text
from jobs.connectors.kafka import source_sink
from jobs.connectors.kafka.offsets import EPOCH, Partitions, parse_position
from jobs.operations.replay.record import BEGINNING, WITHDRAWN, Replay
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

Period = tuple[datetime, datetime]


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
    time_ms = next_watermark_ms(read_text(f"{folder}/{commit_file(batch)}") or "")
    watermark = EPOCH + timedelta(milliseconds=time_ms) if time_ms > 0 else None
    return LiveQuery(manifest, until, watermark, _sends_times(folder))


def _sends_times(folder: str) -> bool:
    written = read_text(f"{folder}/{paths.WRITTEN_FILE}")
    try:
        description = QueryDescription.from_json(written or "")
    except (ValueError, KeyError, TypeError):
        return False  # it ran before that was kept
    return description.topic is not None and source_sink.TIMESTAMP in dict(description.columns)


def queries_reading(queries: Sequence[LiveQuery], topics: set[str]) -> list[LiveQuery]:
    """Select the queries that read one of `topics`; all, where none is named. BAD_POSITION where none reads one."""
    known = sorted({topic for query in queries for topic in query.manifest.topics})
    if unread := sorted(topics - set(known)):
        message = f"the job does not read {', '.join(unread)}"
        raise TidemarkError("BAD_POSITION", message, nearest(unread[0], known))
    return [query for query in queries if not topics or topics & set(query.manifest.topics)]


def table_version(settings: Settings, table: str) -> int | None:
    """Return the newest version of a table under the tables root; None where there is no such table."""
    stored = find_stored(settings, table)
    return None if stored is None else stored.version


def late_rows_end(
    settings: Settings, query: str, start: datetime | None, until: datetime | None
) -> dict[str, Partitions]:
    """Return before which offsets all late rows of the query with event times in [start, until) lie, by topic."""
    late = find_stored(settings, paths.LATE)
    if late is None:
        return {}
    condition = (pc.field("query") == query) & pc.field("offset").is_valid()
    in_span = time_condition("event_time", start, until)
    rows = late.rows(["topic", "partition", "offset"], condition if in_span is None else condition & in_span)
    ends: dict[str, dict[int, int]] = {}
    for row in rows.group_by(["topic", "partition"]).aggregate([("offset", "max")]).to_pylist():
        ends.setdefault(row["topic"], {})[row["partition"]] = row["offset_max"] + 1
    return dict(ends)


def time_condition(
    column: str, start: datetime | None, until: datetime | None, kind: pa.DataType | None = None
) -> pc.Expression | None:
    """Return the condition start <= column < until, as far as there is one.

    Args:
        kind: of the column, where it may be a date: that is before a time of its day.
    """
    edges = ((start, pc.Expression.__ge__), (until, pc.Expression.__lt__))
    scalars = ((pc.scalar(edge), compare) for edge, compare in edges if edge is not None)
    parts = [compare(pc.field(column), edge if kind is None else edge.cast(kind)) for edge, compare in scalars]
    return reduce(and_, parts) if parts else None


@dataclass(frozen=True)
class Due:
    """The periods that are to be replayed, the oldest first, and those whose replay was taken back or given up."""

    periods: Sequence[Period] = ()
    withdrawn: Sequence[tuple[Period, Replay]] = ()


def due_periods(
    queries: Sequence[LiveQuery], replays: Sequence[Replay], every: timedelta, since: datetime | None
) -> Due:
    """Return the periods that are due; periods begin at multiples of `every` since 1970.

    Args:
        queries: the live queries of the job; replays: all that there are of it.
        since: of the first period; None: the end of the newest replay that is done, or the last closed period.
    """
    watermarks = [query.watermark - query.manifest.reach.back for query in queries if query.watermark]
    if not watermarks:
        return Due()
    closed = _floor(min(watermarks), every)
    done = [period for replay in replays if replay.state == "done" and (period := _replayed_period(replay))]
    first = _floor(max(since, BEGINNING), every) if since else max((end for _, end in done), default=closed - every)
    starts = (first + number * every for number in range(max(0, (closed - first) // every)))
    periods = [(start, start + every) for start in starts if not _is_covered((start, start + every), done)]
    last = {period: replay for replay in replays if (period := _replayed_period(replay))}
    withdrawn = {period: last[period] for period in periods if period in last and last[period].state in WITHDRAWN}
    return Due([period for period in periods if period not in withdrawn], list(withdrawn.items()))


def _is_covered(period: Period, done: Sequence[Period]) -> bool:
    """Return whether the done replays hold all of the period, one after the other."""
    at = period[0]
    for start, end in sorted(done):
        if start <= at < end:
            at = end
    return at >= period[1]


def _replayed_period(replay: Replay) -> Period | None:
    start, end = (parse_position(replay.request[edge]) for edge in ("from", "to"))
    since = start if isinstance(start, datetime) else EPOCH if start == "earliest" else None
    return (since, end) if since is not None and isinstance(end, datetime) else None


def _floor(at: datetime, every: timedelta) -> datetime:
    return EPOCH + (at - EPOCH) // every * every
