"""What is asked for: a range by times or by offsets, and what it comes to on a topic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from conf.errors import TidemarkError, nearest
from conf.settings import Settings
from jobs.connectors.positions import Offsets, Position
from jobs.connectors.topic_times import TopicTimes
from jobs.replay.archive import Archive
from jobs.replay.live import Live
from jobs.replay.reading import Reading
from jobs.replay.record import Partitions

Edges = tuple[datetime | None, datetime | None]


@dataclass(frozen=True)
class Asked:
    """What is to be replayed.

    Args:
        start, end: positions as `jobs.connectors.positions` reads them.
        context: read so much more on both sides; None for what the job's plan says.
        hold: trust no watermark before all is read.
    """

    job: str
    start: str = "earliest"
    end: str = "latest"
    context: timedelta | None = None
    hold: bool = False


def named(position: Position) -> set[str]:
    """The topics whose offsets are given."""
    return set(position) if isinstance(position, Mapping) else set()


def readers(lives: Sequence[Live], topics: set[str]) -> list[Live]:
    """Those that read one of `topics`; all, where none is named."""
    found = [live for live in lives if not topics or topics & set(live.manifest.topics)]
    if not found:
        known = sorted({topic for live in lives for topic in live.manifest.topics})
        message = f"the job does not read {', '.join(sorted(topics))}"
        raise TidemarkError("BAD_POSITION", message, nearest(min(topics), known))
    return found


def event_times(settings: Settings, times: TopicTimes, start: Position, end: Position) -> Edges:
    """The range of event time that the two positions enclose; None: without an end on that side."""
    if isinstance(start, Mapping) or isinstance(end, Mapping):
        return _times_of_offsets(settings, times, start, end)
    since = start if isinstance(start, datetime) else None
    until = end if isinstance(end, datetime) else None
    if start == "latest" or (since and until and since >= until):
        raise TidemarkError("NOTHING_TO_REPLAY", "the range ends before it begins", "let --from be before --to")
    return since, until


def _times_of_offsets(settings: Settings, times: TopicTimes, start: Position, end: Position) -> Edges:
    found: list[int] = []
    for topic in sorted(named(start) | named(end)):
        tracks = Archive(settings, topic).tracks(None, None)
        earliest, latest = times.edges(topic)
        for number in earliest:
            low, high = _offset(start, topic, number, 0), _offset(end, topic, number, latest[number])
            track = tracks.get(number)
            inside = track.between(low, high) if track else ()
            if len(inside):
                found += [int(min(inside)), int(max(inside))]
            elif low < high:
                found += times.span(topic, number, max(low, earliest[number]), high) or ()
    if not found:
        raise TidemarkError("NOTHING_TO_REPLAY", "there is no record between these offsets", "name others, or times")
    zero = datetime(1970, 1, 1, tzinfo=UTC)
    return zero + timedelta(milliseconds=min(found)), zero + timedelta(milliseconds=max(found) + 1)


def _offset(position: Position, topic: str, partition: int, otherwise: int) -> int:
    if isinstance(position, Mapping):
        return int(position.get(topic, {}).get(partition, otherwise))
    return otherwise


def clipped(found: Reading, start: Position, end: Position) -> Reading:
    """Exactly the offsets that were asked for, where offsets were."""
    starts = _given(start, found.topic, found.starts)
    untils = _given(end, found.topic, found.untils)
    return Reading(found.topic, starts, {n: max(starts[n], at) for n, at in untils.items()}, found.tracks)


def _given(position: Position, topic: str, found: Partitions) -> Partitions:
    given: Offsets = position if isinstance(position, Mapping) else {}
    return {number: given.get(topic, {}).get(number, at) for number, at in found.items()}
