"""How fast do the flights of 2013 get into their topics? Prints events/s of every part of the way.

    local/tidemark setup
    .tidemark/venv/bin/python -m bench.publish [--rounds 3]

The broker is one of its own, on the same machine, and goes when the benchmark ends. `publish` is the whole of encoding,
sending and waiting for every acknowledgement, `publish, exactly once` the same in transactions; `encode` is the first
part of both alone, `encode, row by row` what it would be with fastavro, which writes one record at a time. They take
turns (`workbench.take_turns`).
"""

import resource
import uuid
from collections import deque
from collections.abc import Iterator

from confluent_kafka.admin import AdminClient, NewTopic

from bench.workbench import own_broker, read_options, seconds, take_turns
from conf.errors import exit_on_error
from conf.settings import load
from conf.topics import load_topics
from producers.flights.data_set import load_source
from producers.flights.events import TOPICS, flight_events
from producers.flights.publish import flight_blocks, in_order
from producers.kafka.pacing import Pacer
from producers.kafka.publisher import Batch, Publisher, never
from producers.kafka.tables import encoded_batches, topic_encoders
from producers.kafka.transactional import TransactionalPublisher
from schemas.codec import Encoder
from schemas.contracts import contract

# Row by row takes ten times as long: a part of the departures is enough to tell the speed.
ROWS_ONE_BY_ONE = 50_000
MIB = 1 << 20


def main() -> int:
    rounds = read_options(__doc__, rounds=3).rounds
    with own_broker() as (_, cluster):
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 0})
        for future in admin.create_topics([NewTopic(name, load_topics()[name].partitions) for name in TOPICS]).values():
            future.result()
        _measure(cluster.bootstrap_servers, rounds)
    return 0


def _measure(servers: str, rounds: int) -> None:
    settings = load(overrides=[f"kafka.bootstrap_servers={servers}"])
    events, _ = flight_events(load_source())
    timeline = in_order(events)
    count = len(timeline)
    encoders, row_by_row = topic_encoders(dict.fromkeys(TOPICS, 1)), Encoder(1, contract("departure"))
    rows = events["departures"].table.slice(0, ROWS_ONE_BY_ONE).to_pylist()

    def encoded() -> Iterator[Batch]:
        return encoded_batches(flight_blocks(timeline, events), encoders, Pacer(count), never)

    def publish() -> float:
        publisher = Publisher(settings.kafka, settings.producer, TOPICS)
        return count / seconds(lambda: publisher.publish(encoded()).require_complete())

    def publish_once() -> float:
        publisher = TransactionalPublisher(settings, "flights", f"bench-{uuid.uuid4().hex}", TOPICS)
        publisher.begin({})
        return count / seconds(lambda: publisher.publish(encoded()).require_complete())

    print("events/s")
    ways = {
        "generate": lambda: count / seconds(lambda: in_order(flight_events(load_source())[0])),
        "encode, row by row": lambda: len(rows) / seconds(lambda: [row_by_row(row) for row in rows]),
        "encode": lambda: count / seconds(lambda: deque(encoded(), maxlen=0)),
        "publish": publish,
        "publish, exactly once": publish_once,
    }
    take_turns(ways, rounds, 22)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // MIB
    print(f"peak resident memory of the producer: {peak} MiB")


if __name__ == "__main__":
    exit_on_error(main)
