"""Sends the rows of a shard through one producer, in bulk where it can, and counts; records too large are named."""

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from conf.errors import TidemarkError
from jobs.connectors.exactly_once.bulk import PARTITIONER, bulk_of
from jobs.connectors.exactly_once.fail_points import fail_point
from jobs.connectors.exactly_once.ledger import Done
from jobs.connectors.exactly_once.transaction import CONSEQUENCES, METADATA_SECONDS, batch_too_large
from jobs.connectors.kafka.access import CODES, client_error
from jobs.connectors.kafka.refusals import AHEAD_LIMIT, BY_ERROR, SizeLimits, alter_topic, shown_key
from schemas.arrow_columns import is_there, lengths, numbers

DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HASH = "tidemark_hash"  # the column of a record's checksum, long
# A record that is alone in its batch costs at most this beside key, value and headers; and each of its headers this.
RECORD_OVERHEAD, HEADER_OVERHEAD = 96, 10

# What a client or a broker says of a text that is no topic's name.
NO_TOPIC = (KafkaError.TOPIC_EXCEPTION, KafkaError._INVALID_ARG)

# What the remedy for a record that is refused ends with.
OTHERS_STAY = "all other records of its batch must stay as they are, some may be published, then start the same again"

Record = tuple[Any, ...]  # as `produce` takes it: topic, value, key, partition, two callbacks, timestamp, headers


class LargeRecords:
    """Watches the large records of a shard, in the order in which they are sent; `refusal` names the first refused.

    Args:
        origin: what the records are made of, for people.
    """

    def __init__(self, limits: SizeLimits, origin: str) -> None:
        self._limits, self._origin = limits, origin
        self.refusal: TidemarkError | None = None

    def rows(self, batch: pa.RecordBatch, topic: str | None) -> list[int]:
        """Return the numbers of the rows that may be too large for the topic that they go to (`topic`,
        or their own)."""
        least = min([*self._limits.by_topic.values(), self._limits.otherwise])
        if batch.nbytes + RECORD_OVERHEAD <= least:
            return []
        sizes = sizes_of(batch)
        rows = np.flatnonzero(sizes > least).tolist()
        names = batch.column("topic") if rows and "topic" in batch.schema.names else None
        topics = {row: str((names[row].as_py() if names is not None else None) or topic) for row in rows}
        return [row for row in rows if sizes[row] > self._limits.by_topic.get(topics[row], self._limits.otherwise)]

    def is_refused(self, record: Record, number: int) -> bool:
        """Return whether the record, the shard's `number`-th, is larger than its topic takes,
        headers and framing aside."""
        limit = self._limits.by_topic.get(record[0])
        if limit is None or len(record[1] or b"") + len(record[2] or b"") <= limit:
            return False
        self.refuse(record, number)
        return True

    def refuse(self, record: Record, number: int) -> None:
        """Note that the record, the shard's `number`-th, was refused."""
        topic, value, key, headers = record[0], record[1], record[2], record[-1]
        what = f"the record with {shown_key(key)} ({self._origin}, row {number + 1:,})"
        self.refusal = self.refusal or self._limits.too_large(what, topic, key, value, headers)


def sizes_of(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Return the bytes of each row as a record that is alone in its batch, at most and before compression."""
    sizes = np.full(batch.num_rows, RECORD_OVERHEAD, np.int64)
    for name in {"key", "value"} & set(batch.schema.names):
        sizes += lengths(batch.column(name))
    if "headers" in batch.schema.names:
        headers = batch.column("headers")
        flat = headers.flatten()
        bytes_of_each = HEADER_OVERHEAD + lengths(flat.field("key")) + lengths(flat.field("value"))
        ends = np.concatenate([[0], np.cumsum(bytes_of_each)])[np.cumsum(lengths(headers))]
        sizes += np.diff(ends, prepend=0)
    return sizes


FULL_QUEUE_SECONDS = 0.05
# What is refused for its own sake, and not for that of the records beside it, or of the brokers.
OF_RECORD = (
    *(KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP, KafkaError._UNKNOWN_PARTITION),
    *(KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, *NO_TOPIC),
)
# As librdkafka takes timestamps: with 0 it sets the time of publishing.
PUBLISHING, EARLIEST_MS = 0, 1
MASK = (1 << 64) - 1


class ShardProducer:
    """Hands rows to a producer and keeps count of them in `done`, and of their bytes in `size`.

    `oldest` is the least timestamp, in ms since 1970, of those that have one; None for none. `failed` has the
    first error of a record with a callback of its own that is not refused for its own sake.

    Args:
        limits, origin: see `LargeRecords`.
        fast: False where each record that is not delivered must be reported.
    """

    def __init__(
        self, done: Done, sink: str, limits: SizeLimits | None = None, origin: str = "", fast: bool = True
    ) -> None:
        self.done, self.size, self._sink, self._fast = done, 0, sink, fast
        where = f"batch {done.id.batch}, {origin or f'shard {done.shard}'}"
        self._where, self._limits = where, limits or SizeLimits({})
        self._large = LargeRecords(self._limits, where)
        self.oldest: int | None = None
        self.failed: list[KafkaError] = []
        self._refused: tuple[int, float, TidemarkError] | None = None  # the error, how sure it is, and the stop

    @property
    def refusal(self) -> TidemarkError | None:
        """Return the stop that names a record, once one was refused for its size; or for what else it is, where it has
        named its own topic."""
        return self._large.refusal or (self._refused[2] if self._refused else None)

    def produce(self, producer: Producer, rows: Iterable[pa.RecordBatch], topic: str | None, timeout: float) -> None:
        """Hand over all rows, those that name no topic for `topic`.

        Raises:
            TidemarkError: KAFKA_FAILED, RECORD_TOO_LARGE, TIMESTAMP_AHEAD, RECORD_REFUSED.
            KafkaException: where a right is lacking, or the transaction's end tells why it cannot go on.
        """
        try:
            with contextlib.ExitStack() as stack:
                bulk = bulk_of(producer, topic) if topic and self._fast else None
                if bulk:
                    stack.callback(bulk.close)
                for batch in rows:
                    self._require_topics(batch, topic)
                    self._require_times(batch, topic)
                    self._require_keys(batch, topic)
                    large = self._large.rows(batch, topic)
                    with self._naming_partition(producer, batch, topic):
                        if bulk and not large and not {"topic", "headers", "timestamp"} & set(batch.schema.names):
                            bulk.send(batch, timeout)
                        else:
                            self._send_each(producer, batch, topic, large)
                    producer.poll(0)
                    self.count(batch)
                    fail_point("shard-mid-produce", self._sink, shard=self.done.shard, batch=self.done.id.batch)
        except KafkaException as exc:
            error = exc.args[0]
            if error.code() in (*CODES, *CONSEQUENCES) and not self.refusal:
                raise
            is_size = error.code() == KafkaError.MSG_SIZE_TOO_LARGE
            other = batch_too_large(self._sink) if is_size else client_error(self._sink, error, (), {})
            raise self.refusal or other from exc

    def count(self, batch: pa.RecordBatch) -> None:
        hashes = numbers(batch.column(HASH), np.uint64)
        checksum = (self.done.checksum + int(hashes.sum(dtype=np.uint64))) & MASK
        topics = set(self.done.topics)
        if "topic" in batch.schema.names:
            topics |= {name for name in batch.column("topic").unique().to_pylist() if name is not None}
        n = self.done.n + batch.num_rows
        self.size += batch.nbytes
        if "timestamp" in batch.schema.names and (first := pc.min(batch.column("timestamp")).as_py()) is not None:
            self.oldest = first if self.oldest is None else min(self.oldest, first)
        self.done = replace(self.done, n=n, checksum=checksum, topics=tuple(sorted(topics)))

    def _require_topics(self, batch: pa.RecordBatch, topic: str | None) -> None:
        """Raises TidemarkError BAD_SINK_COLUMNS for a record without a topic."""
        names = batch.column("topic") if topic is None and "topic" in batch.schema.names else None
        if names is not None and names.null_count:
            what = f"{self._named(batch, pc.index(names.is_null(), True).as_py())} has a null in column `topic`"
            raise TidemarkError("BAD_SINK_COLUMNS", what, "name the topic of every row")

    def _require_times(self, batch: pa.RecordBatch, topic: str | None) -> None:
        """Raises TidemarkError TIMESTAMP_AHEAD: the broker would refuse the record, and with it its whole batch."""
        ahead_ms = self._limits.ahead_ms.get(topic or "")
        if ahead_ms is None or "timestamp" not in batch.schema.names or not batch.num_rows:
            return
        times = batch.column("timestamp")
        latest, now = pc.max(times).as_py(), int(time.time() * 1000)
        if latest is None or latest <= now + ahead_ms:
            return
        try:
            at = (EPOCH + timedelta(milliseconds=latest)).isoformat()
        except OverflowError:
            at = f"{latest:,} ms after 1970"
        record = self._named(batch, pc.index(times, latest).as_py())
        what = f"{record} has the timestamp {at}, topic {topic} takes none more than {ahead_ms:,} ms ahead of the clock"
        raised = alter_topic(str(topic), AHEAD_LIMIT, -(-(latest - now) // DAY_MS) * DAY_MS, self._limits.servers)
        remedy = f"mend the event time, wait until it has come, or raise the limit: {raised}; then start again"
        raise TidemarkError("TIMESTAMP_AHEAD", what, remedy)

    def _require_keys(self, batch: pa.RecordBatch, topic: str | None) -> None:
        """Raises TidemarkError RECORD_REFUSED for a record without a key, which no compacted topic takes."""
        names = batch.schema.names
        if topic not in self._limits.compacted or "topic" in names or not batch.num_rows:
            return
        if "key" not in names or batch.column("key").null_count:
            row = pc.index(batch.column("key").is_null(), True).as_py() if "key" in names else 0
            record, servers = self._named(batch, row), self._limits.servers
            what = f"{record} cannot be sent: topic {topic} is compacted, and takes no record without a key"
            raised = alter_topic(str(topic), "cleanup.policy", "delete", servers)
            remedy = f"leave it out, or let the topic take it: {raised}; {OTHERS_STAY}"
            raise TidemarkError("RECORD_REFUSED", what, remedy)

    @contextlib.contextmanager
    def _naming_partition(self, producer: Producer, batch: pa.RecordBatch, topic: str | None) -> Iterator[None]:
        """Raise TidemarkError RECORD_REFUSED with the record that names a partition which its topic lacks."""
        try:
            yield
        except KafkaException as exc:
            names = batch.schema.names
            is_unknown = exc.args[0].code() == KafkaError._UNKNOWN_PARTITION
            if not is_unknown or topic is None or "topic" in names or "partition" not in names:
                raise
            partitions = len(producer.list_topics(topic, timeout=METADATA_SECONDS).topics[topic].partitions)
            row = pc.index(pc.greater_equal(batch.column("partition"), partitions), True).as_py()
            if row < 0:
                raise
            named = batch.column("partition")[row].as_py()
            what = f"{self._named(batch, row)} names partition {named}, topic {topic} has {partitions}, from 0"
            options = f"--alter --topic {topic} --partitions {named + 1}"
            raised = f"`kafka-topics.sh --bootstrap-server {self._limits.servers or 'HOST:PORT'} {options}`"
            remedy = f"leave it out, mend its `partition`, or give the topic more: {raised}; {OTHERS_STAY}"
            raise TidemarkError("RECORD_REFUSED", what, remedy) from exc

    def _named(self, batch: pa.RecordBatch, row: int) -> str:
        """Name a record for people."""
        key = batch.column("key")[row].as_py() if "key" in batch.schema.names else None
        return f"the record with {shown_key(key)} ({self._where}, row {self.done.n + row + 1:,})"

    def _send_each(self, producer: Producer, batch: pa.RecordBatch, topic: str | None, large: Sequence[int]) -> None:
        """Send rows one by one: no call of librdkafka takes many that name topic or time, have headers or are large."""
        records: Iterator[Record] = _records(batch, topic)
        names_topic = "topic" in batch.schema.names
        if names_topic:
            # Nobody has asked what these topics take, nor whether they are there.
            records = (self._reported(record, self.done.n + number) for number, record in enumerate(records))
        if large:
            records = self._watched(records, set(large))
        for number, record in enumerate(records):
            try:
                producer.produce(*record)
            except BufferError:
                _produce_when_free(producer, record)
            except KafkaException as exc:
                error = exc.args[0]
                if names_topic or error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    self._note(error, record, self.done.n + number)
                raise

    def _watched(self, records: Iterator[Record], large: Collection[int]) -> Iterator[Record]:
        """Yield the records, the large ones with a callback of their own; leave out those that cannot be sent."""
        for number, record in enumerate(records):
            if number not in large:
                yield record
            elif not self._large.is_refused(record, self.done.n + number):
                yield self._reported(record, self.done.n + number)
            elif self._fast:
                assert self.refusal is not None
                raise self.refusal

    def _reported(self, record: Record, number: int) -> Record:
        """Give the record, the shard's `number`-th, a callback by which it is named where it is refused."""

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._note(error, record, number)

        topic, value, key, partition, _, _, timestamp, headers = record
        return topic, value, key, partition, delivered, None, timestamp, headers

    def _note(self, error: KafkaError, record: Record, number: int) -> None:
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self._large.refuse(record, number)
        elif error.code() in OF_RECORD:
            sure = _sure(error, record)
            if self._refused is None or (self._refused[0] == error.code() and self._refused[1] < sure):
                self._refused = error.code(), sure, self._refusal_of(error, record, number)
        elif not self.failed:
            self.failed.append(error)

    def _refusal_of(self, error: KafkaError, record: Record, number: int) -> TidemarkError:
        known = None if error.code() in NO_TOPIC else BY_ERROR.get(error.name())
        code, remedy = (known.code, known.remedy) if known else ("RECORD_REFUSED", "mend its column `topic`")
        what = f"the record with {shown_key(record[2])} ({self._where}, row {number + 1:,}), for topic {record[0]}"
        return TidemarkError(code, f"{what}: {error.str()}", f"{remedy}; {OTHERS_STAY}")


def _sure(error: KafkaError, record: Record) -> float:
    """Return how sure it is that a record was refused for its own sake: brokers refuse all of a batch alike."""
    if error.code() == KafkaError.INVALID_RECORD:
        return float(record[2] is None)  # what else brokers validate, a client of ours does not get wrong
    return abs(record[6] - time.time() * 1000) if error.code() == KafkaError.INVALID_TIMESTAMP else 1.0


def _records(batch: pa.RecordBatch, topic: str | None) -> Iterator[Record]:
    """Yield the rows as `produce` takes them, without a callback (it has two arguments for one)."""

    def values(name: str, default: Any) -> Any:
        """Return a column, with `default` for nulls and where there is none."""
        if name not in batch.schema.names:
            return repeat(default)
        rows = batch.column(name).to_pylist()
        return rows if default is None else [default if row is None else row for row in rows]  # Arrow would load pandas

    columns = (
        values("topic", topic),
        values("value", None),
        values("key", None),
        values("partition", PARTITIONER),
        repeat(None),
        repeat(None),
        _timestamps(batch),
        _headers(batch),
    )
    return zip(*columns, strict=False)


def _produce_when_free(producer: Producer, record: Record) -> None:
    while True:
        producer.poll(FULL_QUEUE_SECONDS)
        try:
            producer.produce(*record)
            return
        except BufferError:
            continue


def _timestamps(batch: pa.RecordBatch) -> Any:
    """Return milliseconds since 1970; 0, the time of publishing, for null; EARLIEST_MS before 1970: Kafka has none."""
    if "timestamp" not in batch.schema.names:
        return repeat(PUBLISHING)
    times = batch.column("timestamp")
    return np.where(is_there(times), np.maximum(numbers(times, np.int64), EARLIEST_MS), PUBLISHING).tolist()


def _headers(batch: pa.RecordBatch) -> Any:
    if "headers" not in batch.schema.names:
        return repeat(None)
    rows = batch.column("headers").to_pylist()
    return [[(header["key"], header["value"]) for header in row] if row else None for row in rows]
