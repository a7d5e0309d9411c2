"""One sequence out of several topics, in order, disordered on request, paced on request."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from producers.flights.events import Events
from producers.flights.publish import Timeline, disturbed, flight_blocks, in_order
from producers.kafka.pacing import MAX_BATCH, Pace, Pacer
from producers.kafka.publisher import Batch, never
from producers.kafka.tables import TopicEncoder, encoded_batches


def events(prefix: str, times: Sequence[int]) -> Events:
    names = [f"{prefix}{number}" for number in range(len(times))]
    return Events(pa.table({"name": names}), np.array(times, dtype=np.int64))


TOPICS = {"a": events("a", [5, 10, 20]), "b": events("b", [10, 15]), "none": events("none", [])}
MINUTE_MS = 60_000


def encode(table: pa.Table) -> list[bytes]:
    # A trailing zero byte, such as a null at a record's end, is what a careless array of bytes loses.
    return [name.encode() + b"\x00" for name in table["name"].to_pylist()]


def published(topics: dict[str, Events]) -> list[Batch]:
    timeline, encoders = in_order(topics), dict.fromkeys(topics, TopicEncoder(encode, "name"))
    return list(encoded_batches(flight_blocks(timeline, topics), encoders, Pacer(len(timeline)), never))


def many(count: int) -> Timeline:
    return in_order({"a": events("a", range(0, count * 1000, 1000))})


def test_topics_are_merged_by_event_time_and_ties_go_by_the_order_of_topics() -> None:
    [batch] = published(TOPICS)
    assert batch == Batch(
        topics=["a", "a", "b", "b", "a"],
        values=[b"a0\x00", b"a1\x00", b"b0\x00", b"b1\x00", b"a2\x00"],
        keys=["a0", "a1", "b0", "b1", "a2"],
        timestamps=[5, 10, 10, 15, 20],
    )


def test_a_long_timeline_comes_in_batches_that_follow_each_other() -> None:
    made = published({"a": events("a", range(2 * MAX_BATCH + 1))})
    assert [len(batch.values) for batch in made] == [MAX_BATCH, MAX_BATCH, 1]
    assert [stamp for batch in made for stamp in batch.timestamps] == list(range(2 * MAX_BATCH + 1))


def test_disorder_delays_each_event_within_its_bound_and_keeps_event_times() -> None:
    timeline = disturbed(many(5_000), seed=7, disorder_ms=10 * MINUTE_MS, duplicates=0.0)
    late = timeline.position - timeline.event_time
    assert (late >= 0).all()
    assert 0.9 * 10 * MINUTE_MS < late.max() <= 10 * MINUTE_MS
    assert (np.diff(timeline.position) >= 0).all()
    assert (np.diff(timeline.event_time) < 0).any()
    assert sorted(timeline.row.tolist()) == list(range(5_000))


def test_duplicates_are_the_share_asked_for_and_follow_their_originals() -> None:
    timeline = disturbed(many(20_000), seed=7, disorder_ms=0, duplicates=0.01)
    rows, counts = np.unique(timeline.row, return_counts=True)
    assert len(rows) == 20_000
    assert set(counts.tolist()) == {1, 2}
    assert 150 < (counts == 2).sum() < 250
    for row in rows[counts == 2]:
        original, copy = np.flatnonzero(timeline.row == row)
        assert 0 < timeline.position[copy] - timeline.position[original] <= MINUTE_MS


def test_one_seed_gives_one_sequence_and_another_another() -> None:
    runs = [disturbed(many(1_000), seed, MINUTE_MS, 0.1).row.tolist() for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("pace", "seconds"),
    [
        (Pace(speed=10), 9.9),
        (Pace(rate=5), 19.8),
        (Pace(speed=10, rate=5), 19.8),
        (Pace(speed=1, rate=5), 99),
        (Pace(), 0),
    ],
)
def test_a_pace_is_kept(pace: Pace, seconds: float) -> None:
    timeline, clock = many(100), Clock()
    pacer = Pacer(len(timeline), pace.due(timeline.position), clock.wait, clock)
    due = pace.due(timeline.position)
    end = 0
    while end < len(timeline):
        start, end = end, pacer.end_of_batch(end, never)
        assert end > start
        assert due is None or due[end - 1] <= clock() - 100 + 1e-9
    assert seconds <= clock() - 100 < seconds + 0.3


def test_a_pacer_that_is_stopped_waits_no_longer() -> None:
    clock = Clock()
    pacer = Pacer(10, Pace(rate=0.001).due(np.arange(10)), clock.wait, clock)
    assert pacer.end_of_batch(0, never) == 1
    assert pacer.end_of_batch(1, lambda: clock() > 101) == 1
    assert clock() < 102
