"""From the data set to the topics: generate, order, disturb, encode, publish."""

from dataclasses import astuple, dataclass
from datetime import date

from conf.settings import Settings
from conf.topics import load_topics
from producers.delivery import Report
from producers.exactly_once import told
from producers.facts import flight_facts
from producers.flights import TOPICS, flight_events
from producers.interrupt import Interrupt
from producers.nycflights import load_source
from producers.pacing import Pace, Pacer
from producers.progress import Progress
from producers.publisher import Publisher
from producers.timeline import Timeline, batches, disturbed, in_order
from producers.transactional import TransactionalPublisher
from schemas.columnar import ColumnarEncoder
from schemas.contracts import contract
from schemas.registries import open_registry


@dataclass(frozen=True)
class Disorder:
    """What to do to the order: delay by up to `delay_ms` of event time, repeat the share `duplicates`."""

    seed: int = 0
    delay_ms: int = 0
    duplicates: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.delay_ms or self.duplicates)


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
    registry, topics = open_registry(settings.registry), load_topics()
    publisher = _publisher(settings, exactly_once)
    events, accounts = flight_events(load_source(), first, end)
    schema_ids = {name: registry.register(topics[name].subject, contract(topics[name].schema)) for name in events}
    encoders = {name: ColumnarEncoder(schema_ids[name], contract(topics[name].schema)) for name in events}
    timeline = in_order(events)
    if disorder:
        timeline = disturbed(timeline, disorder.seed, disorder.delay_ms, disorder.duplicates)
    print(f"read {accounts}")
    if isinstance(publisher, TransactionalPublisher):
        timeline = _left(publisher, timeline, flight_facts(first, end, astuple(disorder), timeline, schema_ids))
        if publisher.last.complete:
            return Report({}, {}, {}, seconds=0.0)
    pacer = Pacer(len(timeline), pace.due(timeline.position), publisher.wait)
    keys = {name: topics[name].key for name in events}
    with interrupt:
        paced = batches(timeline, events, encoders, keys, pacer, interrupt)
        return publisher.publish(paced, interrupt, Progress())


def _publisher(settings: Settings, exactly_once: str | None) -> Publisher | TransactionalPublisher:
    if exactly_once:
        return TransactionalPublisher(settings, "flights", exactly_once, TOPICS)
    return Publisher(settings.kafka, settings.producer, TOPICS)


def _left(publisher: TransactionalPublisher, timeline: Timeline, facts: dict[str, str]) -> Timeline:
    """The events that no earlier run has published."""
    start = publisher.begin(facts)
    if line := told(start, publisher.name, "event"):
        print(line)
    return timeline.after(start.read)
