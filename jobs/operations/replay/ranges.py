"""Finds the event times that a request encloses, the offsets that hold them, and the times that cut these into slices.

Times are record times. Bronze, where it is, knows them all: then records that came late are found wherever they lie.
Without it the brokers' index is asked, which finds the first record of a time, not the last.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.kafka.offsets import EPOCH, OffsetLookup, Partitions, Position, require_offsets
from jobs.operations.replay.live_job import live_queries, time_condition
from jobs.operations.replay.record import Slice
from jobs.pipeline import paths
from jobs.pipeline.paths import find_stored

Integers = npt.NDArray[np.int64]
INGEST = "ingest"  # the job that writes bronze
TimeRange = tuple[datetime | None, datetime | None]


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
    return _datetime(min(times_ms)), _datetime(max(times_ms) + 1)


def topics_named(position: Position) -> set[str]:
    """Return the topics whose offsets are given."""
    return set(position) if isinstance(position, Mapping) else set()


def _of_partition(position: Position, topic: str, partition: int, first: int, last: int, otherwise: int) -> int:
    """Return the offset that a position names of a partition; -2 and -1 mean its first and its last, as Spark has it.

    Args:
        otherwise: where it names none.
    """
    given = position.get(topic, {}).get(partition, otherwise) if isinstance(position, Mapping) else otherwise
    return {-2: first, -1: last}.get(given, given)


@dataclass(frozen=True)
class RecordTimes:
    """The times at which the records of one partition were written: `offsets`, and `times` in ms since 1970."""

    offsets: Integers
    times: Integers

    def first_at(self, time_ms: int) -> int | None:
        """Return the first offset with a time at or after `time_ms`; None for none."""
        index = int(np.searchsorted(np.maximum.accumulate(self.times), time_ms)) if len(self.times) else 0
        return int(self.offsets[index]) if index < len(self.offsets) else None

    def between(self, start: int | None = None, until: int | None = None) -> Integers:
        """Return the times of the records with offsets in [start, until); None: from the first, to the last."""
        first, end = (None if edge is None else int(np.searchsorted(self.offsets, edge)) for edge in (start, until))
        return self.times[first:end]


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


def clip_to_positions(span: TopicRange, start: Position, end: Position) -> TopicRange:
    """Return `span` with exactly the offsets that were asked for, where offsets were."""
    starts, untils = {}, {}
    for partition, first in span.starts.items():
        last = span.untils[partition]
        starts[partition] = _of_partition(start, span.topic, partition, first, last, otherwise=first)
        until = _of_partition(end, span.topic, partition, first, last, otherwise=last)
        untils[partition] = max(starts[partition], until)
    return TopicRange(span.topic, starts, untils, span.times)


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
            gone = f"records before offset {edge} are gone, and bronze does not hold them"
            time_ms = lookup.time_at(topic, partition, edge)
            begin = "" if time_ms is None else f" after {_datetime(time_ms).isoformat()}"
            remedy = f"begin later{begin}, the job's context included, or restore bronze"
            raise TidemarkError("RANGE_GONE", f"{topic} partition {partition}: {gone}", remedy)
    is_whole = bronze.exists and all(bronze.until.get(partition, 0) >= end for partition, end in untils.items())
    return TopicRange(topic, starts, untils, times if is_whole else None)


def cut_slices(
    lookup: OffsetLookup, ranges: Sequence[TopicRange], size: int, hold_watermark: bool
) -> tuple[Slice, ...]:
    """Return the ranges cut at the same times in all partitions, in slices of about `size` records.

    Args:
        hold_watermark: let the watermark wait until all is read.
    """
    count = max(1, round(sum(span.count for span in ranges) / size))
    cuts = _cuts(lookup, max(ranges, key=lambda span: span.count), count)
    untils = [{span.topic: _offsets_of(lookup, span, cut) for span in ranges} for cut in cuts]
    untils.append({span.topic: span.untils for span in ranges})
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


class BronzeIndex:
    """Which records of `topic` the table bronze holds now, and when they were written.

    Attributes:
        exists: whether there is such a table.
        until: before which offset of each partition all are in it.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings, self._name = settings, paths.bronze(topic)
        self.exists = find_stored(settings, self._name) is not None
        queries = live_queries(settings, INGEST) if self.exists else []
        self.until = next((dict(query.until[topic]) for query in queries if topic in query.until), {})

    def record_times(self, from_time: datetime | None, until: datetime | None) -> dict[int, RecordTimes]:
        """Return the records with times in [from_time, until), by partition; None: from the first, to the last."""
        # Opened after `until` was read: it has all of those.
        table = find_stored(self._settings, self._name) if self.exists else None
        if table is None:
            return {}
        rows = table.rows(["partition", "offset", "timestamp"], time_condition("timestamp", from_time, until))
        partitions, offsets = (rows[name].to_numpy() for name in ("partition", "offset"))
        times = rows["timestamp"].cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64()).to_numpy()
        order = np.lexsort((offsets, partitions))
        partitions, offsets, times = partitions[order], offsets[order], times[order]
        numbers, firsts = np.unique(partitions, return_index=True)
        edges = [*firsts.tolist(), len(partitions)]
        return {
            int(number): RecordTimes(offsets[first:end], times[first:end])
            for number, first, end in zip(numbers, edges, edges[1:], strict=False)
        }
