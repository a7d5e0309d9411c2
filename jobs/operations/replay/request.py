"""Reads what a replay is requested for: a range by times or by offsets, and which part of a topic that is."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from conf.durations import milliseconds
from conf.errors import TidemarkError, nearest
from conf.settings import Settings
from jobs.connectors.kafka.offsets import OffsetLookup, Offsets, Position, parse_position
from jobs.operations.replay.live_job import BronzeIndex, LiveQuery
from jobs.operations.replay.offsets_by_time import TopicRange
from jobs.operations.replay.record import Partitions

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


def topics_named(position: Position) -> set[str]:
    """Return the topics whose offsets are given."""
    return set(position) if isinstance(position, Mapping) else set()


def queries_reading(queries: Sequence[LiveQuery], topics: set[str]) -> list[LiveQuery]:
    """Select the queries that read one of `topics`; all, where none is named. BAD_POSITION where there is none."""
    reading = [query for query in queries if not topics or topics & set(query.manifest.topics)]
    if not reading:
        known = sorted({topic for query in queries for topic in query.manifest.topics})
        message = f"the job does not read {', '.join(sorted(topics))}"
        raise TidemarkError("BAD_POSITION", message, nearest(min(topics), known))
    return reading


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
        for partition in earliest:
            low, high = _offset(start, topic, partition, 0), _offset(end, topic, partition, latest[partition])
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


def _offset(position: Position, topic: str, partition: int, otherwise: int) -> int:
    if isinstance(position, Mapping):
        return int(position.get(topic, {}).get(partition, otherwise))
    return otherwise


def clip_to_positions(span: TopicRange, start: Position, end: Position) -> TopicRange:
    """Return `span` with exactly the offsets that were asked for, where offsets were."""
    starts = _given(start, span.topic, span.starts)
    untils = _given(end, span.topic, span.untils)
    untils = {partition: max(starts[partition], until) for partition, until in untils.items()}
    return TopicRange(span.topic, starts, untils, span.times)


def _given(position: Position, topic: str, otherwise: Partitions) -> dict[int, int]:
    given: Offsets = position if isinstance(position, Mapping) else {}
    return {partition: given.get(topic, {}).get(partition, offset) for partition, offset in otherwise.items()}
