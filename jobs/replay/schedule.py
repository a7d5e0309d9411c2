"""Which periods of the past are due: closed by the live job, and in no replay that was cut over."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from jobs.connectors.positions import parse_position
from jobs.replay.live import Live
from jobs.replay.record import Replay

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Period = tuple[datetime, datetime]


def due(lives: Sequence[Live], replays: Sequence[Replay], every: timedelta, since: datetime | None) -> list[Period]:
    """The periods that are due, the oldest first; periods begin at multiples of `every` since 1970.

    Args:
        since: of the first period; None: the end of the newest replay that is done, or the last closed period.
    """
    marks = [live.watermark - live.manifest.reach.back for live in lives if live.watermark]
    if not marks:
        return []
    closed = _floor(min(marks), every)
    done = [span for each in replays if each.state == "done" and (span := _span(each))]
    first = _floor(since, every) if since else max((end for _, end in done), default=closed - every)
    return [period for period in _periods(first, closed, every) if not _is_covered(period, done)]


def _periods(first: datetime, until: datetime, every: timedelta) -> Iterator[Period]:
    while first + every <= until:
        yield first, first + every
        first += every


def _is_covered(period: Period, done: Sequence[Period]) -> bool:
    """Whether the done replays hold all of the period, one after the other."""
    at = period[0]
    for start, end in sorted(done):
        if start <= at < end:
            at = end
    return at >= period[1]


def _span(replay: Replay) -> Period | None:
    start, end = (parse_position(replay.asked[edge]) for edge in ("from", "to"))
    since = start if isinstance(start, datetime) else EPOCH if start == "earliest" else None
    return (since, end) if since is not None and isinstance(end, datetime) else None


def _floor(at: datetime, every: timedelta) -> datetime:
    return EPOCH + (at - EPOCH) // every * every
