"""Plans replays: what is replaced, and which offsets are read for it in which slices; finds which periods are due."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Literal

from conf import code_version
from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.kafka.offsets import OffsetLookup, parse_position
from jobs.operations.replay.live_job import LiveQuery, late_rows_end, require_live, table_version
from jobs.operations.replay.offsets_by_time import TopicRange, cut_slices, topic_range
from jobs.operations.replay.record import WITHDRAWN, Part, Partitions, Replacement, Replay
from jobs.operations.replay.request import (
    ReplayRequest,
    TimeRange,
    clip_to_positions,
    event_time_range,
    queries_reading,
    topics_named,
)
from jobs.pipeline.plan_analysis import EventTimeSpan
from jobs.pipeline.query_description import QueryDescription

# Far enough from the ends of what a datetime can hold, however far an event reaches.
DAY = timedelta(days=1)
BEGINNING, END = datetime(1900, 1, 1, tzinfo=UTC), datetime(2900, 1, 1, tzinfo=UTC)


def plan_range(settings: Settings, request: ReplayRequest) -> Replay:
    """Plan the replay of a range, beside the live queries of the job.

    Raises:
        TidemarkError: UNKNOWN_JOB, NEVER_RUN, BAD_POSITION, RANGE_GONE; NOTHING_TO_REPLAY; WINDOWS_OPEN, where the live
            job has not closed a single window of the range yet; BROKER_UNREACHABLE.
    """
    start, end = parse_position(request.start), parse_position(request.end)
    queries = queries_reading(require_live(settings, request.job), topics_named(start) | topics_named(end))
    with OffsetLookup(settings.kafka) as lookup:
        times = event_time_range(settings, lookup, start, end)
        parts: list[Part] = []
        to_read: dict[str, TimeRange] = {}
        least: dict[str, Partitions] = {}
        for query in queries:
            part, part_times = _part(settings, query, times, request.context)
            parts.append(part)
            late = late_rows_end(settings, part.query, *part_times)
            for topic in part.topics:
                to_read[topic] = _union(to_read.get(topic, part_times), part_times)
                least[topic] = _greatest(least.get(topic, {}), late.get(topic, {}))
        is_by_records = not any(map(_is_timed, parts))
        ranges = []
        for topic, (since, until) in to_read.items():
            most = _least([query.until.get(topic, {}) for query in queries if topic in query.manifest.topics])
            span = topic_range(settings, lookup, topic, since, until, most, least[topic])
            ranges.append(clip_to_positions(span, start, end) if is_by_records else span)
        return _replay(settings, lookup, "range", request, parts, ranges)


def plan_backfill(settings: Settings, request: ReplayRequest, manifests: Sequence[QueryDescription]) -> Replay:
    """Plan the replay of the whole history for a job that has never run.

    Raises:
        TidemarkError: ALREADY_RUNS, where one of its queries has a checkpoint or one of its tables is there.
    """
    parts = [_new_part(settings, manifest) for manifest in manifests]
    with OffsetLookup(settings.kafka) as lookup:
        topics = dict.fromkeys(topic for part in parts for topic in part.topics)
        ranges = [topic_range(settings, lookup, topic, None, None) for topic in topics]
        return _replay(settings, lookup, "backfill", request, parts, ranges)


def _new_part(settings: Settings, manifest: QueryDescription) -> Part:
    for rows in manifest.tables:
        if table_version(settings, rows.table) is not None:
            remedy = "a backfill is for a job that has never run: replay a range of this one by --from and --to"
            raise TidemarkError("ALREADY_RUNS", f"job {manifest.job} has a table {rows.table} already", remedy)
    return _part_of(manifest, tuple(Replacement(rows) for rows in manifest.tables))


def _part_of(
    manifest: QueryDescription,
    tables: tuple[Replacement, ...],
    sends: TimeRange = (None, None),
    watermark: datetime | None = None,
) -> Part:
    back_s = manifest.reach.back.total_seconds()
    return Part(manifest.query, manifest.name, manifest.topics, tables, manifest.topic, back_s, *sends, watermark)


def _is_timed(part: Part) -> bool:
    """Return whether the rows and records that the replay makes are found by event times, not by what was read."""
    by_time = any(table.rows.event_time for table in part.tables[:1])
    return by_time or part.sends_since is not None or part.sends_until is not None


def _part(settings: Settings, query: LiveQuery, times: TimeRange, context: timedelta | None) -> tuple[Part, TimeRange]:
    """Return an output as it is replayed, and the range of time to be read for it."""
    manifest, (since, until) = query.manifest, times
    spread = manifest.reach.context if context is None else context
    start, end = _moved(since, -manifest.reach.back), _moved(until, manifest.reach.ahead)
    if start and manifest.reach.back >= DAY:
        start = _midnight(start)
    all_rows: TimeRange = (None, None)
    closed_rows = start, _closed(query, end)
    spans = [closed_rows if rows.event_time else all_rows for rows in manifest.tables]
    tables = tuple(
        Replacement(rows, *span, table_version(settings, rows.table))
        for rows, span in zip(manifest.tables, spans, strict=True)
    )
    # A record that is made of one event alone is found by that event's offset.
    sends_windows = query.sends_times and manifest.reach != EventTimeSpan()
    sends = closed_rows if manifest.topic and (sends_windows or closed_rows in spans) else all_rows
    if closed_rows in (*spans, sends):
        end = closed_rows[1]
        if start and end and end <= start:
            remedy = "ask for an earlier range, or wait until the live job's watermark has passed this one"
            closed = f"(up to {end.isoformat()})"
            message = f"the live query {manifest.query} has not closed a window of the range yet {closed}"
            raise TidemarkError("WINDOWS_OPEN", message, remedy)
    return _part_of(manifest, tables, sends, query.watermark), (_moved(start, -spread), _moved(end, spread))


def _closed(query: LiveQuery, until: datetime | None) -> datetime | None:
    """Return `until`, or where the live query's open windows begin, if earlier: it would write those again."""
    if query.watermark is None:
        return until
    closed = query.watermark - query.manifest.reach.back
    if query.manifest.reach.back >= DAY:
        closed = _midnight(closed)
    return min(until, closed) if until else closed


def _midnight(at: datetime) -> datetime:
    """Return midnight before `at`: the column of such wide windows may be a date, so whole days are replaced."""
    return datetime.combine(at.date(), time(), UTC)


def _moved(at: datetime | None, by: timedelta) -> datetime | None:
    return None if at is None else min(min(max(at, BEGINNING), END) + by, END)


def _union(one: TimeRange, other: TimeRange) -> TimeRange:
    since = min(one[0], other[0]) if one[0] and other[0] else None
    until = max(one[1], other[1]) if one[1] and other[1] else None
    return since, until


def _least(untils: Sequence[Partitions]) -> Partitions:
    """Return the offsets that all of several queries have read up to."""
    partitions = set.intersection(*map(set, untils)) if untils else set()
    return {partition: min(until[partition] for until in untils) for partition in partitions}


def _greatest(one: Partitions, other: Partitions) -> Partitions:
    return {partition: max(one.get(partition, 0), other.get(partition, 0)) for partition in {*one, *other}}


def _replay(
    settings: Settings,
    lookup: OffsetLookup,
    kind: Literal["range", "backfill"],
    request: ReplayRequest,
    parts: Sequence[Part],
    ranges: Sequence[TopicRange],
) -> Replay:
    count = sum(span.count for span in ranges)
    if not count:
        raise TidemarkError("NOTHING_TO_REPLAY", "there is no record in the range", "ask for another one")
    slices = cut_slices(lookup, ranges, settings.replay.slice_records, request.hold_watermark)
    starts = {span.topic: span.starts for span in ranges}
    return Replay(
        id=_id(kind, request.job, starts, slices[-1].until, parts),
        job=request.job,
        kind=kind,
        request={"from": request.start, "to": request.end},
        starts=starts,
        slices=slices,
        parts=tuple(parts),
        code=code_version.version(),
        planned_at=datetime.now(UTC),
        records=count,
        bytes=round(sum(span.count * _mean_bytes(lookup, span) for span in ranges)),
    )


def _mean_bytes(lookup: OffsetLookup, span: TopicRange) -> float:
    for partition, until in span.untils.items():
        if until > span.starts[partition]:
            earliest = lookup.edges(span.topic)[0][partition]
            return lookup.mean_bytes(span.topic, partition, max(span.starts[partition], earliest))
    return 0.0


def _id(
    kind: str, job: str, starts: Mapping[str, Partitions], untils: Mapping[str, Partitions], parts: Sequence[Part]
) -> str:
    replaced = [
        [part.query, table.rows.table, str(table.start), str(table.until)] for part in parts for table in part.tables
    ]
    replaced += [
        [part.query, part.topic, str(part.sends_since), str(part.sends_until)]
        for part in parts
        if part.topic and _is_timed(part)
    ]
    text = json.dumps([kind, job, starts, untils, replaced, code_version.version()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Period = tuple[datetime, datetime]


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
    done = [period for replay in replays if replay.state == "done" and (period := _period(replay))]
    first = _floor(max(since, BEGINNING), every) if since else max((end for _, end in done), default=closed - every)
    periods = [period for period in _periods(first, closed, every) if not _is_covered(period, done)]
    last = {period: replay for replay in replays if (period := _period(replay))}
    withdrawn = {period: last[period] for period in periods if period in last and last[period].state in WITHDRAWN}
    return Due([period for period in periods if period not in withdrawn], list(withdrawn.items()))


def _periods(first: datetime, until: datetime, every: timedelta) -> Iterator[Period]:
    while first + every <= until:
        yield first, first + every
        first += every


def _is_covered(period: Period, done: Sequence[Period]) -> bool:
    """Return whether the done replays hold all of the period, one after the other."""
    at = period[0]
    for start, end in sorted(done):
        if start <= at < end:
            at = end
    return at >= period[1]


def _period(replay: Replay) -> Period | None:
    start, end = (parse_position(replay.request[edge]) for edge in ("from", "to"))
    since = start if isinstance(start, datetime) else EPOCH if start == "earliest" else None
    return (since, end) if since is not None and isinstance(end, datetime) else None


def _floor(at: datetime, every: timedelta) -> datetime:
    return EPOCH + (at - EPOCH) // every * every
