"""Slices of equal time, and when a watermark may be trusted."""

import numpy as np

from jobs.connectors.kafka.offsets import OffsetLookup
from jobs.operations.replay.ranges import RecordTimes, TopicRange, cut_slices

NO_BROKER: OffsetLookup = None  # type: ignore[assignment]  # what bronze knows is asked of nobody else


def reading(*partitions: list[int], topic: str = "t") -> TopicRange:
    """Record times by partition, offsets from 0 on."""
    tracks = {
        number: RecordTimes(np.arange(len(times), dtype=np.int64), np.array(times, dtype=np.int64))
        for number, times in enumerate(partitions)
    }
    ends = {number: len(times) for number, times in enumerate(partitions)}
    return TopicRange(topic, dict.fromkeys(ends, 0), ends, tracks)


def test_a_slice_ends_at_the_same_time_in_all_partitions() -> None:
    found = cut_slices(NO_BROKER, [reading(list(range(0, 100, 10)), list(range(0, 100, 50)))], 6, hold_watermark=False)
    assert [each.until["t"] for each in found] == [{0: 5, 1: 1}, {0: 10, 1: 2}]
    assert [each.watermark_slice for each in found] == [0, 1]


def test_topics_are_cut_at_the_same_times() -> None:
    found = cut_slices(NO_BROKER, [reading([1, 2, 3, 4]), reading([3, 4, 9], topic="u")], 3, hold_watermark=False)
    assert [(each.until["t"][0], each.until["u"][0]) for each in found] == [(2, 0), (4, 3)]


def test_a_late_record_keeps_the_watermark_back_until_it_is_read() -> None:
    found = cut_slices(NO_BROKER, [reading([10, 20, 30, 40, 50, 15, 60, 70])], 2, hold_watermark=False)
    assert [each.until["t"][0] for each in found] == [1, 3, 4, 8]
    # Only the first slice, of time 10, is safely before the late record, of time 15.
    assert [each.watermark_slice for each in found] == [0, 0, 0, 3]


def test_a_watermark_is_held_where_that_is_asked_for_or_bronze_lacks_records() -> None:
    whole = reading([1, 2, 3, 4])
    assert [each.watermark_slice for each in cut_slices(NO_BROKER, [whole], 2, hold_watermark=True)] == [-1, 1]


def test_the_first_offset_of_a_time_is_before_later_ones_that_are_late() -> None:
    track = RecordTimes(np.array([3, 5, 6, 9]), np.array([10, 30, 20, 40]))
    assert [track.first_at(time) for time in (5, 10, 11, 20, 30, 31, 41)] == [3, 3, 5, 5, 5, 9, None]
