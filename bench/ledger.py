"""What does exactly once cost? Prints records/s of the ledger sink beside Spark's own Kafka sink, on the same topic.

    .tidemark/venv/bin/python -m bench.ledger [--millions 2] [--rounds 5]

On a broker of its own lies a topic of small records, four partitions, so four shards; it is read by one stateless query
and written to a new topic:
`ledger` exactly once, `tuned` by Spark's own sink with the same producer settings, `defaults` by Spark's own sink with
its producer as it comes, `plain` with source and sink as they come. All take turns in one warm JVM
(`workbench.take_turns`).

Then small batches: ten records each, by one shard and by four; what a batch takes beyond the same batch without a sink.
"""

import statistics
import uuid
from collections.abc import Callable, Iterator
from functools import partial

from confluent_kafka.admin import AdminClient

from bench.workbench import (
    Record,
    Workbench,
    catch_up,
    catch_up_seconds,
    own_workbench,
    ratios,
    read_options,
    seconds,
    take_turns,
)
from conf.errors import exit_on_error
from jobs.pipeline.run import Run
from local.demo import records_in

PARTITIONS = 4
SMALL_BATCHES = 30
SMALL_RECORDS = 10


def main() -> int:
    options = read_options(__doc__, millions=2.0, rounds=5, small_batches=SMALL_BATCHES)
    with own_workbench() as bench:
        if options.millions:
            _throughput(bench, int(options.millions * 1_000_000), options.rounds)
        if options.small_batches:
            _small_batches(bench, options.small_batches)
    return 0


def _throughput(bench: Workbench, records: int, rounds: int) -> None:
    source = _filled_topic(bench, PARTITIONS, records)
    ways: dict[str, Callable[[str], float]] = {
        "ledger": lambda target: _published(bench, source, target, "exactly-once"),
        "tuned": lambda target: _published(bench, source, target, "at-least-once"),
        "defaults": lambda target: _spark(bench, source, target, tuned_source=True),
        "plain": lambda target: _spark(bench, source, target, tuned_source=False),
    }
    admin = AdminClient(bench.settings().kafka.client_config())

    def speed(name: str) -> float:
        target = _new_topic(bench)
        took = ways[name](target)
        assert records_in(bench.settings(), target) >= records, "records are missing"
        admin.delete_topics([target])
        return records / took

    print(f"{records:,} records, {PARTITIONS} shards; records/s")
    speeds = take_turns({name: partial(speed, name) for name in ways}, rounds)
    for name in list(ways)[1:]:
        by_round = ratios(speeds, "ledger", name)
        middle = statistics.median(by_round)
        print(f"ledger ÷ {name:<9} median {middle:.2f}   {min(by_round):.2f} to {max(by_round):.2f}")


def _new_topic(bench: Workbench, partitions: int = PARTITIONS) -> str:
    return bench.create(f"bench_{uuid.uuid4().hex[:8]}", partitions)


def _filled_topic(bench: Workbench, partitions: int, records: int) -> str:
    topic = _new_topic(bench, partitions)
    bench.publish(topic, _records(records))
    return topic


def _records(count: int) -> Iterator[Record]:
    return ((b"record number %08d" % number, b"key %04d" % (number % 1000)) for number in range(count))


def _run(bench: Workbench, batch: int | None, *sets: str) -> Run:
    return bench.run(f"bench-{uuid.uuid4().hex[:8]}", batch, *sets)


def _published(bench: Workbench, source: str, target: str, delivery: str) -> float:
    run = _run(bench, None, f"sink.delivery={delivery}")
    run.publish(run.records(source).select("key", "value"), target)
    return catch_up_seconds(run)


def _spark(bench: Workbench, source: str, target: str, tuned_source: bool) -> float:
    """What a user of plain Spark writes, with Tidemark's source or with Spark's as it comes."""
    servers = {"kafka.bootstrap.servers": bench.settings().kafka.bootstrap_servers}
    plain = bench.spark.readStream.format("kafka").options(**servers, subscribe=source, startingOffsets="earliest")
    records = _run(bench, None).records(source) if tuned_source else plain.load()
    writer = records.select("key", "value").writeStream.format("kafka").options(**servers, topic=target)
    writer = writer.option("checkpointLocation", str(bench.folder / uuid.uuid4().hex)).trigger(availableNow=True)
    return seconds(lambda: writer.start().awaitTermination())


def _small_batches(bench: Workbench, batches: int) -> None:
    print(f"\n{batches} batches of {SMALL_RECORDS} records: milliseconds a batch, median")
    for shards in (1, 4):
        source = _filled_topic(bench, shards, batches * SMALL_RECORDS)
        durations = {}
        for delivery in ("exactly-once", "at-least-once", "nothing"):
            run = _run(bench, SMALL_RECORDS, *([f"sink.delivery={delivery}"] if delivery != "nothing" else []))
            frame = run.records(source).select("key", "value")
            if delivery == "nothing":
                run.write(frame, "nothing", lambda batch: batch.frame.write.format("noop").mode("append").save())
            else:
                run.publish(frame, _new_topic(bench))
            durations[delivery] = statistics.median(batch.durationMs["addBatch"] for batch in catch_up(run)[3:])
        beyond = durations["exactly-once"] - durations["nothing"]
        shown = ", ".join(f"{name} {ms:.0f}" for name, ms in durations.items())
        print(f"{shards} shard(s): {shown}; beyond {beyond:.0f}")


if __name__ == "__main__":
    exit_on_error(main)
