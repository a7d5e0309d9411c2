"""Reads streams and batches from Kafka (all eight columns), and writes batches to it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import add
from typing import Literal

from confluent_kafka.admin import AdminClient
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, StringType

from conf import setting_types
from conf.errors import TidemarkError, nearest
from conf.settings import Batching, Kafka, Source
from jobs.connectors.causes import KAFKA, causes
from jobs.connectors.kafka.access import Connection, reading, writing
from jobs.connectors.kafka.java_client import connection_options
from jobs.connectors.kafka.offsets import Position, milliseconds, parse_position
from jobs.connectors.kafka.refusals import Limits, SizeLimits, largest_record, shown_key, size_config

COLUMNS = ("key", "value", "topic", "partition", "offset", "timestamp", "timestampType", "headers")
# The defaults of Kafka's Java client; and by how many bytes it may take a record for larger than it is.
JAVA_REQUEST_BYTES, JAVA_BUFFER_BYTES, ESTIMATE_BYTES = 1 << 20, 32 << 20, 1_000
TOO_LARGE = f"{KAFKA}RecordTooLargeException"
TIMESTAMP = "timestamp"
HEADERS = "array<struct<key:string,value:binary>>"

# Correctness needs the first two: records of aborted transactions do not count, and lost data must not pass unseen.
ENFORCED = {"kafka.isolation.level": "read_committed", "failOnDataLoss": "true", "includeHeaders": "true"}


@dataclass(frozen=True)
class Subscription:
    """The topics that one source reads, or the partitions by topic.

    With topics, a batch must say where each partition starts and ends, those added since too.
    """

    topics: tuple[str, ...] = ()
    partitions: Mapping[str, Sequence[int]] | None = None

    def __post_init__(self) -> None:
        if bool(self.topics) == bool(self.partitions):
            raise TidemarkError("BAD_SUBSCRIPTION", "a source needs topics or partitions", "name one of the two")

    def option(self) -> tuple[str, str]:
        if self.partitions:
            return "assign", json.dumps({topic: list(numbers) for topic, numbers in self.partitions.items()})
        return "subscribe", ",".join(self.topics)


def read_stream(
    spark: SparkSession, kafka: Kafka, source: Source, subscription: Subscription, skips_lost: bool = False
) -> DataFrame:
    """Return a stream of records: key and value binary, topic string, partition int, offset long, timestamp timestamp,
    timestampType int, headers array<struct<key string, value binary>>.

    It starts at `source.starting_offsets` where there is no checkpoint; a batch has `source.max_offsets_per_trigger`
    records at most, and, where `source.min_offsets_per_trigger` is set, waits `source.max_trigger_delay` for so many.

    Args:
        skips_lost: whether it reads on behind records that are gone, where it would stop otherwise.
    """
    options = source_options(kafka, source, subscription)
    options |= _position("starting", parse_position(source.starting_offsets))
    options |= stream_limits(source) | ({"failOnDataLoss": "false"} if skips_lost else {})
    return spark.readStream.format("kafka").options(**options).load().select(*COLUMNS)


LIMITS = ("maxOffsetsPerTrigger", "minOffsetsPerTrigger", "maxTriggerDelay", "minPartitions")


def stream_limits(source: Source) -> dict[str, str]:
    """Return those LIMITS that are set: they bound a micro-batch, and cut it into tasks."""
    limits = {"maxOffsetsPerTrigger": str(source.max_offsets_per_trigger)}
    if source.min_offsets_per_trigger:
        limits["minOffsetsPerTrigger"] = str(source.min_offsets_per_trigger)
        limits["maxTriggerDelay"] = f"{setting_types.milliseconds(source.max_trigger_delay)}ms"
    if source.min_partitions:
        limits["minPartitions"] = str(source.min_partitions)
    return limits


def read_batch(
    spark: SparkSession,
    kafka: Kafka,
    source: Source,
    subscription: Subscription,
    start: Position = "earliest",
    end: Position = "latest",
) -> DataFrame:
    """Return the records from `start` to before `end`, in the columns of `read_stream`."""
    options = source_options(kafka, source, subscription) | _position("starting", start) | _position("ending", end)
    return spark.read.format("kafka").options(**options).load().select(*COLUMNS)


def source_options(kafka: Kafka, source: Source, subscription: Subscription) -> dict[str, str]:
    """Return the options of Spark's Kafka source, positions and limits aside;
    what correctness needs cannot be set otherwise."""
    name, value = subscription.option()
    tuned = {
        "kafka.max.poll.records": source.max_poll_records,
        "kafka.receive.buffer.bytes": source.receive_buffer_bytes,
        "kafka.fetch.min.bytes": source.fetch_min_bytes,
        "kafka.fetch.max.wait.ms": source.fetch_max_wait_ms,
        "kafka.max.partition.fetch.bytes": source.max_partition_fetch_bytes,
    }
    return connection_options(kafka) | {key: str(number) for key, number in tuned.items()} | {name: value} | ENFORCED


def require_topics(kafka: Kafka, names: Sequence[str], to_write: bool = False) -> None:
    """Ask the broker for `names`, which are to be read, or written to.

    Raises:
        TidemarkError: BROKER_UNREACHABLE, BROKER_REFUSES, NOT_AUTHORIZED, or TOPIC_MISSING with the nearest name.
    """
    connection = Connection(kafka)
    options = {"socket.connection.setup.timeout.ms": 5000, "allow.auto.create.topics": False}
    client = AdminClient({**connection.config(), **options})
    present = connection.metadata(client).topics
    for name in names:
        if name not in present:
            # The list lacks topics that this user may not see.
            connection.metadata(client, name, writing([name]) if to_write else reading([name]))
            others = [topic for topic in present if not topic.startswith("__")]
            remedy = f"create it with `local/tidemark topics apply`; {nearest(name, others)}"
            raise TidemarkError("TOPIC_MISSING", f"topic `{name}` is not on {kafka.bootstrap_servers}", remedy)


def check_output(frame: DataFrame, topic: str | None = None) -> None:
    """Check that `frame` can be written to Kafka.

    `value` is required; `key`, `topic`, `partition`, `headers` and `timestamp`, the record's time, are optional.

    Raises:
        TidemarkError: BAD_SINK_COLUMNS, with the column, its type and what it must be.
    """
    kinds = {field.name: field.dataType for field in frame.schema.fields}
    text = (StringType, BinaryType)
    required = ["value"] if topic else ["value", "topic"]
    for name in required:
        if name not in kinds:
            present = ", ".join(f"{column} {kind.simpleString()}" for column, kind in kinds.items())
            raise _bad_sink(
                f"column `{name}` is missing among: {present}",
                "a Kafka sink takes value, and topic where none is named",
            )
    for name in kinds.keys() & {"key", "value", "topic"}:
        if not isinstance(kinds[name], text):
            raise _bad_sink(
                f"column `{name}` is {kinds[name].simpleString()}", "it must be string or binary: encode it first"
            )
    for name, needed in (("partition", "int"), ("headers", HEADERS), (TIMESTAMP, "timestamp")):
        if name in kinds and kinds[name].simpleString() != needed:
            raise _bad_sink(f"column `{name}` is {kinds[name].simpleString()}", f"it must be {needed}")
    extra = kinds.keys() - {"key", "value", "topic", "partition", "headers", TIMESTAMP}
    if extra:
        raise _bad_sink(
            f"column `{min(extra)}` has no place in a Kafka record", "drop it, or put it into the value or a header"
        )


def size() -> Column:
    """Return the bytes of keys and values of records, as an aggregate: long; null of none."""
    return F.sum(F.coalesce(F.length("key"), F.lit(0)) + F.coalesce(F.length("value"), F.lit(0)))


def write_batch(
    frame: DataFrame, kafka: Kafka, sink: Batching, topic: str | None = None, limits: Limits | None = None
) -> None:
    """Write `frame` (checked by `check_output`) to Kafka; `limits`: what the topic takes, where that is known.

    Spark's sink sets no timestamp: that is the time of publishing.

    Raises:
        TidemarkError: RECORD_TOO_LARGE, with the largest record.
    """
    check_output(frame, topic)
    frame = frame.drop(TIMESTAMP)
    try:
        frame.write.format("kafka").options(**sink_options(kafka, sink, topic, frame, limits)).save()
    except Exception as exc:
        if not any(cause.kind == TOO_LARGE for cause in causes(exc)):
            raise
        raise _largest(frame, topic, kafka, limits) from exc


def sink_options(
    kafka: Kafka, sink: Batching, topic: str | None, frame: DataFrame, limits: Limits | None = None
) -> dict[str, str]:
    """Return the options of Spark's Kafka sink; `acks=all` and idempotence cannot be set otherwise."""
    takes = [limits or Limits()]
    # Kafka's Java client refuses by an estimate of its own, which is a little too high.
    largest = max(JAVA_REQUEST_BYTES, largest_record(takes) + ESTIMATE_BYTES)
    tuned = {
        "kafka.linger.ms": sink.linger_ms,
        "kafka.batch.size": size_config(sink, takes)["batch.size"],
        "kafka.compression.type": sink.compression,
        "kafka.max.request.size": largest,
        "kafka.buffer.memory": max(JAVA_BUFFER_BYTES, 2 * largest),
    }
    options = connection_options(kafka) | {key: str(value) for key, value in tuned.items()}
    options |= {"kafka.acks": "all", "kafka.enable.idempotence": "true"}
    options["includeHeaders"] = str("headers" in frame.columns).lower()
    return options | ({"topic": topic} if topic else {})


def _largest(frame: DataFrame, topic: str | None, kafka: Kafka, limits: Limits | None) -> TidemarkError:
    """Return the RECORD_TOO_LARGE error for the largest record of `frame`."""
    names = frame.columns
    sizes = [F.coalesce(F.octet_length(name), F.lit(0)) for name in ("key", "value") if name in names]
    if "headers" in names:
        total = "aggregate(headers, 0L, (sum, h) -> sum + octet_length(h.key) + coalesce(octet_length(h.value), 0))"
        sizes.append(F.coalesce(F.expr(total), F.lit(0)))
    largest = frame.orderBy(reduce(add, sizes).desc()).limit(1).collect()[0].asDict(recursive=True)
    key, value = (_as_bytes(largest.get(name)) for name in ("key", "value"))
    headers = [(header["key"], header["value"]) for header in largest.get("headers") or ()]
    to = str(largest.get("topic") or topic)
    known = SizeLimits.of({to: limits or Limits()}, kafka.bootstrap_servers)
    return known.too_large(f"the record with {shown_key(key)}", to, key, value, headers)


def _as_bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else None if data is None else bytes(data)


def _position(edge: Literal["starting", "ending"], position: Position) -> dict[str, str]:
    if isinstance(position, datetime):
        # A time past a partition's last record means its end, not an error.
        strategy = {"startingOffsetsByTimestampStrategy": "latest"} if edge == "starting" else {}
        return {f"{edge}Timestamp": str(milliseconds(position)), **strategy}
    return {
        f"{edge}Offsets": position
        if isinstance(position, str)
        else json.dumps({t: dict(o) for t, o in position.items()})
    }


def _bad_sink(message: str, remedy: str) -> TidemarkError:
    return TidemarkError("BAD_SINK_COLUMNS", message, remedy)
