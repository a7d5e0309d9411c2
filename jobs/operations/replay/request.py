"""Reads what a replay is requested for: a range by times or by offsets, and which part of a topic that is."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from conf.errors import TidemarkError, nearest
from conf.setting_types import milliseconds
from conf.settings import Settings
from jobs.connectors.kafka.offsets import OffsetLookup, Position, parse_position, require_offsets
from jobs.operations.replay.live_job import BronzeIndex, LiveQuery
from jobs.operations.replay.offsets_by_time import TopicRange

TimeRange = tuple[datetime | None, datetime | None]


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


def topics_named(position: Position) -> set[str]:
    """Return the topics whose offsets are given."""
    return set(position) if isinstance(position, Mapping) else set()


def queries_reading(queries: Sequence[LiveQuery], topics: set[str]) -> list[LiveQuery]:
    """Select the queries that read one of `topics`; all, where none is named. BAD_POSITION where none reads one."""
    known = sorted({topic for query in queries for topic in query.manifest.topics})
    if unread := sorted(topics - set(known)):
        message = f"the job does not read {', '.join(unread)}"
        raise TidemarkError("BAD_POSITION", message, nearest(unread[0], known))
    return [query for query in queries if not topics or topics & set(query.manifest.topics)]


def event_time_range(settings: Settings, lookup: OffsetLookup, start: Position, end: Position) -> TimeRange:
    """Return the range of event time that the two positions enclose; None: without an end on that side.

    Raises:
        TidemarkError: NOTHING_TO_REPLAY.
    """
    if isinstance(start, Mapping) or isinstance(end, Mapping):
        return _times_of_offsets(settings, lookup, start, end)
    since = start if isinstance(start, datetime) else None
    until = end if isinstance(end, datetime) else None
    if start == "latest" or (since and until and since >= until):
        raise TidemarkError("NOTHING_TO_REPLAY", "the range ends before it begins", "let --from be before --to")
    return since, until


def _times_of_offsets(settings: Settings, lookup: OffsetLookup, start: Position, end: Position) -> TimeRange:
    times_ms: list[int] = []
    for topic in sorted(topics_named(start) | topics_named(end)):
        in_bronze = BronzeIndex(settings, topic).record_times(None, None)
        earliest, latest = lookup.edges(topic)
        for position in (start, end):
            require_offsets(topic, position.get(topic, {}) if isinstance(position, Mapping) else {}, latest)
        for partition in earliest:
            last = latest[partition]
            low = _of_partition(start, topic, partition, 0, last, otherwise=0)
            high = _of_partition(end, topic, partition, 0, last, otherwise=last)
            known = in_bronze.get(partition)
            times = known.between(low, high) if known else ()
            if len(times):
                times_ms += [int(min(times)), int(max(times))]
            elif low < high:
                times_ms += lookup.span(topic, partition, max(low, earliest[partition]), high) or ()
    if not times_ms:
        raise TidemarkError("NOTHING_TO_REPLAY", "there is no record between these offsets", "name others, or times")
    zero = datetime(1970, 1, 1, tzinfo=UTC)
    return zero + timedelta(milliseconds=min(times_ms)), zero + timedelta(milliseconds=max(times_ms) + 1)


def _of_partition(position: Position, topic: str, partition: int, first: int, last: int, otherwise: int) -> int:
    """Return the offset that a position names of a partition; -2 and -1 mean its first and its last, as Spark has it.

    Args:
        otherwise: where it names none.
    """
    given = position.get(topic, {}).get(partition, otherwise) if isinstance(position, Mapping) else otherwise
    return {-2: first, -1: last}.get(given, given)


def clip_to_positions(span: TopicRange, start: Position, end: Position) -> TopicRange:
    """Return `span` with exactly the offsets that were asked for, where offsets were."""
    starts, untils = {}, {}
    for partition, first in span.starts.items():
        last = span.untils[partition]
        starts[partition] = _of_partition(start, span.topic, partition, first, last, otherwise=first)
        until = _of_partition(end, span.topic, partition, first, last, otherwise=last)
        untils[partition] = max(starts[partition], until)
    return TopicRange(span.topic, starts, untils, span.times)
