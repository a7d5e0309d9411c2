"""Publishes what happened between the people of a region: who became friends, and who no longer are."""

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations, islice
from typing import Any

from conf.settings import Settings
from conf.topics import find_topic, load_topics
from jobs.connectors.kafka.offsets import milliseconds
from producers.kafka.pacing import MAX_BATCH, Interrupt
from producers.kafka.publisher import Batch, Publisher, Report
from schemas.codec import Encoder
from schemas.contracts import contract
from schemas.open_registry import open_registry

TOPIC = "friendships"
# Few people and whole minutes: every region tells of the same pairs, at times of the same minute.
PEOPLE = ("ann", "bob", "cho", "dee", "eli", "fay", "gus", "hal", "ida", "jon")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
MINUTES = 240


def friendship_events(region: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Give `count` events of the contract friendship, in no order of time; the same arguments give the same events."""
    chance = random.Random(f"{region} {seed}")
    pairs = list(combinations(PEOPLE, 2))
    for number in range(count):
        person, friend = chance.choice(pairs)
        yield {
            "event_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{region}/{seed}/{number}")),
            "pair": f"{person}+{friend}",
            "person": person,
            "friend": friend,
            "are_friends": chance.random() < 2 / 3,
            "region": region,
            "happened_at": BEGAN + timedelta(minutes=chance.randrange(MINUTES)),
        }


def publish_friendships(settings: Settings, count: int, seed: int, interrupt: Interrupt) -> Report:
    """Publish `count` events of the region `regions.here`; the same seed gives the same events.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, NO_TOPIC, and the registry's.
    """
    topic = find_topic(TOPIC, load_topics())
    publisher = Publisher(settings.kafka, settings.producer, [TOPIC])
    text = contract(topic.schema)
    encode = Encoder(open_registry(settings.registry).register(topic.subject, text), text)
    events = friendship_events(settings.regions.here, count, seed)
    with interrupt:
        return publisher.publish(_batches(events, encode), interrupt)


def _batches(events: Iterator[dict[str, Any]], encode: Encoder) -> Iterator[Batch]:
    while part := list(islice(events, MAX_BATCH)):
        times = [milliseconds(event["happened_at"]) for event in part]
        yield Batch([TOPIC] * len(part), [encode(event) for event in part], [event["pair"] for event in part], times)
