"""Kafka as a source (all eight columns) and as a sink of a stream or a batch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.readwriter import DataStreamWriter
from pyspark.sql.types import BinaryType, StringType

from conf.errors import TidemarkError, nearest
from conf.settings import Batching, Kafka, Source
from jobs.connectors.positions import METADATA_TIMEOUT_S, Position, milliseconds, parse_position, unreachable

COLUMNS = ("key", "value", "topic", "partition", "offset", "timestamp", "timestampType", "headers")
HEADERS = "array<struct<key:string,value:binary>>"

# Correctness needs these two: an aborted transaction's records are no records, and lost data must not pass unseen.
ENFORCED = {"kafka.isolation.level": "read_committed", "failOnDataLoss": "true", "includeHeaders": "true"}


@dataclass(frozen=True)
class Subscription:
    """The topics of one source: named ones, all that match a Java regular expression, or partitions by topic.

    Of a topic that is named, a batch must say where each partition starts and ends, those added since too.
    """

    topics: tuple[str, ...] = ()
    pattern: str | None = None
    partitions: Mapping[str, Sequence[int]] | None = None

    def __post_init__(self) -> None:
        if bool(self.topics) + (self.pattern is not None) + bool(self.partitions) != 1:
            raise TidemarkError("BAD_SUBSCRIPTION", "a source needs either topics or a pattern", "name one of the two")

    def option(self) -> tuple[str, str]:
        if self.partitions:
            return "assign", json.dumps({topic: list(numbers) for topic, numbers in self.partitions.items()})
        return ("subscribePattern", self.pattern) if self.pattern is not None else ("subscribe", ",".join(self.topics))


def read_stream(spark: SparkSession, kafka: Kafka, source: Source, subscription: Subscription) -> DataFrame:
    """A stream of records: key and value binary, topic string, partition int, offset long, timestamp timestamp,
    timestampType int, headers array<struct<key string, value binary>>.

    It starts at `source.starting_offsets` where there is no checkpoint; a batch has `source.max_offsets_per_trigger`
    records at most.
    """
    options = source_options(kafka, source, subscription)
    options |= _position("starting", parse_position(source.starting_offsets))
    options["maxOffsetsPerTrigger"] = str(source.max_offsets_per_trigger)
    return spark.readStream.format("kafka").options(**options).load().select(*COLUMNS)


def read_batch(
    spark: SparkSession,
    kafka: Kafka,
    source: Source,
    subscription: Subscription,
    start: Position = "earliest",
    end: Position = "latest",
) -> DataFrame:
    """The records from `start` to before `end`, in the columns of `read_stream`."""
    options = source_options(kafka, source, subscription) | _position("starting", start) | _position("ending", end)
    return spark.read.format("kafka").options(**options).load().select(*COLUMNS)


def source_options(kafka: Kafka, source: Source, subscription: Subscription) -> dict[str, str]:
    """Options of Spark's Kafka source, positions and limits aside; what correctness needs cannot be set otherwise."""
    name, value = subscription.option()
    tuned = {
        "kafka.max.poll.records": source.max_poll_records,
        "kafka.receive.buffer.bytes": source.receive_buffer_bytes,
        "kafka.fetch.min.bytes": source.fetch_min_bytes,
        "kafka.fetch.max.wait.ms": source.fetch_max_wait_ms,
        "kafka.max.partition.fetch.bytes": source.max_partition_fetch_bytes,
    }
    return connection_options(kafka) | {key: str(number) for key, number in tuned.items()} | {name: value} | ENFORCED


def connection_options(kafka: Kafka) -> dict[str, str]:
    """Connection options in the Java client's words (Spark hides what `spark.redaction.regex` matches)."""
    options = {
        "kafka.bootstrap.servers": kafka.require_bootstrap_servers(),
        "kafka.security.protocol": kafka.security_protocol,
    }
    if kafka.security_protocol.startswith("SASL"):
        options |= {"kafka.sasl.mechanism": kafka.sasl_mechanism, "kafka.sasl.jaas.config": _jaas(kafka)}
    if kafka.ssl_ca_location:
        options |= {"kafka.ssl.truststore.type": "PEM", "kafka.ssl.truststore.location": kafka.ssl_ca_location}
    return options


def require_topics(kafka: Kafka, names: Sequence[str]) -> None:
    """Ask the broker for `names`.

    Raises:
        TidemarkError: BROKER_UNREACHABLE, or TOPIC_MISSING with the nearest name.
    """
    client = AdminClient({**kafka.client_config(), "log_level": 0, "socket.connection.setup.timeout.ms": 5000})
    try:
        present = client.list_topics(timeout=METADATA_TIMEOUT_S).topics
    except KafkaException as exc:
        raise unreachable(kafka) from exc
    for name in names:
        if name not in present:
            others = [topic for topic in present if not topic.startswith("__")]
            remedy = f"create it with `local/tidemark topics apply`; {nearest(name, others)}"
            raise TidemarkError("TOPIC_MISSING", f"topic `{name}` is not on {kafka.bootstrap_servers}", remedy)


def check_output(frame: DataFrame, topic: str | None = None) -> None:
    """Check that `frame` can be written to Kafka: `value` required; `key`, `topic`, `partition`, `headers` optional.

    Raises:
        TidemarkError: BAD_SINK_COLUMNS, with the column, its type and what it must be.
    """
    kinds = {field.name: field.dataType for field in frame.schema.fields}
    text = (StringType, BinaryType)
    required = ["value"] if topic else ["value", "topic"]
    for name in required:
        if name not in kinds:
            found = ", ".join(f"{column} {kind.simpleString()}" for column, kind in kinds.items())
            raise _bad_sink(
                f"column `{name}` is missing among: {found}", "a Kafka sink takes value, and topic where none is named"
            )
    for name in kinds.keys() & {"key", "value", "topic"}:
        if not isinstance(kinds[name], text):
            raise _bad_sink(
                f"column `{name}` is {kinds[name].simpleString()}", "it must be string or binary: encode it first"
            )
    for name, wanted in (("partition", "int"), ("headers", HEADERS)):
        if name in kinds and kinds[name].simpleString() != wanted:
            raise _bad_sink(f"column `{name}` is {kinds[name].simpleString()}", f"it must be {wanted}")
    extra = kinds.keys() - {"key", "value", "topic", "partition", "headers"}
    if extra:
        raise _bad_sink(
            f"column `{min(extra)}` has no place in a Kafka record", "drop it, or put it into the value or a header"
        )


def write_stream(frame: DataFrame, kafka: Kafka, sink: Batching, topic: str | None = None) -> DataStreamWriter:
    """A writer of `frame` (checked by `check_output`) to Kafka, at least once: a batch run again is written again."""
    check_output(frame, topic)
    return frame.writeStream.format("kafka").options(**sink_options(kafka, sink, topic, frame))


def write_batch(frame: DataFrame, kafka: Kafka, sink: Batching, topic: str | None = None) -> None:
    """Write `frame` (checked by `check_output`) to Kafka."""
    check_output(frame, topic)
    frame.write.format("kafka").options(**sink_options(kafka, sink, topic, frame)).save()


def sink_options(kafka: Kafka, sink: Batching, topic: str | None, frame: DataFrame) -> dict[str, str]:
    """Options of Spark's Kafka sink; `acks=all` and idempotence cannot be set otherwise."""
    tuned = {
        "kafka.linger.ms": sink.linger_ms,
        "kafka.batch.size": sink.batch_bytes,
        "kafka.compression.type": sink.compression,
    }
    options = connection_options(kafka) | {key: str(value) for key, value in tuned.items()}
    options |= {"kafka.acks": "all", "kafka.enable.idempotence": "true"}
    options["includeHeaders"] = str("headers" in frame.columns).lower()
    return options | ({"topic": topic} if topic else {})


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


def _jaas(kafka: Kafka) -> str:
    scram = kafka.sasl_mechanism.startswith("SCRAM")
    module = "scram.ScramLoginModule" if scram else "plain.PlainLoginModule"
    quoted = [
        part.replace("\\", "\\\\").replace('"', '\\"')
        for part in (kafka.sasl_username, kafka.sasl_password.get_secret_value())
    ]
    return f'org.apache.kafka.common.security.{module} required username="{quoted[0]}" password="{quoted[1]}";'


def _bad_sink(message: str, remedy: str) -> TidemarkError:
    return TidemarkError("BAD_SINK_COLUMNS", message, remedy)
