"""Publishes the flights: topics merged by event time, disturbed on request, encoded, sent."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np

from conf.settings import Settings
from producers.flights.data_set import load_source, package_data
from producers.flights.events import TOPICS, Events, flight_events
from producers.kafka.pacing import MAX_BATCH, Interrupt, Pace, Pacer
from producers.kafka.publish_progress import digest_of_files, earlier_runs
from producers.kafka.publisher import Publisher, Report
from producers.kafka.tables import Block, Integers, encoded_batches, register_contracts, topic_encoders
from producers.kafka.transactional import TransactionalPublisher

# A duplicate follows its original within the disorder, and within this where there is none.
DUPLICATE_MS = 60_000


@dataclass(frozen=True)
class Disorder:
    """A change to the order: delay by up to `delay_ms` of event time, repeat the share `duplicates`."""

    seed: int = 0
    delay_ms: int = 0
    duplicates: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.delay_ms or self.duplicates)


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
        """Return the lines of these numbers, in this order, at new positions."""
        return Timeline(self.topics, self.topic[lines], self.row[lines], self.event_time[lines], position)

    def after(self, count: int) -> "Timeline":
        """Return the timeline without its first `count` lines."""
        return self.take(np.arange(count, len(self)), self.position[count:])


def publish_flights(
    settings: Settings,
    first: date,
    end: date,
    pace: Pace,
    disorder: Disorder,
    interrupt: Interrupt,
    exactly_once: str | None = None,
) -> Report:
    """Publish the events of New York's days from `first` up to, without, `end`, and print their accounts.

    Args:
        exactly_once: the name under which each event is published once, whatever happens; None: at least once.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, NO_TOPIC, NO_DATA_SET, NO_EVENTS, and the registry's; with
            `exactly_once` also INPUT_CHANGED, TOPIC_RECREATED and those of transactions.
    """
    publisher = (
        TransactionalPublisher(settings, "flights", exactly_once, TOPICS)
        if exactly_once
        else Publisher(settings.kafka, settings.producer, TOPICS)
    )
    events, accounts = flight_events(load_source(), first, end)
    schema_ids = register_contracts(settings, events)
    timeline = in_order(events)
    if disorder:
        timeline = disturbed(timeline, disorder.seed, disorder.delay_ms, disorder.duplicates)
    print(f"read {accounts}")
    if isinstance(publisher, TransactionalPublisher):
        start = publisher.begin(flight_identity(first, end, disorder, timeline, schema_ids))
        if line := earlier_runs(start, publisher.name, "event"):
            print(line)
        if start.complete:
            return Report({}, {}, {}, seconds=0.0)
        timeline = timeline.after(start.read)
    pacer = Pacer(len(timeline), pace.due(timeline.position), publisher.wait)
    blocks, encoders = flight_blocks(timeline, events), topic_encoders(schema_ids)
    with interrupt:
        return publisher.publish(encoded_batches(blocks, encoders, pacer, interrupt), interrupt)


def flight_identity(
    first: date, end: date, disorder: Disorder, timeline: Timeline, schema_ids: Mapping[str, int]
) -> dict[str, str]:
    """Return all that decides on the events of flights, by name; a run goes on only where all of it is the same."""
    order = hashlib.sha256()
    for column in (timeline.topic, timeline.row, timeline.event_time):
        order.update(column.tobytes())
    return {
        "--from": str(first),
        "--to": str(end),
        "--seed": str(disorder.seed) if disorder else "",
        "--disorder": str(disorder.delay_ms),
        "--duplicates": str(disorder.duplicates),
        "data set": digest_of_files(sorted(package_data().glob("*.csv*"))),
        "order": order.hexdigest(),
        "schemas": json.dumps(schema_ids, sort_keys=True),
    }


def in_order(events: Mapping[str, Events]) -> Timeline:
    """Return all events by event time; at one and the same time, topics in the order given, then rows as they lie."""
    counts = [len(of_topic.table) for of_topic in events.values()]
    event_time = np.concatenate([of_topic.event_time for of_topic in events.values()])
    order = np.argsort(event_time, kind="stable")
    topic = np.repeat(np.arange(len(counts)), counts)[order]
    row = np.concatenate([np.arange(count) for count in counts])[order]
    return Timeline(tuple(events), topic, row, event_time[order], event_time[order])


def disturbed(timeline: Timeline, seed: int, disorder_ms: int, duplicates: float) -> Timeline:
    """Return the same events, each late by up to `disorder_ms`, and the share `duplicates` of them sent once more.

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


def flight_blocks(timeline: Timeline, events: Mapping[str, Events]) -> Iterator[Block]:
    """Yield the timeline in blocks of MAX_BATCH events."""
    for start in range(0, len(timeline), MAX_BATCH):
        topic, row = (column[start : start + MAX_BATCH] for column in (timeline.topic, timeline.row))
        tables = {name: events[name].table.take(row[topic == index]) for index, name in enumerate(timeline.topics)}
        yield Block(tables, topic, timeline.event_time[start : start + MAX_BATCH])
