"""How fast do the flights of 2013 get into their topics? Prints events/s of every part of the way.

    local/tidemark setup
    .tidemark/venv/bin/python -m bench.publish [--rounds 3]

The broker is one of its own, on the same machine, and goes when the benchmark ends. `publish` is the whole of encoding,
sending and waiting for every acknowledgement, `publish, exactly once` the same in transactions; `encode` is the first
part of both alone, `encode, row by row` what it would be with fastavro, which writes one record at a time. The first
round is cold: shown, but not in the medians.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from conf import command_line
from conf.errors import exit_on_error
from conf.settings import load
from conf.topics import load_topics
from local.broker import Cluster
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = command_line.parse(parser, sys.argv[1:]).rounds
    with (
        tempfile.TemporaryDirectory() as scratch,
        Cluster(Path(scratch), Path(scratch) / "logs", attached=True) as cluster,
    ):
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 0})
        for future in admin.create_topics([NewTopic(name, load_topics()[name].partitions) for name in TOPICS]).values():
            future.result()
        _measure(cluster.bootstrap_servers, rounds)
    return 0


def _measure(servers: str, rounds: int) -> None:
    speeds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for name, speed in _round(servers).items():
            speeds.setdefault(name, []).append(speed)
        if number == 0:
            print("events/s" + "".join(f"{name:>22}" for name in speeds))
        print(
            f"{'cold' if number == 0 else number:<8}" + "".join(f"{rounds[-1]:>22,.0f}" for rounds in speeds.values())
        )
    print("median  " + "".join(f"{statistics.median(rounds[1:] or rounds):>22,.0f}" for rounds in speeds.values()))
    print(
        f"peak resident memory of the producer: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // MIB} MiB"
    )


def _round(servers: str) -> dict[str, float]:
    settings = load(overrides=[f"kafka.bootstrap_servers={servers}"])
    started = time.monotonic()
    events, _ = flight_events(load_source())
    timeline = in_order(events)
    generated = time.monotonic() - started
    encoders, row_by_row = topic_encoders(dict.fromkeys(TOPICS, 1)), Encoder(1, contract("departure"))
    rows = events["departures"].table.slice(0, ROWS_ONE_BY_ONE).to_pylist()
    publisher = Publisher(settings.kafka, settings.producer, TOPICS)
    once = TransactionalPublisher(settings, "flights", f"bench-{uuid.uuid4().hex}", TOPICS)
    once.begin({})

    def encoded() -> Iterator[Batch]:
        return encoded_batches(flight_blocks(timeline, events), encoders, Pacer(len(timeline)), never)

    return {
        "generate": len(timeline) / generated,
        "encode, row by row": _speed(len(rows), lambda: [row_by_row(row) for row in rows]),
        "encode": _speed(len(timeline), lambda: deque(encoded(), maxlen=0)),
        "publish": _speed(len(timeline), lambda: publisher.publish(encoded()).require_complete()),
        "publish, exactly once": _speed(len(timeline), lambda: once.publish(encoded()).require_complete()),
    }


def _speed(count: int, work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return count / (time.monotonic() - started)


if __name__ == "__main__":
    exit_on_error(main)
