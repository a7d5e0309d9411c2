"""Hands Arrow columns straight to librdkafka: one call for thousands of records, with Java's default partitioner."""

import ctypes
import time
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import confluent_kafka
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.arrow_columns import data_of, edges, is_there, lengths, numbers

SEED, M = 0x9747B28C, np.uint32(0x5BD1E995)
POSITIVE = np.uint32(0x7FFFFFFF)
# Keys are hashed by length, all of one length together: with more lengths than these in a batch that is no gain.
MOST_LENGTHS = 64

Words = npt.NDArray[np.uint32]


def partitions_of(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32], partitions: int
) -> npt.NDArray[np.int32] | None:
    """Return the partition of each key, key i being `data[offsets[i]:offsets[i + 1]]`;
    None for keys of too many lengths."""
    lengths = np.diff(offsets)
    ranked = np.sort(lengths)
    distinct = ranked[np.flatnonzero(np.diff(ranked, prepend=-1))].tolist()
    if len(distinct) == 1:
        return _partitions(data[offsets[0] : offsets[-1]].reshape(len(lengths), distinct[0]), partitions)
    if len(distinct) > MOST_LENGTHS:
        return None
    found = np.empty(len(lengths), np.int32)
    for length in distinct:
        rows = np.flatnonzero(lengths == length)
        starts = offsets[rows].astype(np.int64)
        found[rows] = _partitions(data[starts[:, None] + np.arange(length)], partitions)
    return found


def _partitions(keys: npt.NDArray[np.uint8], partitions: int) -> npt.NDArray[np.int32]:
    return ((_murmur2(keys) & POSITIVE) % np.uint32(partitions)).astype(np.int32)


def _murmur2(keys: npt.NDArray[np.uint8]) -> Words:
    """Return the murmur2 hash of each row of `keys`, all of one length."""
    count, length = keys.shape
    whole = length - length % 4
    words = np.ascontiguousarray(keys[:, :whole]).view("<u4").reshape(count, whole // 4)
    h = np.full(count, SEED ^ length, np.uint32)
    for column in words.T:
        k = column * M
        k ^= k >> np.uint32(24)
        h = h * M ^ k * M
    for at in reversed(range(whole, length)):
        h ^= keys[:, at].astype(np.uint32) << np.uint32(8 * (at - whole))
    if length > whole:
        h *= M
    h ^= h >> np.uint32(13)
    h *= M
    return h ^ (h >> np.uint32(15))


KNOWN = ("2.16.0",)
COPY = 0x2  # RD_KAFKA_MSG_F_COPY
METADATA_SECONDS = 10.0
PARTITIONER = -1
# struct rd_kafka_message_s of rdkafka.h, on 64 bits.
MESSAGE = np.dtype(
    {
        "names": ["err", "rkt", "partition", "payload", "len", "key", "key_len", "offset", "private"],
        "formats": ["<i4", "<u8", "<i4", "<u8", "<u8", "<u8", "<u8", "<i8", "<u8"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56, 64],
        "itemsize": 72,
    }
)
# So much may be under way; past that, the sender waits for the brokers.
WINDOW_BYTES = 64 << 20
WINDOW_RECORDS = 400_000
WAIT_SECONDS = 0.01


class Bulk:
    """Sends Arrow columns to one topic. Close it before its producer goes."""

    def __init__(self, library: ctypes.CDLL, producer: Producer, topic: str) -> None:
        self._library, self._producer = library, producer
        self._partitions = _partition_count(producer, topic)
        handle = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__).value
        self._topic = library.rd_kafka_topic_new(handle, topic.encode(), None)
        self._batches = self._records = self._bytes = 0

    def close(self) -> None:
        self._library.rd_kafka_topic_destroy(self._topic)

    def send(self, batch: pa.RecordBatch, timeout: float) -> None:
        """Queue all rows (columns value binary; key binary and partition int if there are any), in order by partition.

        Raises:
            KafkaException: where a record is refused, or nothing moves for `timeout` seconds.
        """
        if not batch.num_rows:
            return
        messages = np.zeros(batch.num_rows, MESSAGE)
        _point(messages, batch.column("value"), "payload", "len")
        if "key" in batch.schema.names:
            _point(messages, batch.column("key"), "key", "key_len")
        self._batches += 1
        self._records += len(messages)
        self._bytes += int(messages["len"].sum() + messages["key_len"].sum())
        self._wait(timeout)
        partitions = self._partitions_of(batch)
        if partitions is None:
            self._produce(messages, PARTITIONER)
            return
        # A call for one partition takes a third of the time of a call in which each record finds its own.
        for partition, part in _by_partition(messages, partitions):
            self._produce(part, partition)

    def _produce(self, messages: npt.NDArray[np.void], partition: int) -> None:
        sent = self._library.rd_kafka_produce_batch(self._topic, partition, COPY, messages.ctypes.data, len(messages))
        if sent < len(messages):
            raise KafkaException(KafkaError(int(messages["err"][messages["err"] != 0][0])))

    def _partitions_of(self, batch: pa.RecordBatch) -> npt.NDArray[np.int32] | None:
        """Return the partition of each row: its own, else its key's, else one that changes from batch to batch."""
        found = np.full(batch.num_rows, PARTITIONER, np.int32)
        if "key" in batch.schema.names:
            keys = batch.column("key")
            by_key = partitions_of(np.frombuffer(data_of(keys), np.uint8), edges(keys), self._partitions)
            if by_key is None:
                return None
            found = np.where(is_there(keys), by_key, np.int32(PARTITIONER))
        if "partition" in batch.schema.names:
            named = numbers(batch.column("partition"), np.int32, PARTITIONER)
            found = np.where(named >= 0, named, found)
        return np.where(found >= 0, found, np.int32(self._batches % self._partitions))

    def _wait(self, timeout: float) -> None:
        mean = self._bytes / self._records
        window = min(WINDOW_RECORDS, int(WINDOW_BYTES / max(mean, 1)))
        until = time.monotonic() + timeout
        self._producer.poll(0)
        while len(self._producer) > window:
            if time.monotonic() > until:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            self._producer.poll(WAIT_SECONDS)


def bulk_of(producer: Producer, topic: str) -> Bulk | None:
    """Return the fast way into `topic`; None where the installed client is not one of those that it was made for."""
    library = _library()
    return Bulk(library, producer, topic) if library else None


@cache
def _library() -> ctypes.CDLL | None:
    if str(confluent_kafka.__version__) not in KNOWN or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    folder = Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs")
    found = sorted(folder.glob("librdkafka*"))
    if not found:
        return None
    library = ctypes.CDLL(str(found[0]))
    library.rd_kafka_topic_new.restype = ctypes.c_void_p
    library.rd_kafka_topic_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    library.rd_kafka_topic_destroy.argtypes = [ctypes.c_void_p]
    library.rd_kafka_produce_batch.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int32,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_int,
    ]
    return library


def _by_partition(
    messages: npt.NDArray[np.void], partitions: npt.NDArray[np.int32]
) -> Iterator[tuple[int, npt.NDArray[np.void]]]:
    """Yield the messages of each partition, in their order."""
    if partitions.min() == partitions.max():
        yield int(partitions[0]), messages
        return
    # Numbers of 16 bits are sorted in linear time. Past those, a partition may come in several pieces, still in order.
    order = np.argsort(partitions.astype(np.uint16), kind="stable")
    # They are copied as plain bytes: field by field the same copy takes ten times as long.
    messages, partitions = messages.view(f"V{MESSAGE.itemsize}")[order].view(MESSAGE), partitions[order]
    edges = [0, *(np.flatnonzero(np.diff(partitions)) + 1).tolist(), len(partitions)]
    for first, end in pairwise(edges):
        yield int(partitions[first]), messages[first:end]


def _point(messages: npt.NDArray[np.void], column: pa.Array, pointer: str, length: str) -> None:
    """Let the messages point into the column's own bytes; null values are null pointers."""
    # A pointer to anything tells an empty value from a null.
    offsets, first = edges(column), np.uint64(data_of(column).address)
    messages[pointer] = np.where(is_there(column), first + offsets[:-1].astype(np.uint64), np.uint64(0))
    messages[length] = lengths(column)


def _partition_count(producer: Producer, topic: str) -> int:
    """Return how many partitions the topic has; wait where a broker that has just heard of it lists none yet."""
    until = time.monotonic() + METADATA_SECONDS
    while True:
        there = producer.list_topics(topic, timeout=METADATA_SECONDS).topics[topic]
        if there.partitions:
            return len(there.partitions)
        if time.monotonic() > until:
            raise KafkaException(there.error or KafkaError(KafkaError._TIMED_OUT))
        producer.poll(WAIT_SECONDS)
