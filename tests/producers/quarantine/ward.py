"""A quarantine of a test's own: the table, the topics that its records came from, and the commands on them."""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from deltalake import DeltaTable, write_deltalake

from conf.settings import Settings, load
from producers.quarantine import cli
from producers.quarantine.records import Coordinates, Rejected
from schemas.registry import FileRegistry
from tests.sent import T0

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
EVENT_TIME = dt.datetime.fromtimestamp(T0 / 1000, dt.UTC)
UTC_TIME = pa.timestamp("us", "UTC")
OLD_SCHEMA = pa.schema(
    [
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", UTC_TIME),
        ("timestampType", pa.int32()),
        ("headers", pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
        ("schema_id", pa.int32()),
        ("error", pa.string()),
        ("reason", pa.string()),
    ]
)
NEWER = (("rule", pa.string()), ("code_version", pa.string()), ("quarantined_at", UTC_TIME))
SCHEMA = pa.schema([*OLD_SCHEMA, *(pa.field(*each) for each in NEWER)])
COMMON = {
    "key": b"k",
    "value": b"v",
    "partition": 0,
    "timestamp": EVENT_TIME,
    "timestampType": 0,
    "headers": [],
    "schema_id": None,
    "error": "BAD_FRAMING",
    "rule": None,
    "reason": "for a test",
    "code_version": "0.1.0+test",
    "quarantined_at": NOON,
}


@dataclass
class Ward:
    """Its topics, registers and ledgers bear a name of their own, so that tests can share a broker."""

    folder: Path
    servers: str
    topic: str
    application: str = field(init=False)

    def __post_init__(self) -> None:
        self.application = f"app-{self.topic}"

    @property
    def sets(self) -> list[str]:
        return [
            f"kafka.bootstrap_servers={self.servers}",
            f"paths.tables={self.folder / 'tables'}",
            f"registry.path={self.folder / 'registry'}",
            f"ledger.application={self.application}",
        ]

    @property
    def settings(self) -> Settings:
        return load("local", self.sets)

    @property
    def registry(self) -> FileRegistry:
        return FileRegistry(self.folder / "registry")

    def reject(self, *rows: dict[str, Any], schema: pa.Schema = SCHEMA) -> None:
        """Put rows into the table; what a row leaves out is COMMON's, and the test's topic."""
        whole = [COMMON | {"topic": self.topic} | row for row in rows]
        columns = {name: [row[name] for row in whole] for name in schema.names}
        write_deltalake(self.folder / "tables" / "quarantine", pa.table(columns, schema), mode="append")

    def ingest_nothing_bad(self) -> None:
        """Leave the tables that `ingest` makes where it rejects nothing."""
        for layer in ("bronze", "silver"):
            rows = pa.table({"value": pa.array([b"v"], pa.binary())})
            write_deltalake(self.folder / "tables" / layer / self.topic, rows)

    def run(self, *argv: str) -> int:
        """`local/tidemark quarantine ARGV`, in this process."""
        return cli.main([*argv, *(part for each in self.sets for part in ("--set", each))])

    def table(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = DeltaTable(self.folder / "tables" / name).to_pyarrow_table().to_pylist()
        return rows

    def records(self, topic: str = "") -> list[Message]:
        """What committed readers find in a topic, the test's own by default, partition by partition."""
        own = {"group.id": "ward", "enable.auto.commit": False, "enable.partition.eof": True, "log_level": 0}
        raw, committed = (
            Consumer({"bootstrap.servers": self.servers, **own, "isolation.level": f"read_{isolation}"})
            for isolation in ("uncommitted", "committed")
        )
        places = [
            TopicPartition(topic or self.topic, partition, 0)
            for partition in raw.list_topics(topic or self.topic, timeout=30).topics[topic or self.topic].partitions
        ]
        # Committed readers get there a little after the commit.
        ends = {place.partition: raw.get_watermark_offsets(place, timeout=30)[1] for place in places}
        raw.close()
        committed.assign(places)
        found, left = [], set(ends)
        while left:
            message = committed.poll(30)
            assert message is not None, "the end of a partition is not told"
            error, partition = message.error(), int(message.partition() or 0)
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF and int(message.offset() or 0) >= ends[partition]:
                left.discard(partition)
        committed.close()
        return sorted(found, key=lambda message: (message.partition(), message.offset()))

    def values(self, topic: str = "") -> list[bytes | None]:
        return [message.value() for message in self.records(topic)]


def rejected(topic: str, offset: int, **more: Any) -> Rejected:
    return Rejected(Coordinates(topic, 0, offset), b"k", **more)


def headers(message: Message) -> dict[str, bytes]:
    return {name: bytes(value) for name, value in header_list(message) if value is not None}


def header_list(message: Message) -> list[tuple[str, bytes | None]]:
    return cast(list[tuple[str, bytes | None]], message.headers() or [])


def printed_objects(out: str) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]
