"""What every curve stands on: a broker, a Spark session, runs with tables of their own, and the list of results."""

import json
import logging
import os
import statistics
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import StreamingQueryProgress
from pyspark.sql.streaming.query import StreamingQuery

from conf import ROOT
from conf.settings import Settings, load
from jobs.connectors.spark_internals import jvm
from jobs.pipeline.run import Run
from local.broker import Cluster
from local.driver import spark_session

POLL_SECONDS = 0.1
BATCHING = {"linger.ms": 50, "batch.size": 1_000_000, "compression.type": "lz4"}
Row = Mapping[str, Any]


class Workbench:
    """A broker that has started, and one Spark session on it, made when it is first asked for.

    Args:
        folder: for all that is written.
        driver_memory: of the session's JVM; the settings' where it is left out.
        sets: further settings of all that runs on it, as NAME=VALUE.
    """

    def __init__(
        self, folder: Path, cluster: Cluster, driver_memory: str | None = None, sets: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self._sets = [
            f"kafka.bootstrap_servers={cluster.bootstrap_servers}",
            f"paths.logs={folder / 'logs'}",
            *sets,
        ]
        if driver_memory:
            self._sets.append(f"spark.driver_memory={driver_memory}")
        self._published: set[str] = set()

    def settings(self, *overrides: str) -> Settings:
        return load(overrides=[*self._sets, *overrides])

    def words(self, *overrides: str) -> list[str]:
        """The settings as words of a command line."""
        return [word for each in (*self._sets, *overrides) for word in ("--set", each)]

    @cached_property
    def spark(self) -> SparkSession:
        return spark_session(self.settings(), "growth")

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

    def publish(self, topic: str, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Publish records, each as value and key."""
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

    def places(self, name: str) -> list[str]:
        """The settings that give runs of that name tables, checkpoints and logs of their own."""
        return [f"paths.{kind}={self.folder / name / kind}" for kind in ("tables", "checkpoints", "logs")]

    def run(self, name: str, batch: int | None, *overrides: str) -> Run:
        """A run whose batches have at most so many records, None for all there are; one of the same name goes on."""
        limit = [f"source.max_offsets_per_trigger={batch}"] if batch else []
        return Run(self.spark, self.settings(*self.places(name), *limit, *overrides), name.partition("/")[0])

    def cpu_ms(self) -> float:
        """Milliseconds of processors that this process and the session's JVM have used so far."""
        times = [each.cpu_times() for each in (psutil.Process(), self.driver)]
        return sum(each.user + each.system for each in times) * 1_000

    def heap_mb(self) -> float:
        """Megabytes that the driver's JVM holds after a collection."""
        jvm(self.spark).java.lang.System.gc()
        runtime = jvm(self.spark).java.lang.Runtime.getRuntime()
        return float(runtime.totalMemory() - runtime.freeMemory()) / 1e6


def until(query: StreamingQuery, batch: int) -> int:
    """Wait until the query has made the micro-batch of that number, or one after it, or has ended.

    Returns:
        the number of the newest that it has made.

    Raises:
        what it failed with.
    """
    while query.isActive and not ((seen := query.lastProgress) and seen.batchId >= batch):
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


def caught_up(run: Run) -> list[StreamingQueryProgress]:
    """Let the only query of a run read what there is; its last hundred micro-batches that had records."""
    (query,) = run.start(continuous=False)
    query.awaitTermination()
    return [each for each in query.recentProgress if each.numInputRows]


def milliseconds(batches: Sequence[StreamingQueryProgress]) -> list[float]:
    return [float(each.durationMs["triggerExecution"]) for each in batches]


def summary(values: Sequence[float]) -> dict[str, float]:
    return {"ms": statistics.median(values), "ms_most": max(values)}


def size(folder: Path) -> dict[str, float]:
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


class Results:
    """Prints each row of a curve as a line of its table, and appends it to a file of JSON lines."""

    def __init__(self, file: Path, curve: str) -> None:
        self._file, self._curve = file, curve
        self._columns: list[str] = []

    def add(self, row: Row) -> None:
        stamps = {"curve": self._curve, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "cores": os.cpu_count()}
        with self._file.open("a") as lines:
            lines.write(json.dumps(stamps | dict(row)) + "\n")
        if list(row) != self._columns:
            self._columns = list(row)
            print("".join(f"{name:>{_width(name)}}" for name in row))
        print("".join(f"{_cell(value):>{_width(name)}}" for name, value in row.items()), flush=True)


def _width(name: str) -> int:
    return max(len(name), 10) + 2


def _cell(value: Any) -> str:
    if isinstance(value, float) and value < 10:
        return f"{value:.2f}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)
