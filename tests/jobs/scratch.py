"""Surroundings of a test's own for runs of jobs: topics with a schema, tables, checkpoints."""

import io
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from delta.tables import DeltaTable
from fastavro import parse_schema, schemaless_writer
from pyspark.sql import SparkSession

from conf.rules import Rule
from conf.settings import Settings, load
from conf.topics import CleanupPolicy, Topic
from jobs.connectors.kafka.offsets import Position
from jobs.ingest import job as ingest_job
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from local.broker import Cluster
from schemas.codec import frame
from schemas.contracts import contract, subject_of_stream
from schemas.registry import FileRegistry
from tests.sent import Record, send

FIELDS: list[dict[str, Any]] = [
    {"name": "id", "type": "string"},
    {"name": "level", "type": "int"},
]
TIME = {"type": "long", "logicalType": "timestamp-millis"}
Row = tuple[Any, ...]


class Scratch:
    """Sends readings (`id`, `level`) into topics, runs jobs on them, and shows the tables."""

    def __init__(self, spark: SparkSession, broker: Cluster, new_topic: Callable[[int], str], folder: Path) -> None:
        self.spark, self.folder = spark, folder
        self.application = "tidemark"
        self._broker, self._new_topic = broker, new_topic
        self.registry = FileRegistry(folder / "registry")
        self.declared: dict[str, Topic] = {}
        self._rules: dict[str, tuple[Rule, ...]] = {}

    def topic(
        self,
        partitions: int = 1,
        compacted: bool = False,
        event_time: str | None = None,
        schemas: tuple[str, ...] = (),
    ) -> str:
        """A new topic, the readings' schema registered for it, with a field for the event time where it has a name.

        Args:
            schemas: contracts, registered in place of the readings', for events of several types.
        """
        name = self._new_topic(partitions)
        if schemas:
            self.declared[name] = Topic(name, partitions, "id", schemas=schemas)
            for stream, event in self.declared[name].streams.items():
                self.registry.register(subject_of_stream(stream), contract(event))
            return name
        policy: CleanupPolicy = "compact" if compacted else "delete"
        self.declared[name] = Topic(name, partitions, "id", "reading", event_time, cleanup_policy=policy)
        self.register(name, *([{"name": event_time, "type": ["null", TIME], "default": None}] if event_time else []))
        return name

    def declare(self, topic: str, *rules: Rule) -> None:
        """Let `rules` hold for the events of `topic`, from the next run on, in place of those before."""
        self._rules[topic] = rules

    def register(self, topic: str, *more: dict[str, Any]) -> int:
        """Register the readings' schema, with `more` fields or fields changed, and return its id."""
        fields = {field["name"]: field for field in [*FIELDS, *more]}
        text = json.dumps({"type": "record", "name": "Reading", "fields": list(fields.values())})
        return self.registry.register(f"{topic}-value", text)

    def reading(self, topic: str, id: Any, level: int, partition: int = 0, **more: Any) -> Record:
        """The record of one reading, written by the newest schema of its topic."""
        newest = self.registry.latest(f"{topic}-value")
        buffer = io.BytesIO()
        schemaless_writer(buffer, parse_schema(json.loads(newest.text)), {"id": id, "level": level, **more})
        return Record(frame(newest.id, buffer.getvalue()), str(id).encode(), partition)

    def send(self, topic: str, *records: Record) -> list[Row]:
        """Send, and return each record's (partition, offset)."""
        return list(send(self._broker, topic, *records))

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Let retention take the records before these offsets, by partition."""
        admin = AdminClient({"bootstrap.servers": self._broker.bootstrap_servers, "log_level": 0})
        wanted = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
        for future in admin.delete_records(wanted).values():
            future.result()

    def grow(self, topic: str, partitions: int) -> None:
        """Give the topic so many partitions."""
        admin = AdminClient({"bootstrap.servers": self._broker.bootstrap_servers, "log_level": 0})
        admin.create_partitions([NewPartitions(topic, partitions)])[topic].result()

    def settings(self, *overrides: str) -> Settings:
        """The real settings, with this test's broker, registry and folders."""
        own = {
            "kafka.bootstrap_servers": self._broker.bootstrap_servers,
            "registry.path": self.folder / "registry",
            "paths.tables": self.folder / "tables",
            "paths.checkpoints": self.folder / "checkpoints",
            "paths.logs": self.folder / "logs",
            "ledger.application": self.application,
        }
        return load("local", [*(f"{key}={value}" for key, value in own.items()), *overrides])

    def run(self, *overrides: str, bounds: tuple[Position, Position] | None = None, job: str = "probe") -> Run:
        """A run of a job that is still to be declared."""
        run = Run(self.spark, self.settings(*overrides), job, bounds)
        run.topics |= self.declared
        run.validator.rules_by_stream.update(self._rules)
        return run

    def catch_up(self, run: Run) -> None:
        """Run the declared outputs until they have caught up."""
        await_all(self.spark, run.start(continuous=False))
        run.settle()

    def ingest(self, *topics: str, overrides: Iterable[str] = ()) -> Run:
        """Run the job `ingest` on `topics` until it has caught up."""
        run = self.run(f"ingest.topics={','.join(topics)}", *overrides, job="ingest")
        ingest_job.build(run)
        self.catch_up(run)
        return run

    def forget(self, topic: str) -> None:
        """Delete what `ingest` knows of `topic` and of no other: its checkpoint, its tables bronze and silver."""
        for name in (f"checkpoints/ingest/{topic}", f"tables/bronze/{topic}", f"tables/silver/{topic}"):
            shutil.rmtree(self.folder / name)

    def rows(self, table: str, *columns: str) -> list[Row]:
        """The rows of a table, sorted; none where there is no such table."""
        path = str(self.folder / "tables" / table)
        if not DeltaTable.isDeltaTable(self.spark, path):
            return []
        rows = self.spark.read.format("delta").load(path).select(*columns or "*").collect()
        return sorted((tuple(row) for row in rows), key=str)
