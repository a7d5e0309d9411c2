"""Gives benchmarks what they stand on: options, a broker and a Spark session of their own, turns, lines of tables."""

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import StreamingQueryProgress
from pyspark.sql.streaming.query import StreamingQuery

from conf import ROOT, command_line, state_dir
from conf.settings import Kafka, Settings, load
from jobs.connectors.spark_internals import jvm
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from local.broker import Cluster
from local.demo import records_in
from local.session import spark_session

POLL_SECONDS = 0.1
BATCHING = {"linger.ms": 50, "batch.size": 1_000_000, "compression.type": "lz4"}
WEEK, YEAR = "2013-01-08", "2014-01-01"  # the days before which the first week's, or all, flights were
Record = tuple[bytes, bytes]  # value and key
Row = Mapping[str, Any]


def option_parser(description: str | None, **defaults: int | float | str) -> argparse.ArgumentParser:
    """Return the parser of a benchmark with an option for each of `defaults`, of the default's type."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return parser


def read_options(description: str | None, **defaults: int | float | str) -> argparse.Namespace:
    """Return what the command line says, for a benchmark that has no other options."""
    return command_line.parse(option_parser(description, **defaults), sys.argv[1:])


@contextmanager
def own_broker() -> Iterator[tuple[Path, Cluster]]:
    """Start a broker, which goes when the block ends, and so does the folder."""
    with tempfile.TemporaryDirectory(dir=state_dir()) as scratch:
        folder = Path(scratch)
        with Cluster(folder / "broker", folder / "logs", attached=True) as cluster:
            yield folder, cluster


@contextmanager
def own_workbench(*sets: str) -> Iterator["Workbench"]:
    """Start a broker, for a workbench whose settings are changed by `sets`, each NAME=VALUE."""
    with own_broker() as (folder, cluster):
        bench = Workbench(folder, cluster, sets)
        try:
            yield bench
        finally:
            bench.close()


class Workbench:
    """A broker that has started, and one Spark session on it, made when it is first asked for.

    Args:
        folder: for all that is written.
        sets: further settings of all that runs on it, as NAME=VALUE.
    """

    def __init__(self, folder: Path, cluster: Cluster, sets: Sequence[str] = ()) -> None:
        self.folder = folder
        self._sets = [f"kafka.bootstrap_servers={cluster.bootstrap_servers}", f"paths.logs={folder / 'logs'}", *sets]
        self._published: set[str] = set()

    def settings(self, *overrides: str) -> Settings:
        return load(overrides=[*self._sets, *overrides])

    def words(self, *overrides: str) -> list[str]:
        """The settings as words of a command line."""
        return [word for setting in (*self._sets, *overrides) for word in ("--set", setting)]

    @cached_property
    def spark(self) -> SparkSession:
        return spark_session(self.settings(), "bench")

    @cached_property
    def driver(self) -> psutil.Process:
        """The process of the session's JVM."""
        return psutil.Process(int(jvm(self.spark).java.lang.ProcessHandle.current().pid()))

    @cached_property
    def _producer(self) -> Producer:
        return Producer(self.settings().kafka.client_config() | BATCHING)

    def close(self) -> None:
        if "spark" in self.__dict__:
            self.spark.stop()

    def create(self, topic: str, partitions: int = 1) -> str:
        admin = AdminClient(self.settings().kafka.client_config())
        admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result()
        return topic

    def publish(self, topic: str, records: Iterable[Record]) -> None:
        for value, key in records:
            while True:
                try:
                    self._producer.produce(topic, value, key)
                    break
                except BufferError:
                    self._producer.poll(0.1)
        self._producer.flush()

    def publish_flights(self, end: str) -> None:
        """Publish the flights of 2013 up to before a day, where that is not done yet."""
        if end in self._published:
            return
        for words in (["topics", "apply"], ["publish", "flights", "--to", end]):
            command = [str(ROOT / "local" / "tidemark"), *words, *self.words()]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        self._published.add(end)

    def read_topic(self, topic: str) -> list[Record]:
        """Return all records of a topic."""
        kafka = self.settings().kafka
        consumer = Consumer({**kafka.client_config(), "group.id": "bench", "enable.auto.commit": False})
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        records: list[Record] = []
        count = records_in(self.settings(), topic)
        while len(records) < count:
            for message in consumer.consume(10_000, timeout=10):
                records.append((message.value() or b"", message.key() or b""))
        consumer.close()
        return records

    def places(self, name: str) -> list[str]:
        """The settings that give runs of that name tables, checkpoints and logs of their own."""
        return [f"paths.{kind}={self.folder / name / kind}" for kind in ("tables", "checkpoints", "logs")]

    def run(self, name: str, batch: int | None, *overrides: str) -> Run:
        """A run whose batches have at most so many records, None for all there are; one of the same name goes on."""
        limit = [f"source.max_offsets_per_trigger={batch}"] if batch else []
        return Run(self.spark, self.settings(*self.places(name), *limit, *overrides), name.partition("/")[0])

    def cpu_ms(self) -> float:
        """Milliseconds of processors that this process and the session's JVM have used so far."""
        return cpu_seconds([psutil.Process(), self.driver]) * 1_000

    def heap_mb(self) -> float:
        """Megabytes that the driver's JVM holds after a collection."""
        jvm(self.spark).java.lang.System.gc()
        runtime = jvm(self.spark).java.lang.Runtime.getRuntime()
        return float(runtime.totalMemory() - runtime.freeMemory()) / 1e6


def recreate_topic(kafka: Kafka, topic: str, partitions: int) -> None:
    """Make a topic empty, whose records stay, and wait until the cluster lists it."""
    admin = AdminClient({**kafka.client_config(), "log_level": 0})
    if topic in admin.list_topics(timeout=10).topics:
        admin.delete_topics([topic])[topic].result()
        while topic in admin.list_topics(timeout=10).topics:
            time.sleep(POLL_SECONDS)
    admin.create_topics([NewTopic(topic, partitions, 1, config={"retention.ms": "-1"})])[topic].result()
    while topic not in admin.list_topics(timeout=10).topics:
        time.sleep(POLL_SECONDS)


def wait_for_batch(query: StreamingQuery, batch: int) -> int:
    """Wait until the query has made the micro-batch of that number, or one after it, or has ended.

    Returns:
        the number of the newest that it has made.

    Raises:
        what it failed with.
    """
    while query.isActive and not ((newest := query.lastProgress) and newest.batchId >= batch):
        time.sleep(POLL_SECONDS)
    if error := query.exception():
        raise error
    newest = query.lastProgress
    return newest.batchId if newest else -1


def stop(query: StreamingQuery) -> None:
    """Stop a query, whose micro-batch fails by that: nobody needs to read how."""
    logging.disable()
    query.stop()
    logging.disable(logging.NOTSET)


def catch_up(run: Run) -> list[StreamingQueryProgress]:
    """Let the only query of a run read what there is; its last hundred micro-batches that had records."""
    (query,) = run.start(continuous=False)
    query.awaitTermination()
    return [batch for batch in query.recentProgress if batch.numInputRows]


def catch_up_seconds(run: Run) -> float:
    """Let all queries of a run read what there is; seconds from the start of the first to the end of the last."""
    return seconds(lambda: await_all(run.spark, run.start(continuous=False)))


def milliseconds(batches: Sequence[StreamingQueryProgress]) -> list[float]:
    return [float(batch.durationMs["triggerExecution"]) for batch in batches]


def summary(values: Sequence[float]) -> dict[str, float]:
    return {"ms": statistics.median(values), "ms_most": max(values)}


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Return what processes have used of processors."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def take_turns(ways: Mapping[str, Callable[[], float]], rounds: int, width: int = 16) -> dict[str, list[float]]:
    """Let ways take turns, in the other order in every second round, and print the speeds of rounds, and medians.

    So the ratio within a round holds on a noisy machine too. The first round is cold (code is compiled while it runs):
    it is shown, but counts only where it is the only one.

    Args:
        ways: each runs once, and returns so many a second.

    Returns:
        the speeds of the rounds that count.
    """
    print(line("round", ways, width))
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in ways if number % 2 else reversed([*ways]):
            speeds[name].append(ways[name]())
        print(line(number or "cold", [values[-1] for values in speeds.values()], width), flush=True)
    warm = {name: values[1:] or values for name, values in speeds.items()}
    print(line("median", map(statistics.median, warm.values()), width))
    return warm


def ratios(speeds: Mapping[str, Sequence[float]], way: str, other: str) -> list[float]:
    """Return the ratio of two ways' speeds, round by round."""
    return [ours / theirs for ours, theirs in zip(speeds[way], speeds[other], strict=True)]


def line(label: object, cells: Iterable[object], width: int = 12, label_width: int = 8) -> str:
    """Return a line of a table; numbers are rounded."""
    shown = (f"{cell:,.0f}" if isinstance(cell, int | float) else str(cell) for cell in cells)
    return f"{label!s:<{label_width}}" + "".join(f"{cell:>{width}}" for cell in shown)


def seconds_line(label: object, parts: Iterable[float]) -> str:
    return line(label, [f"{part:.1f}" for part in parts], 10)


def disk_use(folder: Path) -> dict[str, float]:
    """The files below a folder, and their megabytes; files that vanish meanwhile do not count."""
    count = stored = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                stored += (Path(place) / name).stat().st_size
            except FileNotFoundError:
                continue
            count += 1
    return {"files": count, "mb": stored / 1e6}
