"""Plans replays: reads what is requested, says what is replaced, and which offsets are read for it in which slices."""

import hashlib
import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Literal

import pyarrow.compute as pc

from conf import code_version
from conf.errors import TidemarkError
from conf.setting_types import milliseconds
from conf.settings import Settings
from jobs.connectors.kafka.offsets import OffsetLookup, Partitions, parse_position
from jobs.operations.replay.live_job import (
    LiveQuery,
    late_rows_end,
    queries_reading,
    require_live,
    table_version,
    time_condition,
)
from jobs.operations.replay.ranges import (
    TimeRange,
    TopicRange,
    clip_to_positions,
    cut_slices,
    event_time_range,
    topic_range,
    topics_named,
)
from jobs.operations.replay.record import BEGINNING, Part, Replacement, Replay
from jobs.pipeline.paths import find_stored
from jobs.pipeline.plan_analysis import EventTimeSpan
from jobs.pipeline.query_description import QueryDescription

DAY = timedelta(days=1)
END = datetime(2900, 1, 1, tzinfo=UTC)
UNMEASURED = 50_000  # records a second, where no replay of the job has run yet


@dataclass(frozen=True)
class ReplayRequest:
    """The job, range and tables that are to be replayed.

    Args:
        start, end: positions as `jobs.connectors.kafka.offsets` reads them.
        context: read so much more on both sides; None for what the job's plan says.
        hold_watermark: let the watermark wait until all is read.
    """

    job: str
    start: str = "earliest"
    end: str = "latest"
    context: timedelta | None = None
    hold_watermark: bool = False


def request_of(options: Namespace) -> ReplayRequest:
    """Read the options of `replay plan` and `replay run`.

    Raises:
        TidemarkError: BAD_ARGUMENTS, BAD_POSITION.
    """
    if options.backfill and (options.start or options.end):
        raise TidemarkError("BAD_ARGUMENTS", "--backfill is the whole history", "leave out --from and --to")
    if not options.backfill and not (options.start or options.end):
        remedy = "say --from and --to, as in --from 2013-03-01 --to 2013-04-01, or --from earliest for all"
        raise TidemarkError("BAD_ARGUMENTS", "the range is missing", remedy)
    for position in (options.start, options.end):
        parse_position(position or "earliest")
    context = duration(options.context) if options.context else None
    start, end = options.start or "earliest", options.end or "latest"
    return ReplayRequest(options.job, start, end, context, options.hold_watermark)


def duration(text: str) -> timedelta:
    """Return a duration, such as "1 day"; BAD_ARGUMENTS for any other text."""
    try:
        return timedelta(milliseconds=milliseconds(text))
    except ValueError as exc:
        raise TidemarkError("BAD_ARGUMENTS", str(exc), 'as in --context "1 day"') from exc


def time_of(text: str) -> datetime:
    """Return the time that a position is; raises TidemarkError BAD_POSITION for any other position."""
    position = parse_position(text)
    if not isinstance(position, datetime):
        raise TidemarkError("BAD_POSITION", f"`{text}` is no time", "write one, as in --since 2013-03-01")
    return position


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
    parts = []
    for manifest in manifests:
        for rows in manifest.tables:
            if find_stored(settings, rows.table) is not None:
                remedy = "a backfill is for a job that has never run: replay a range of this one by --from and --to"
                raise TidemarkError("ALREADY_RUNS", f"job {manifest.job} has a table {rows.table} already", remedy)
        parts.append(_part_of(manifest, tuple(Replacement(rows) for rows in manifest.tables)))
    with OffsetLookup(settings.kafka) as lookup:
        topics = dict.fromkeys(topic for part in parts for topic in part.topics)
        ranges = [topic_range(settings, lookup, topic, None, None) for topic in topics]
        return _replay(settings, lookup, "backfill", request, parts, ranges)


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


def plan_lines(settings: Settings, replay: Replay, speed: float | None) -> Iterator[str]:
    """Say in lines what is planned.

    Args:
        speed: of the job's last replay, records/s; None for none.
    """
    yield f"replay {replay.id} of {replay.job}: {replay.span if replay.kind == 'range' else 'the whole history'}"
    for topic, starts in replay.starts.items():
        untils = replay.untils[topic]
        count = sum(untils[partition] - start for partition, start in starts.items())
        spans = ", ".join(
            f"{partition}: {start:,} to {untils[partition]:,}" for partition, start in sorted(starts.items())
        )
        yield f"  reads     {topic:<24} {count:,} offsets  {spans}"
    for part in replay.parts:
        for table in part.tables:
            yield f"  replaces  {table.rows.table:<24} {_replaced(settings, table)}"
        if part.topic:
            times = part.sends_since, part.sends_until
            sent = f"the records of event times {_span(*times)}" if any(times) else "the records"
            yield f"  sends to  {part.topic:<24} {sent}, each once, with a header that names the replay"
    rate = speed or UNMEASURED
    how = "as the job's last replay" if speed else "a guess: no replay of this job has run yet"
    size = f"about {replay.bytes / 1e6:,.1f} MB, {replay.records / rate:,.0f} s"
    yield f"  slices    {len(replay.slices)}, {size} at {rate:,.0f} records/s ({how})"
    if any(slice.watermark_slice < 0 for slice in replay.slices[:-1]):
        yield "  the watermark is held until all is read: without bronze nobody knows how late the latest record is"


def _replaced(settings: Settings, table: Replacement) -> str:
    rows = table.rows
    if rows.coordinates:
        return "the rows of these records"
    if rows.event_time is None:
        return "nothing: no column tells which rows a range makes (event_time=)"
    if table.version is None:
        return "all: the table is new"
    windows, count, live = 0, 0, find_stored(settings, rows.table)
    if live is not None:
        condition = time_condition(rows.event_time, table.start, table.until, live.columns.field(rows.event_time).type)
        times = live.rows([rows.event_time], condition)[rows.event_time]
        windows, count = pc.count_distinct(times).as_py(), len(times)
    return f"{rows.event_time} {_span(table.start, table.until)}: {windows:,} windows or times, {count:,} rows now"


def _span(start: datetime | None, until: datetime | None) -> str:
    first, last = (edge.isoformat(" ", "minutes") if edge else "" for edge in (start, until))
    return f"from {first or 'the first'} to {last or 'the last'}"
