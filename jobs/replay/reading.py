"""Which offsets a range of time is in each partition of a topic, and where to cut them into slices of equal time.

Times are record times. Bronze, where it is, knows them all: then records that came late are found wherever they lie.
Without it the brokers' index is asked, which finds the first record of a time, not the last.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import numpy as np

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.topic_times import TopicTimes
from jobs.replay.archive import Archive, Track
from jobs.replay.record import Partitions, Slice

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Reading:
    """The offsets [starts, untils) of a topic; `tracks`: of all their records, None where not all are in bronze."""

    topic: str
    starts: Partitions
    untils: Partitions
    tracks: Mapping[int, Track] | None

    @property
    def count(self) -> int:
        """Offsets, over all partitions."""
        return sum(until - self.starts[partition] for partition, until in self.untils.items())


def reading(
    settings: Settings,
    times: TopicTimes,
    topic: str,
    start: datetime | None,
    until: datetime | None,
    most: Partitions = MappingProxyType({}),
    least: Partitions = MappingProxyType({}),
) -> Reading:
    """Where records of `topic` with times in [start, until) lie; None: from the first, to the last.

    Args:
        most: offsets before which reading ends at the latest, by partition; least: at the earliest, where records with
            such times are known to lie.

    Raises:
        TidemarkError: RANGE_GONE, where retention has removed some and bronze does not hold them.
    """
    archive = Archive(settings, topic)
    tracks = archive.tracks(start, until)
    earliest, latest = times.edges(topic)
    firsts = times.at(topic, start, latest) if start else earliest
    lasts = times.at(topic, until, latest) if until else latest
    starts, untils = {}, {}
    for partition in earliest:
        track = tracks.get(partition)
        starts[partition] = min(firsts[partition], int(track.offsets[0])) if track else firsts[partition]
        known = int(track.offsets[-1]) + 1 if track else 0
        untils[partition] = max(lasts[partition], known, least.get(partition, 0))
        untils[partition] = max(starts[partition], min(untils[partition], most.get(partition, untils[partition])))
        if archive.until.get(partition, 0) < earliest[partition] and firsts[partition] == earliest[partition]:
            raise _gone(topic, partition, times.time_at(topic, partition, earliest[partition]), earliest[partition])
    whole = archive.exists and all(archive.until.get(number, 0) >= until for number, until in untils.items())
    return Reading(topic, starts, untils, tracks if whole else None)


def _gone(topic: str, partition: int, time_ms: int | None, earliest: int) -> TidemarkError:
    message = f"{topic} partition {partition}: records before offset {earliest} are gone, and bronze does not hold them"
    begin = "" if time_ms is None else f" after {_moment(time_ms).isoformat()}"
    return TidemarkError("RANGE_GONE", message, f"begin later{begin}, the job's context included, or restore bronze")


def slices(times: TopicTimes, readings: Sequence[Reading], size: int, hold: bool) -> tuple[Slice, ...]:
    """The readings cut at the same times in all partitions, in slices of about `size` records.

    Args:
        hold: trust no watermark before all is read.
    """
    total = sum(each.count for each in readings)
    wanted = max(1, round(total / size))
    cuts = _cuts(times, max(readings, key=lambda each: each.count), wanted)
    untils = [_offsets_at(times, readings, cut) for cut in cuts] + [{each.topic: each.untils for each in readings}]
    untils = list(_growing(readings, untils))
    trusted = _trusted(readings, untils) if not hold else [-1] * (len(untils) - 1)
    names = [_moment(cut).isoformat() for cut in cuts] + [""]
    return tuple(map(Slice, untils, [*trusted, len(untils) - 1], names))


def _cuts(times: TopicTimes, longest: Reading, wanted: int) -> list[int]:
    """Times, ms since 1970, between which about as many records of the longest reading lie."""
    if wanted == 1 or not longest.count:
        return []
    if longest.tracks is not None:
        every = np.concatenate([track.times for track in longest.tracks.values()])
        found = [int(at) for at in np.quantile(every, np.arange(1, wanted) / wanted, method="nearest")]
    else:
        partition = max(longest.untils, key=lambda number: longest.untils[number] - longest.starts[number])
        start, until = longest.starts[partition], longest.untils[partition]
        at = [start + (until - start) * number // wanted for number in range(1, wanted)]
        found = [time for offset in at if (time := times.time_at(longest.topic, partition, offset)) is not None]
    return sorted(set(found))


def _offsets_at(times: TopicTimes, readings: Sequence[Reading], cut_ms: int) -> dict[str, Partitions]:
    return {each.topic: _offsets_of(times, each, cut_ms) for each in readings}


def _offsets_of(times: TopicTimes, reading: Reading, cut_ms: int) -> Partitions:
    if reading.tracks is None:
        return times.at(reading.topic, _moment(cut_ms), reading.untils)
    firsts = {partition: track.first_at(cut_ms) for partition, track in reading.tracks.items()}
    return {
        partition: until if (first := firsts.get(partition)) is None else first
        for partition, until in reading.untils.items()
    }


def _growing(readings: Sequence[Reading], untils: list[dict[str, Partitions]]) -> Iterator[dict[str, Partitions]]:
    """Within the readings, and never back."""
    last: dict[str, Partitions] = {each.topic: each.starts for each in readings}
    ends = {each.topic: each.untils for each in readings}
    for until in untils:
        last = {
            topic: {
                number: min(max(before, until[topic][number]), ends[topic][number]) for number, before in of.items()
            }
            for topic, of in last.items()
        }
        yield last


def _trusted(readings: Sequence[Reading], untils: Sequence[Mapping[str, Partitions]]) -> list[int]:
    """For each slice but the last, the latest one whose records are all before those that still come; see `Slice`."""
    if any(each.tracks is None for each in readings):
        return [-1] * (len(untils) - 1)
    latest = [max(_times(readings, until, "before"), default=None) for until in untils[:-1]]
    to_come = [min(_times(readings, until, "since"), default=None) for until in untils[:-1]]
    found = []
    for number, ahead in enumerate(to_come):
        behind = latest[: number + 1]
        safe = [at for at, time in enumerate(behind) if time is None or ahead is None or time <= ahead]
        found.append(max(safe, default=-1))
    return found


def _times(readings: Sequence[Reading], until: Mapping[str, Partitions], side: str) -> Iterator[int]:
    """The latest times before these offsets, by partition, or the earliest from there on."""
    for each in readings:
        for partition, track in (each.tracks or {}).items():
            offset = until[each.topic][partition]
            times = track.between(until=offset) if side == "before" else track.between(offset)
            if len(times):
                yield int(times.max() if side == "before" else times.min())


def _moment(time_ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=time_ms)
