"""What does exactly once cost? Prints records/s of the ledger sink beside Spark's own Kafka sink, on the same topic.

    local/tidemark broker start
    .tidemark/venv/bin/python -m bench.ledger [--millions 2] [--rounds 5]

A topic of small records, four partitions, so four shards; it is read by one stateless query and written to a new topic:
`ledger` exactly once, `tuned` by Spark's own sink with the same producer settings, `defaults` by Spark's own sink with
its producer as it comes, `plain` with source and sink as they come. All take turns in one warm JVM, so that the ratios
of a round hold on a noisy machine too. Round 0 is cold: shown, but not in the medians.

Then small batches: ten records each, by one shard and by four; what a batch takes beyond the same batch without a sink.
"""

import argparse
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import SparkSession

from conf import command_line, state_dir
from conf.errors import exit_on_error
from conf.settings import load
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from local.demo import records_in
from local.driver import spark_session

PARTITIONS = 4
SMALL_BATCHES = 30
SMALL_RECORDS = 10


class Bench:
    """A Spark session, a broker, and topics that are made as they are needed."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.settings = scratch, load()
        self.admin = AdminClient(self.settings.kafka.client_config())
        self.spark: SparkSession = spark_session(self.settings, "bench")

    def topic(self, name: str, partitions: int = PARTITIONS) -> str:
        full = f"bench_{name}_{uuid.uuid4().hex[:8]}"
        self.admin.create_topics([NewTopic(full, partitions, 1)])[full].result()
        return full

    def fill(self, topic: str, records: int) -> None:
        batching = {"linger.ms": 50, "batch.size": 1_000_000, "compression.type": "lz4", "acks": "all"}
        producer = Producer({**self.settings.kafka.client_config(), **batching})
        for number in range(records):
            value, key = b"record number %08d" % number, b"key %04d" % (number % 1000)
            try:
                producer.produce(topic, value, key)
            except BufferError:
                producer.flush()
                producer.produce(topic, value, key)
        producer.flush()

    def run(self, *overrides: str) -> Run:
        folder = self.scratch / uuid.uuid4().hex
        paths = [f"paths.tables={folder / 'tables'}", f"paths.checkpoints={folder / 'checkpoints'}"]
        return Run(self.spark, load(overrides=[*paths, *overrides]), f"bench-{folder.name[:8]}")

    def seconds(self, run: Run) -> float:
        began = time.monotonic()
        await_all(self.spark, run.start(continuous=False))
        return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small-batches", type=int, default=SMALL_BATCHES)
    options = command_line.parse(parser, sys.argv[1:])
    with tempfile.TemporaryDirectory(dir=state_dir()) as scratch:
        bench = Bench(Path(scratch))
        if options.millions:
            _throughput(bench, int(options.millions * 1_000_000), options.rounds)
        if options.small_batches:
            _small_batches(bench, options.small_batches)
        bench.spark.stop()
    return 0


def _throughput(bench: Bench, records: int, rounds: int) -> None:
    source = bench.topic("source")
    bench.fill(source, records)
    ways: dict[str, Callable[[str], float]] = {
        "ledger": lambda target: _published(bench, source, target, "exactly-once"),
        "tuned": lambda target: _published(bench, source, target, "at-least-once"),
        "defaults": lambda target: _spark(bench, source, target, tuned_source=True),
        "plain": lambda target: _spark(bench, source, target, tuned_source=False),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    print(
        f"{records:,} records, {PARTITIONS} shards\n{'round':<8}" + "".join(f"{name:>12}" for name in ways),
        "  records/s",
    )
    for number in range(rounds + 1):
        for name, way in ways.items():
            target = bench.topic(name)
            speeds[name].append(records / way(target))
            assert records_in(bench.settings, target) >= records, "records are missing"
            bench.admin.delete_topics([target])
        print(f"{number:<8}" + "".join(f"{rounds[-1]:>12,.0f}" for rounds in speeds.values()), flush=True)
    print("median  " + "".join(f"{statistics.median(rounds[1:]):>12,.0f}" for rounds in speeds.values()))
    for name in list(ways)[1:]:
        ratios = [ours / theirs for ours, theirs in zip(speeds["ledger"][1:], speeds[name][1:], strict=True)]
        print(f"ledger ÷ {name:<9} median {statistics.median(ratios):.2f}   {min(ratios):.2f} to {max(ratios):.2f}")


def _published(bench: Bench, source: str, target: str, delivery: str) -> float:
    run = bench.run(f"sink.delivery={delivery}")
    run.publish(run.records(source).select("key", "value"), target)
    return bench.seconds(run)


def _spark(bench: Bench, source: str, target: str, tuned_source: bool) -> float:
    """What a user of plain Spark writes, with Tidemark's source or with Spark's as it comes."""
    servers = {"kafka.bootstrap.servers": bench.settings.kafka.bootstrap_servers}
    plain = bench.spark.readStream.format("kafka").options(**servers, subscribe=source, startingOffsets="earliest")
    records = bench.run().records(source) if tuned_source else plain.load()
    folder = str(bench.scratch / uuid.uuid4().hex)
    writer = records.select("key", "value").writeStream.format("kafka").options(**servers, topic=target)
    began = time.monotonic()
    writer.option("checkpointLocation", folder).trigger(availableNow=True).start().awaitTermination()
    return time.monotonic() - began


def _small_batches(bench: Bench, batches: int) -> None:
    print(f"\n{batches} batches of {SMALL_RECORDS} records: milliseconds a batch, median")
    for shards in (1, 4):
        source = bench.topic("small", shards)
        bench.fill(source, batches * SMALL_RECORDS)
        limit = f"source.max_offsets_per_trigger={SMALL_RECORDS}"
        durations = {}
        for delivery in ("exactly-once", "at-least-once", "nothing"):
            run = bench.run(limit, f"sink.delivery={delivery}" if delivery != "nothing" else limit)
            frame = run.records(source).select("key", "value")
            if delivery == "nothing":
                run.write(frame, "nothing", lambda batch: batch.frame.write.format("noop").mode("append").save())
            else:
                run.publish(frame, bench.topic("target"))
            (query,) = run.start(continuous=False)
            query.awaitTermination()
            took = [batch.durationMs["addBatch"] for batch in query.recentProgress if batch.numInputRows][3:]
            durations[delivery] = statistics.median(took)
        beyond = durations["exactly-once"] - durations["nothing"]
        print(
            f"{shards} shard(s): " + ", ".join(f"{name} {ms:.0f}" for name, ms in durations.items()),
            f"; beyond {beyond:.0f}",
        )


if __name__ == "__main__":
    exit_on_error(main)
