"""The loop that one writes oneself: counts bids in a dict, and publishes the counts at the end. Nothing is durable.

It runs in an environment of its own, with the question as a JSON file. Batches of records and of bytes as librdkafka's
introduction advises ("Performance"). Framed values are read and written as fastavro's documentation does it for single
records; the program for Quix Streams does so too.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from fastavro import parse_schema, schemaless_reader, schemaless_writer

HEADER_LENGTH = 5
AT_ONCE = 20_000
FETCHING = {"fetch.min.bytes": 1_000_000, "fetch.wait.max.ms": 50, "max.partition.fetch.bytes": 4_000_000}
BATCHING = {"linger.ms": 50, "batch.size": 1_000_000, "batch.num.messages": 100_000, "compression.type": "lz4"}


def main(question: dict[str, Any]) -> None:
    counts = count(question)
    encode = Writer(question["result_schema"], question["result_id"])
    producer = Producer({"bootstrap.servers": question["servers"], "acks": "all", **BATCHING})
    for (auction, start), bids in counts.items():
        value = encode({"auction": auction, "window_start": start, "bids": bids})
        while True:
            try:
                producer.produce(question["results"], value, str(auction))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    producer.flush()


def count(question: dict[str, Any]) -> Counter[tuple[int, int]]:
    """Bids by auction and window."""
    group = {"group.id": question["name"], "enable.auto.commit": False}
    consumer = Consumer({"bootstrap.servers": question["servers"], **group, **FETCHING})
    partitions = consumer.list_topics(question["topic"], timeout=10).topics[question["topic"]].partitions
    consumer.assign([TopicPartition(question["topic"], partition, 0) for partition in partitions])
    decode, window = Reader(question["schema"]), question["window_ms"]
    counts: Counter[tuple[int, int]] = Counter()
    left = question["records"]
    while left:
        messages = consumer.consume(AT_ONCE, 1.0)
        if messages and left == question["records"]:
            print(f"first-record {time.time()}", flush=True)
        for message in messages:
            bid = decode(message.value())
            counts[bid["auction"], bid["bid_at"] // window * window] += 1
        left -= len(messages)
    consumer.close()
    return counts


class Reader:
    """Makes the dict of a framed value."""

    def __init__(self, schema: str) -> None:
        self._schema = _plain(schema)

    def __call__(self, value: bytes) -> Any:
        buffer = BytesIO(value)
        buffer.seek(HEADER_LENGTH)
        return schemaless_reader(buffer, self._schema, None)


class Writer:
    """Makes the framed value of a dict."""

    def __init__(self, schema: str, schema_id: int) -> None:
        self._schema, self._header = _plain(schema), schema_id.to_bytes(HEADER_LENGTH, "big")

    def __call__(self, record: Mapping[str, Any]) -> bytes:
        buffer = BytesIO()
        buffer.write(self._header)
        schemaless_writer(buffer, self._schema, record)
        return buffer.getvalue()


def _plain(text: str) -> Any:
    """The schema with times as the numbers they are, which spares making a datetime of each."""
    schema = json.loads(text)
    for field in schema["fields"]:
        if isinstance(field["type"], dict):
            field["type"] = field["type"]["type"]
    return parse_schema(schema)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
