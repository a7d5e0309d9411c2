"""From what is asked for to a replay: what is replaced, which offsets make it, in which slices."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta

from conf import code
from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.positions import parse_position
from jobs.connectors.topic_times import TopicTimes
from jobs.manifest import Manifest
from jobs.outputs import Replaceable
from jobs.replay.archive import late_until
from jobs.replay.asking import Asked, Edges, clipped, event_times, named, readers
from jobs.replay.live import Live, require_live, table_version
from jobs.replay.reading import Reading, reading, slices
from jobs.replay.record import Part, Partitions, Replacement, Replay

# Far enough from the ends of what a datetime can hold for all reaches.
DAY = timedelta(days=1)
BEGINNING, END = datetime(1900, 1, 1, tzinfo=UTC), datetime(2900, 1, 1, tzinfo=UTC)


def plan_range(settings: Settings, asked: Asked) -> Replay:
    """A replay of a range, beside the live queries of the job.

    Raises:
        TidemarkError: UNKNOWN_JOB, NEVER_RUN, BAD_POSITION, RANGE_GONE; NOTHING_TO_REPLAY; WINDOWS_OPEN, where the live
            job has not closed a single window of the range yet; BROKER_UNREACHABLE.
    """
    start, end = parse_position(asked.start), parse_position(asked.end)
    lives = readers(require_live(settings, asked.job), named(start) | named(end))
    with TopicTimes(settings.kafka) as times:
        edges = event_times(settings, times, start, end)
        parts: list[Part] = []
        wanted: dict[str, Edges] = {}
        least: dict[str, Partitions] = {}
        for live in lives:
            part, read = _part(settings, live, edges, asked.context)
            parts.append(part)
            lates = late_until(settings, part.query, *read)
            for topic in part.topics:
                wanted[topic] = _union(wanted.get(topic, read), read)
                least[topic] = _greatest(least.get(topic, {}), lates.get(topic, {}))
        exact = all(part.tables[0].rows.event_time is None for part in parts if part.tables)
        readings = []
        for topic, (since, until) in wanted.items():
            most = _least([live.until.get(topic, {}) for live in lives if topic in live.manifest.topics])
            found = reading(settings, times, topic, since, until, most, least[topic])
            readings.append(clipped(found, start, end) if exact else found)
        return _replay(settings, times, "range", asked, parts, readings)


def plan_backfill(settings: Settings, asked: Asked, manifests: Sequence[Manifest]) -> Replay:
    """A replay of the whole history for a job that has never run.

    Raises:
        TidemarkError: ALREADY_RUNS, where one of its queries has a checkpoint or one of its tables is there.
    """
    parts = [_new_part(settings, each) for each in manifests]
    with TopicTimes(settings.kafka) as times:
        topics = dict.fromkeys(topic for part in parts for topic in part.topics)
        readings = [reading(settings, times, topic, None, None) for topic in topics]
        return _replay(settings, times, "backfill", asked, parts, readings)


def _new_part(settings: Settings, each: Manifest) -> Part:
    for rows in each.tables:
        if table_version(settings, rows.table) is not None:
            remedy = "a backfill is for a job that has never run: replay a range of this one by --from and --to"
            raise TidemarkError("ALREADY_RUNS", f"job {each.job} has a table {rows.table} already", remedy)
    tables = tuple(Replacement(rows) for rows in each.tables)
    return Part(each.query, each.name, each.topics, tables, each.topic, each.reach.back.total_seconds())


def _part(settings: Settings, live: Live, edges: Edges, context: timedelta | None) -> tuple[Part, Edges]:
    """An output as it is replayed, and the range of time to be read for it."""
    kept, (since, until) = live.manifest, edges
    spread = kept.reach.context if context is None else context
    start, end = _moved(since, -kept.reach.back), _moved(until, kept.reach.ahead)
    if start and kept.reach.back >= DAY:
        start = _midnight(start)
    tables = []
    for rows in kept.tables:
        from_, to = (start, _closed(live, rows, end)) if rows.event_time else (None, None)
        tables.append(Replacement(rows, from_, to, table_version(settings, rows.table)))
        if to and from_ and to <= from_:
            remedy = "ask for an earlier range, or wait until the live job's watermark has passed this one"
            message = f"the live query {kept.query} has not closed a window of the range yet (up to {to.isoformat()})"
            raise TidemarkError("WINDOWS_OPEN", message, remedy)
    ends = [each.until for each in tables if each.rows.event_time]
    end = max((at for at in ends if at), default=end)
    part = Part(kept.query, kept.name, kept.topics, tuple(tables), kept.topic, kept.reach.back.total_seconds())
    return part, (_moved(start, -spread), _moved(end, spread))


def _closed(live: Live, rows: Replaceable, until: datetime | None) -> datetime | None:
    """`until`, or where the live query's open windows begin: it would write those again."""
    if live.watermark is None:
        return until
    closed = live.watermark - live.manifest.reach.back
    if live.manifest.reach.back >= DAY:
        closed = _midnight(closed)
    return min(until, closed) if until else closed


def _midnight(at: datetime) -> datetime:
    """Before `at`: the column of such wide windows may be a date, whole days are replaced."""
    return datetime.combine(at.date(), time(), UTC)


def _moved(at: datetime | None, by: timedelta) -> datetime | None:
    return None if at is None else min(max(at, BEGINNING) + by, END)


def _union(one: Edges, other: Edges) -> Edges:
    since = min(one[0], other[0]) if one[0] and other[0] else None
    until = max(one[1], other[1]) if one[1] and other[1] else None
    return since, until


def _least(untils: Sequence[Partitions]) -> Partitions:
    """What all of several queries have read."""
    numbers = set.intersection(*map(set, untils)) if untils else set()
    return {number: min(until[number] for until in untils) for number in numbers}


def _greatest(one: Partitions, other: Partitions) -> Partitions:
    return {number: max(one.get(number, 0), other.get(number, 0)) for number in {*one, *other}}


def _replay(
    settings: Settings,
    times: TopicTimes,
    kind: str,
    asked: Asked,
    parts: Sequence[Part],
    readings: Sequence[Reading],
) -> Replay:
    count = sum(each.count for each in readings)
    if not count:
        raise TidemarkError("NOTHING_TO_REPLAY", "there is no record in the range", "ask for another one")
    cut = slices(times, readings, settings.replay.slice_records, asked.hold)
    starts = {each.topic: each.starts for each in readings}
    size = sum(each.count * _mean_bytes(times, each) for each in readings)
    return Replay(
        id=_id(kind, asked.job, starts, cut[-1].until, parts),
        job=asked.job,
        kind="backfill" if kind == "backfill" else "range",
        asked={"from": asked.start, "to": asked.end},
        starts=starts,
        slices=cut,
        parts=tuple(parts),
        code=code.version(),
        planned_at=datetime.now(UTC),
        records=count,
        bytes=round(size),
    )


def _mean_bytes(times: TopicTimes, found: Reading) -> float:
    for partition, until in found.untils.items():
        if until > found.starts[partition]:
            earliest = times.edges(found.topic)[0][partition]
            return times.mean_bytes(found.topic, partition, max(found.starts[partition], earliest))
    return 0.0


def _id(
    kind: str, job: str, starts: Mapping[str, Partitions], untils: Mapping[str, Partitions], parts: Sequence[Part]
) -> str:
    replaced = [
        [part.query, each.rows.table, str(each.start), str(each.until)] for part in parts for each in part.tables
    ]
    text = json.dumps([kind, job, starts, untils, replaced, code.version()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
