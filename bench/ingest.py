"""How fast does a backlog become tables? Prints records/s of `ingest`, without rules and with those of the topic
departures, and of a bare decode into one Delta table.

    local/tidemark broker start && local/tidemark topics apply && local/tidemark publish flights
    .tidemark/venv/bin/python -m bench.ingest [--millions 4] [--rounds 3]

The backlog is the topic departures, copied record for record into the topic bench_departures until it is long enough.
Every round reads it anew, in one warm JVM, and the jobs take turns: the ratio within a round holds on a noisy machine
too. The first round is cold (code is compiled while it runs) and is shown, but stays out of the medians.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from conf import ROOT, command_line, state_dir
from conf.errors import TidemarkError, exit_on_error
from conf.settings import Kafka, load
from conf.topics import subject_of
from jobs.ingest import job
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from local.demo import records_in
from local.driver import spark_session
from schemas.registry import FileRegistry

TOPIC = "bench_departures"
PARTITIONS = 4


def bare_decode(run: Run) -> None:
    """The least that a pipeline does: topic, decode, one table."""
    run.append(run.read(TOPIC), table="bare_decode")


def with_rules(run: Run) -> None:
    """Ingest with the rules and the event time of the topic departures."""
    run.validator.rules_by_stream[TOPIC] = run.validator.rules_of("departures")
    run.topics[TOPIC] = replace(run.topics["departures"], name=TOPIC)
    job.build(run)


JOBS = {"ingest": job.build, "with rules": with_rules, "bare decode": bare_decode}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = command_line.parse(parser, sys.argv[1:])
    with tempfile.TemporaryDirectory(dir=state_dir()) as scratch:
        _measure(Path(scratch), int(options.millions * 1_000_000), options.rounds)
    return 0


def _measure(scratch: Path, count: int, rounds: int) -> None:
    shutil.copytree(ROOT / "schemas" / "registry", scratch / "registry")
    registry = FileRegistry(scratch / "registry")
    registry.register(subject_of(TOPIC), registry.latest(subject_of("departures")).text)
    base = [f"registry.path={scratch / 'registry'}", f"ingest.topics={TOPIC}"]
    settings = load(overrides=base)
    available = records_in(settings, "departures")
    if not available:
        raise TidemarkError("NO_RECORDS", "topic departures is empty", "`local/tidemark publish flights` fills it")
    records = _fill(settings.kafka, count, available)
    spark = spark_session(settings, "bench")
    speeds: dict[str, list[float]] = {name: [] for name in JOBS}
    print(f"{records:,} records in {TOPIC}\n{_line('round', [*JOBS])}   records/s")
    for number in range(rounds + 1):
        for name, build in JOBS.items():
            folder = scratch / f"{number}-{name.replace(' ', '-')}"
            roots = [f"paths.tables={folder / 'tables'}", f"paths.checkpoints={folder / 'checkpoints'}"]
            run = Run(spark, load(overrides=base + roots), name)
            build(run)
            began = time.monotonic()
            await_all(spark, run.start(continuous=False))
            speeds[name].append(records / (time.monotonic() - began))
            shutil.rmtree(folder)
        label = "cold" if number == 0 else str(number)
        print(_line(label, [f"{values[-1]:,.0f}" for values in speeds.values()]), flush=True)
    print(_line("median", [f"{statistics.median(values[1:]):,.0f}" for values in speeds.values()]))
    spark.stop()


def _line(label: str, cells: list[str]) -> str:
    return f"{label:<8}" + "".join(f"{cell:>16}" for cell in cells)


def _fill(kafka: Kafka, count: int, available: int) -> int:
    """Copy the topic departures into TOPIC until that holds `count` records; how many it holds then."""
    admin = AdminClient(kafka.client_config())
    if TOPIC not in admin.list_topics(timeout=10).topics:
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result()
    settings = load()
    held = records_in(settings, TOPIC)
    if held >= count:
        return held
    values = read_all(kafka, available)
    producer = Producer({**kafka.client_config(), "linger.ms": 50, "batch.size": 1_000_000, "compression.type": "lz4"})
    for number in range(count - held):
        value, key = values[number % len(values)]
        while True:
            try:
                producer.produce(TOPIC, value, key)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    return records_in(settings, TOPIC)


def read_all(kafka: Kafka, count: int) -> list[tuple[bytes, bytes]]:
    """The first `count` records of the topic departures, each as value and key."""
    consumer = Consumer({**kafka.client_config(), "group.id": "bench", "enable.auto.commit": False})
    partitions = consumer.list_topics("departures", timeout=10).topics["departures"].partitions
    consumer.assign([TopicPartition("departures", partition, 0) for partition in partitions])
    values: list[tuple[bytes, bytes]] = []
    while len(values) < count:
        for message in consumer.consume(10_000, timeout=10):
            values.append((message.value() or b"", message.key() or b""))
    consumer.close()
    return values


if __name__ == "__main__":
    exit_on_error(main)
