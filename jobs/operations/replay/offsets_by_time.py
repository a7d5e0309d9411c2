"""Finds which offsets hold a range of time in each partition of a topic, and the times that cut them into slices.

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
from jobs.connectors.kafka.offsets import OffsetLookup
from jobs.operations.replay.live_job import BronzeIndex, RecordTimes
from jobs.operations.replay.record import Partitions, Slice

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class TopicRange:
    """The offsets [starts, untils) of a topic; `times`: of all their records, None where not all are in bronze."""

    topic: str
    starts: Partitions
    untils: Partitions
    times: Mapping[int, RecordTimes] | None

    @property
    def count(self) -> int:
        """Return offsets, over all partitions."""
        return sum(until - self.starts[partition] for partition, until in self.untils.items())


def topic_range(
    settings: Settings,
    lookup: OffsetLookup,
    topic: str,
    start: datetime | None,
    until: datetime | None,
    most: Partitions = MappingProxyType({}),
    least: Partitions = MappingProxyType({}),
) -> TopicRange:
    """Return where records of `topic` with times in [start, until) lie; None: from the first, to the last.

    Args:
        most: offsets before which reading ends at the latest, by partition; least: at the earliest, where records with
            such times are known to lie.

    Raises:
        TidemarkError: RANGE_GONE, where retention has removed some and bronze does not hold them.
    """
    bronze = BronzeIndex(settings, topic)
    times = bronze.record_times(start, until)
    earliest, latest = lookup.edges(topic)
    firsts = lookup.at(topic, start, latest) if start else earliest
    lasts = lookup.at(topic, until, latest) if until else latest
    starts, untils = {}, {}
    for partition, edge in earliest.items():
        known = times.get(partition)
        starts[partition] = min(firsts[partition], int(known.offsets[0])) if known else firsts[partition]
        untils[partition] = max(lasts[partition], int(known.offsets[-1]) + 1 if known else 0, least.get(partition, 0))
        untils[partition] = max(starts[partition], min(untils[partition], most.get(partition, untils[partition])))
        if bronze.until.get(partition, 0) < edge and firsts[partition] == edge:
            raise _gone(topic, partition, lookup.time_at(topic, partition, edge), edge)
    is_whole = bronze.exists and all(bronze.until.get(partition, 0) >= end for partition, end in untils.items())
    return TopicRange(topic, starts, untils, times if is_whole else None)


def _gone(topic: str, partition: int, time_ms: int | None, earliest: int) -> TidemarkError:
    message = f"{topic} partition {partition}: records before offset {earliest} are gone, and bronze does not hold them"
    begin = "" if time_ms is None else f" after {_datetime(time_ms).isoformat()}"
    return TidemarkError("RANGE_GONE", message, f"begin later{begin}, the job's context included, or restore bronze")


def cut_slices(
    lookup: OffsetLookup, ranges: Sequence[TopicRange], size: int, hold_watermark: bool
) -> tuple[Slice, ...]:
    """Return the ranges cut at the same times in all partitions, in slices of about `size` records.

    Args:
        hold_watermark: let the watermark wait until all is read.
    """
    count = max(1, round(sum(span.count for span in ranges) / size))
    cuts = _cuts(lookup, max(ranges, key=lambda span: span.count), count)
    untils = [_offsets_at(lookup, ranges, cut) for cut in cuts] + [{span.topic: span.untils for span in ranges}]
    untils = list(_growing(ranges, untils))
    last = len(untils) - 1
    watermark_slices = [-1] * last if hold_watermark else _watermark_slices(ranges, untils)
    names = [_datetime(cut).isoformat() for cut in cuts] + [""]
    return tuple(map(Slice, untils, [*watermark_slices, last], names))


def _cuts(lookup: OffsetLookup, longest: TopicRange, count: int) -> list[int]:
    """Return times, ms since 1970, that cut the longest range into parts of about equally many records."""
    if count == 1 or not longest.count:
        return []
    if longest.times is not None:
        times = np.concatenate([known.times for known in longest.times.values()])
        cuts = [int(time) for time in np.quantile(times, np.arange(1, count) / count, method="nearest")]
    else:
        partition = max(longest.untils, key=lambda number: longest.untils[number] - longest.starts[number])
        start, until = longest.starts[partition], longest.untils[partition]
        offsets = [start + (until - start) * number // count for number in range(1, count)]
        cuts = [time for offset in offsets if (time := lookup.time_at(longest.topic, partition, offset)) is not None]
    return sorted(set(cuts))


def _offsets_at(lookup: OffsetLookup, ranges: Sequence[TopicRange], cut_ms: int) -> dict[str, Partitions]:
    return {span.topic: _offsets_of(lookup, span, cut_ms) for span in ranges}


def _offsets_of(lookup: OffsetLookup, span: TopicRange, cut_ms: int) -> Partitions:
    if span.times is None:
        return lookup.at(span.topic, _datetime(cut_ms), span.untils)
    firsts = {partition: known.first_at(cut_ms) for partition, known in span.times.items()}
    return {
        partition: until if (first := firsts.get(partition)) is None else first
        for partition, until in span.untils.items()
    }


def _growing(ranges: Sequence[TopicRange], untils: list[dict[str, Partitions]]) -> Iterator[dict[str, Partitions]]:
    """Yield the ends of slices, kept within the ranges and never before the end of the slice before."""
    last: dict[str, Partitions] = {span.topic: span.starts for span in ranges}
    ends = {span.topic: span.untils for span in ranges}
    for until in untils:
        last = {
            topic: {
                partition: min(max(before, until[topic][partition]), ends[topic][partition])
                for partition, before in partitions.items()
            }
            for topic, partitions in last.items()
        }
        yield last


def _watermark_slices(ranges: Sequence[TopicRange], untils: Sequence[Mapping[str, Partitions]]) -> list[int]:
    """Find, for each slice but the last, the last slice up to which no record is later than those to come (`Slice`)."""
    if any(span.times is None for span in ranges):
        return [-1] * (len(untils) - 1)
    latest = [max(_times(ranges, until, "before"), default=None) for until in untils[:-1]]
    to_come = [min(_times(ranges, until, "since"), default=None) for until in untils[:-1]]
    slices = []
    for number, first in enumerate(to_come):
        times = latest[: number + 1]
        safe = [slice for slice, time in enumerate(times) if time is None or first is None or time <= first]
        slices.append(max(safe, default=-1))
    return slices


def _times(ranges: Sequence[TopicRange], until: Mapping[str, Partitions], side: str) -> Iterator[int]:
    """Yield the latest times before these offsets, by partition, or the earliest from there on."""
    for span in ranges:
        for partition, known in (span.times or {}).items():
            offset = until[span.topic][partition]
            times = known.between(until=offset) if side == "before" else known.between(offset)
            if len(times):
                yield int(times.max() if side == "before" else times.min())


def _datetime(time_ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=time_ms)
