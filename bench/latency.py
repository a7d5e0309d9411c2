"""How long after it was produced is a record in the output topic? Prints milliseconds for each way to publish.

    local/tidemark setup
    .tidemark/venv/bin/python -m bench.latency [--seconds 40] [--rate 1000] [--rounds 1] [--way NAME ...] [--warm 10]

A process of its own produces records of 127 bytes to a topic of four partitions, at a steady rate, each with the moment
at which it was produced, and reads the output topic as `read_committed` readers do. A stateless query brings them
from one to the other with a trigger of 0 seconds: each micro-batch has what came during the one before. In real time
there is a task for each partition all the time, so Spark has four slots for tasks, whatever the cores. The ways take
turns in one warm JVM, in the other order in every second round; the first seconds of each turn are not counted. Every
record must be in the output topic once before its turn counts; in real time those that are there twice are counted.
"""

import argparse
import json
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.workbench import Workbench, line, option_parser, own_workbench
from conf import ROOT, command_line
from conf.errors import exit_on_error

PARTITIONS = 4
LATEST_SECONDS = 60  # after the last record was produced
MAY_DOUBLE = ("real-time",)
PADDING = b"x" * (127 - struct.calcsize("<qd"))
PERCENTILES = (50, 90, 99, 100)
WAYS = {
    "exactly once": ["sink.delivery=exactly-once"],
    "exactly once, shards": ["sink.delivery=exactly-once", "ledger.small_batch_records=0"],
    "Spark's own sink": ["sink.delivery=at-least-once"],
    "real-time": ["sink.delivery=real-time"],
}


def main() -> int:
    parser = option_parser(__doc__, seconds=40, rate=1_000, rounds=1)
    parser.add_argument("--warm", type=int, default=10, help="seconds of a turn that do not count: more, of a cold JVM")
    parser.add_argument("--way", action="append", choices=WAYS, help="measure this one; all, where left out")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for all ways")
    parser.add_argument("--load", nargs=3, metavar=("SERVERS", "SOURCE", "TARGET"), help=argparse.SUPPRESS)
    options = command_line.parse(parser, sys.argv[1:])
    if options.load:
        servers, source, target = options.load
        print(json.dumps(_latencies(servers, source, target, options.rate, options.seconds, options.warm)))
        return 0
    with own_workbench(f"spark.master=local[{PARTITIONS},4]", *options.set) as bench:
        ways = options.way or list(WAYS)
        print(f"{options.rate:,} records/s for {options.seconds} s, of which the first {options.warm} do not count")
        names = [f"p{percentile}" if percentile < 100 else "max" for percentile in PERCENTILES]
        print(line("", [*names, "batches", "twice"], 9, 24), "  ms", flush=True)
        for number in range(options.rounds):
            for way in ways if number % 2 == 0 else reversed(ways):
                _measure(bench, way, options.rate, options.seconds, options.warm)
    return 0


def _measure(bench: Workbench, way: str, rate: int, seconds: int, warm: int) -> None:
    turn = uuid.uuid4().hex[:8]
    source, target = (bench.create(f"{side}-{turn}", PARTITIONS) for side in ("in", "out"))
    run = bench.run(f"bench/{turn}", None, *WAYS[way], "spark.trigger=0 seconds")
    run.publish(run.records(source).select("key", "value"), target)
    (query,) = run.start(continuous=True)
    command = [sys.executable, "-m", "bench.latency", "--rate", str(rate), "--seconds", str(seconds)]
    command += ["--warm", str(warm)]
    command += ["--load", run.settings.kafka.bootstrap_servers, source, target]
    measured = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    batches = query.lastProgress.batchId if query.lastProgress else 0
    query.stop()
    if error := query.exception():
        raise error
    *percentiles, twice = json.loads(measured)
    if twice and way not in MAY_DOUBLE:
        raise SystemExit(f"{way}: {twice:,} records are there twice")
    print(line(way, [*percentiles, batches, twice], 9, 24), flush=True)


def _latencies(servers: str, source: str, target: str, rate: int, seconds: int, warm: int) -> list[float]:
    """Percentiles, in ms, of the time from producing a record to reading it, and how many records were there twice.

    Raises:
        SystemExit: if one is not there.
    """
    sent: Counter[int] = Counter()
    thread = threading.Thread(target=_produce, args=(servers, source, rate, seconds, sent))
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": "bench", "fetch.wait.max.ms": 10, "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(target, number, 0) for number in range(PARTITIONS)])
    seen: Counter[int] = Counter()
    took: list[float] = []
    began = time.time()
    thread.start()
    while len(seen) < rate * seconds and time.time() < began + seconds + LATEST_SECONDS:
        for record in consumer.consume(1_000, 0.02):
            if record.error() is None:
                number, at = struct.unpack_from("<qd", record.value() or b"")
                seen[number] += 1
                if at > began + warm:
                    took.append((time.time() - at) * 1000)
    thread.join()
    consumer.close()
    if sent - seen:
        raise SystemExit(f"{(sent - seen).total():,} records are missing and {(seen - sent).total():,} are there twice")
    return [*np.percentile(took, PERCENTILES).tolist(), (seen - sent).total()]


def _produce(servers: str, topic: str, rate: int, seconds: int, sent: Counter[int]) -> None:
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0, "acks": "all"})
    began = time.monotonic()
    for number in range(rate * seconds):
        ahead = began + number / rate - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
            producer.poll(0)
        producer.produce(topic, struct.pack("<qd", number, time.time()) + PADDING, str(number % 1000))
        sent[number] += 1
    producer.flush()


if __name__ == "__main__":
    exit_on_error(main)
