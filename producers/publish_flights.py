"""From the data set to the topics: generate, order, disturb, encode, publish."""

from dataclasses import dataclass
from datetime import date

from conf.settings import Settings
from conf.topics import load_topics
from producers.delivery import Report
from producers.flights import TOPICS, flight_events
from producers.interrupt import Interrupt
from producers.nycflights import load_source
from producers.pacing import Pace, Pacer
from producers.progress import Progress
from producers.publisher import Publisher
from producers.timeline import batches, disturbed, in_order
from schemas.columnar import ColumnarEncoder
from schemas.contracts import contract
from schemas.registry import open_registry


@dataclass(frozen=True)
class Disorder:
    """What to do to the order: delay by up to `delay_ms` of event time, repeat the share `duplicates`."""

    seed: int = 0
    delay_ms: int = 0
    duplicates: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.delay_ms or self.duplicates)


def publish_flights(
    settings: Settings, first: date, end: date, pace: Pace, disorder: Disorder, interrupt: Interrupt
) -> Report:
    """Publish the events of New York's days from `first` up to, without, `end`, and print their accounts.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, NO_TOPIC, NO_DATA_SET, NO_EVENTS, and the registry's.
    """
    topics = load_topics()
    registry = open_registry(settings.registry)
    publisher = Publisher(settings.kafka, settings.producer, TOPICS)
    events, accounts = flight_events(load_source(), first, end)
    encoders = {}
    for name in events:
        text = contract(topics[name].schema)
        encoders[name] = ColumnarEncoder(registry.register(topics[name].subject, text), text)
    timeline = in_order(events)
    if disorder:
        timeline = disturbed(timeline, disorder.seed, disorder.delay_ms, disorder.duplicates)
    print(f"read {accounts}")
    pacer = Pacer(len(timeline), pace.due(timeline.position), publisher.wait)
    keys = {name: topics[name].key for name in events}
    with interrupt:
        paced = batches(timeline, events, encoders, keys, pacer, interrupt)
        return publisher.publish(paced, interrupt, Progress())
