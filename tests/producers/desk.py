"""A desk at which files are published: schemas, registry and rejects of one test, and the broker they go to."""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition

from conf.settings import Settings, load
from producers.files.publish import publish_files
from producers.files.request import FileRequest, Parts
from producers.kafka.pacing import Interrupt
from producers.kafka.publisher import Report
from schemas.codec import Decoder
from schemas.registry import FileRegistry

TIMEOUT = 30.0
FIELDS = [
    {"name": "id", "type": "string"},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "note", "type": ["null", "string"], "default": None},
]
ORDERS = json.dumps({"type": "record", "name": "Order", "fields": FIELDS})
HEADER = "id,price,at,note\n"
GOOD = "a,1.50,2013-01-01T00:00:00Z,x\n"
NEW_YEAR = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
ORDER = {"id": "a", "price": Decimal("1.50"), "at": NEW_YEAR, "note": "x"}
KEYED = Parts(key="id", event_time="at")


class Desk:
    """Files, schemas, registry and rejects of one test, and the broker they go to."""

    def __init__(self, folder: Path, servers: str, topic: str) -> None:
        self.folder, self.servers, self.topic = folder, servers, topic
        self.rejects_path = folder / "rejects.jsonl"

    @property
    def settings(self) -> Settings:
        return load("local", [f"kafka.bootstrap_servers={self.servers}", f"registry.path={self.folder / 'registry'}"])

    def write(self, name: str, data: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def request(self, *paths: Path, parts: Parts = KEYED, schema: str | None = ORDERS, **more: Any) -> FileRequest:
        given = self.write("given.avsc", schema) if schema else None
        return FileRequest(self.topic, paths, parts, schema=given, rejects=self.rejects_path, **more)

    def publish(self, *paths: Path, interrupt: Interrupt | None = None, **more: Any) -> Report:
        return publish_files(self.settings, self.request(*paths, **more), interrupt or Interrupt(), self.folder)

    def values(self, count: int) -> list[dict[str, Any]]:
        decode = Decoder(FileRegistry(self.folder / "registry"))
        return [decode(record.value() or b"") for record in self.records(count)]

    def records(self, count: int) -> list[Message]:
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "test", "enable.auto.commit": False})
        consumer.assign([TopicPartition(self.topic, 0, 0)])
        records = consumer.consume(count, timeout=TIMEOUT)
        low, high = consumer.get_watermark_offsets(TopicPartition(self.topic, 0), timeout=TIMEOUT)
        consumer.close()
        assert high - low == len(records) == count
        return records

    def rejected(self) -> list[tuple[int, str, str]]:
        entries = [json.loads(line) for line in self.rejects_path.read_text().splitlines()]
        return [(entry["line"], entry["reason"], entry["raw"]) for entry in entries]
