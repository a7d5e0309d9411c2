"""Events of several topics as one sequence: by event time, or, on request, with disorder and duplicates."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from producers.flights import Events
from producers.pacing import Pacer
from producers.publisher import Batch

Encode = Callable[[pa.Table], list[bytes]]
Integers = npt.NDArray[np.int64]
# A duplicate follows its original within the disorder, and within this where there is none.
DUPLICATE_MS = 60_000


@dataclass(frozen=True)
class Timeline:
    """One line per event: its topic (an index into `topics`), its row there, its event time, and its place.

    `position`: when the event is sent, on the scale of event time (ms); the order of the lines. It differs from
    `event_time` for events that are disordered or repeated.
    """

    topics: tuple[str, ...]
    topic: Integers
    row: Integers
    event_time: Integers
    position: Integers

    def __len__(self) -> int:
        return len(self.row)

    def take(self, lines: Integers, position: Integers) -> "Timeline":
        """The lines of these numbers, in this order, at new positions."""
        return Timeline(self.topics, self.topic[lines], self.row[lines], self.event_time[lines], position)

    def after(self, count: int) -> "Timeline":
        """Without its first `count` lines."""
        return self.take(np.arange(count, len(self)), self.position[count:])


def in_order(events: Mapping[str, Events]) -> Timeline:
    """All events by event time; at one and the same time, topics in the order given, then rows as they lie."""
    counts = [len(each.table) for each in events.values()]
    event_time = np.concatenate([each.event_time for each in events.values()])
    order = np.argsort(event_time, kind="stable")
    topic = np.repeat(np.arange(len(counts)), counts)[order]
    row = np.concatenate([np.arange(count) for count in counts])[order]
    return Timeline(tuple(events), topic, row, event_time[order], event_time[order])


def disturbed(timeline: Timeline, seed: int, disorder_ms: int, duplicates: float) -> Timeline:
    """The same events, each late by up to `disorder_ms`, and the share `duplicates` of them sent once more.

    The same arguments give the same sequence. Records of one key may change their order, as they would with a
    real source that is late.
    """
    random = np.random.default_rng(seed)
    late = timeline.position + random.integers(0, disorder_ms, endpoint=True, size=len(timeline))
    again = np.flatnonzero(random.random(len(timeline)) < duplicates)
    after = random.integers(1, max(disorder_ms, DUPLICATE_MS), endpoint=True, size=len(again))
    lines = np.concatenate([np.arange(len(timeline)), again])
    position = np.concatenate([late, late[again] + after])
    order = np.argsort(position, kind="stable")
    return timeline.take(lines[order], position[order])


def batches(
    timeline: Timeline,
    events: Mapping[str, Events],
    encoders: Mapping[str, Encode],
    keys: Mapping[str, str],
    pacer: Pacer,
    stopped: Callable[[], bool],
) -> Iterator[Batch]:
    """The timeline, encoded, in batches as the pacer lets them go. `keys`: topic -> the field that is its key."""
    names = np.array(timeline.topics, dtype=object)
    start = 0
    while start < len(timeline) and (end := pacer.end_of_batch(start, stopped)) > start:
        topic, row = timeline.topic[start:end], timeline.row[start:end]
        values, texts = np.empty(len(row), dtype=object), np.empty(len(row), dtype=object)
        for index, name in enumerate(timeline.topics):
            lines = np.flatnonzero(topic == index)
            table = events[name].table.take(row[lines])
            values[lines] = encoders[name](table)
            texts[lines] = table[keys[name]].to_pylist()
        event_time = timeline.event_time[start:end].tolist()
        yield Batch(names[topic].tolist(), values.tolist(), texts.tolist(), event_time)
        start = end
