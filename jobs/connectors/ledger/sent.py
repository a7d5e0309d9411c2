"""Rows into a producer: in bulk where librdkafka takes them so, else one by one; and the count of what was sent."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import KafkaException, Producer

from conf.errors import TidemarkError
from jobs.connectors.ledger import stops
from jobs.connectors.ledger.bulk import PARTITIONER, bulk_of
from jobs.connectors.ledger.failpoints import reach
from jobs.connectors.ledger.layout import HASH
from jobs.connectors.ledger.markers import Done

FULL_QUEUE_SECONDS = 0.05
MASK = (1 << 64) - 1


class Sent:
    """Hands rows to a producer and keeps count of them in `done`, and of their bytes in `size`."""

    def __init__(self, done: Done, sink: str) -> None:
        self.done, self.size, self._sink = done, 0, sink

    def produce(self, producer: Producer, rows: Iterable[pa.RecordBatch], topic: str | None, timeout: float) -> None:
        """Hand over all rows, those that name no topic for `topic`; raises TidemarkError KAFKA_FAILED."""
        try:
            with contextlib.ExitStack() as stack:
                send = _sender(producer, topic, timeout, stack)
                for batch in rows:
                    send(batch)
                    producer.poll(0)
                    self.count(batch)
                    reach("shard-mid-produce", self._sink, shard=self.done.shard, batch=self.done.id.batch)
        except KafkaException as exc:
            raise stops.kafka_failed(self._sink, exc.args[0].str()) from exc

    def count(self, batch: pa.RecordBatch) -> None:
        hashes = batch.column(HASH).to_numpy(zero_copy_only=False)
        checksum = (self.done.checksum + int(hashes.astype(np.uint64).sum(dtype=np.uint64))) & MASK
        topics = set(self.done.topics)
        if "topic" in batch.schema.names:
            topics |= {name for name in batch.column("topic").unique().to_pylist() if name is not None}
        n = self.done.n + batch.num_rows
        self.size += batch.nbytes
        self.done = replace(self.done, n=n, checksum=checksum, topics=tuple(sorted(topics)))


def _sender(
    producer: Producer, topic: str | None, timeout: float, stack: contextlib.ExitStack
) -> Callable[[pa.RecordBatch], None]:
    bulk = bulk_of(producer, topic) if topic else None
    if bulk:
        stack.callback(bulk.close)

    def send(batch: pa.RecordBatch) -> None:
        if bulk and not {"topic", "headers"} & set(batch.schema.names):
            bulk.send(batch, timeout)
        else:
            _send_each(producer, batch, topic)

    return send


def _send_each(producer: Producer, batch: pa.RecordBatch, topic: str | None) -> None:
    """Where rows name their topic or have headers, for which librdkafka has no call that takes many."""
    for record in _records(batch, topic):
        try:
            producer.produce(*record)
        except BufferError:
            _produce_when_free(producer, record)


def _records(batch: pa.RecordBatch, topic: str | None) -> Iterator[tuple[Any, ...]]:
    """The rows as `produce` takes them: topic, value, key, and, where rows have them, partition and headers."""
    names = batch.schema.names
    columns = [
        _topics(batch, topic) if "topic" in names else repeat(topic),
        batch.column("value").to_pylist(),
        batch.column("key").to_pylist() if "key" in names else repeat(None),
    ]
    if "partition" in names or "headers" in names:
        # Between them: no callback, by either of its names, and the time of publishing.
        columns += [_partitions(batch), repeat(None), repeat(None), repeat(0), _headers(batch)]
    return zip(*columns, strict=False)


def _produce_when_free(producer: Producer, record: tuple[Any, ...]) -> None:
    while True:
        producer.poll(FULL_QUEUE_SECONDS)
        try:
            producer.produce(*record)
            return
        except BufferError:
            continue


def _topics(batch: pa.RecordBatch, topic: str | None) -> list[Any]:
    names = [topic if name is None else name for name in batch.column("topic").to_pylist()]
    if None in names:
        raise TidemarkError("BAD_SINK_COLUMNS", "column `topic` has a null", "name the topic of every row")
    return names


def _partitions(batch: pa.RecordBatch) -> Any:
    if "partition" not in batch.schema.names:
        return repeat(PARTITIONER)
    return [PARTITIONER if number is None else number for number in batch.column("partition").to_pylist()]


def _headers(batch: pa.RecordBatch) -> Any:
    if "headers" not in batch.schema.names:
        return repeat(None)
    rows = batch.column("headers").to_pylist()
    return [[(each["key"], each["value"]) for each in row] if row else None for row in rows]
