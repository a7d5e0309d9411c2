"""Spark's Kafka source and sink against a real broker."""

import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.settings import Settings, load
from jobs.connectors import kafka
from jobs.connectors.kafka import Subscription
from jobs.connectors.positions import METADATA_TIMEOUT_S
from local.broker import Cluster
from tests.sent import T0, Record, produce, send

NewTopicOf = Callable[[int], str]
COLUMN_TYPES = [
    ("key", "binary"),
    ("value", "binary"),
    ("topic", "string"),
    ("partition", "int"),
    ("offset", "bigint"),
    ("timestamp", "timestamp"),
    ("timestampType", "int"),
    ("headers", "array<struct<key:string,value:binary>>"),
]


@pytest.fixture
def settings(broker: Cluster) -> Settings:
    return load("local", [f"kafka.bootstrap_servers={broker.bootstrap_servers}"])


def batch(spark: SparkSession, settings: Settings, topic: str, **bounds: Any) -> DataFrame:
    return kafka.read_batch(spark, settings.kafka, settings.source, Subscription((topic,)), **bounds)


def values(frame: DataFrame) -> list[str]:
    rows = frame.select(F.col("value").cast("string")).orderBy("topic", "partition", "offset").collect()
    return [row.value for row in rows]


def drain(stream: DataFrame, folder: Path) -> list[list[str]]:
    """The values of each micro-batch, until the stream has caught up."""
    batches: list[list[str]] = []
    query = (
        stream.writeStream.option("checkpointLocation", str(folder / "checkpoint"))
        .foreachBatch(lambda frame, _: batches.append(values(frame)))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination(120)
    return [found for found in batches if found]


def test_all_eight_columns_arrive_with_their_types_and_values(
    spark: SparkSession, settings: Settings, broker: Cluster, new_topic: NewTopicOf
) -> None:
    topic = new_topic(2)
    headers = [("trace", b"\0\1"), ("trace", b"again"), ("empty", None)]
    send(broker, topic, Record(b"first", b"k", 1, T0 + 1, headers), Record(None, None, 1, T0 + 2))
    frame = batch(spark, settings, topic)
    assert frame.dtypes == COLUMN_TYPES
    first, second = frame.withColumn("timestamp", F.unix_millis("timestamp")).orderBy("offset").collect()
    found = [Row(key=name, value=None if value is None else bytearray(value)) for name, value in headers]
    assert tuple(first) == (bytearray(b"k"), bytearray(b"first"), topic, 1, 0, T0 + 1, 0, found)
    assert tuple(second) == (None, None, topic, 1, 1, T0 + 2, 0, None)


def test_a_stream_has_the_same_columns_as_a_batch(
    spark: SparkSession, settings: Settings, new_topic: NewTopicOf
) -> None:
    stream = kafka.read_stream(spark, settings.kafka, settings.source, Subscription((new_topic(1),)))
    assert stream.isStreaming
    assert stream.dtypes == COLUMN_TYPES


def test_the_brokers_own_time_is_told_apart_by_its_type(
    spark: SparkSession, settings: Settings, broker: Cluster
) -> None:
    topic = f"topic-{uuid.uuid4().hex[:12]}"
    appended = NewTopic(topic, 1, 1, config={"message.timestamp.type": "LogAppendTime"})
    admin = AdminClient({**settings.kafka.client_config()})
    admin.create_topics([appended])[topic].result(30)
    send(broker, topic, Record(b"x"))
    row = batch(spark, settings, topic).select("timestampType", F.unix_millis("timestamp")).collect()[0]
    assert row[0] == 1
    assert row[1] > T0


def test_several_topics_and_a_pattern_are_one_stream(
    spark: SparkSession, settings: Settings, broker: Cluster, new_topic: NewTopicOf, tmp_path: Path
) -> None:
    topics = sorted(new_topic(1) for _ in range(3))
    for topic in topics:
        send(broker, topic, Record(topic.encode()))

    def read(subscription: Subscription, name: str) -> list[str]:
        stream = kafka.read_stream(spark, settings.kafka, settings.source, subscription)
        return list(chain(*drain(stream, tmp_path / name)))

    assert read(Subscription(tuple(topics[:2])), "named") == topics[:2]
    assert read(Subscription(pattern="|".join(topics[1:])), "pattern") == topics[1:]


def test_a_source_reads_topics_or_a_pattern_and_not_both() -> None:
    with pytest.raises(TidemarkError, match="BAD_SUBSCRIPTION"):
        Subscription(("a",), "b")
    with pytest.raises(TidemarkError, match="BAD_SUBSCRIPTION"):
        Subscription()


@pytest.fixture
def numbered(broker: Cluster, new_topic: NewTopicOf) -> str:
    """A topic of two partitions with the values 0 to 9, one a second, even ones in partition 0."""
    topic = new_topic(2)
    send(broker, topic, *(Record(b"%d" % n, partition=n % 2, timestamp=T0 + 1000 * n) for n in range(10)))
    return topic


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(T0 / 1000 + seconds, UTC)


def test_a_batch_is_bounded_by_offsets_with_the_end_left_out(
    spark: SparkSession, settings: Settings, numbered: str
) -> None:
    bounds = {"start": {numbered: {0: 1, 1: 0}}, "end": {numbered: {0: 3, 1: 1}}}
    assert values(batch(spark, settings, numbered, **bounds)) == ["2", "4", "1"]


def test_a_batch_is_bounded_by_times_with_the_end_left_out(
    spark: SparkSession, settings: Settings, numbered: str
) -> None:
    assert values(batch(spark, settings, numbered, start=at(3), end=at(7))) == ["4", "6", "3", "5"]
    assert values(batch(spark, settings, numbered, start=at(8), end=at(60))) == ["8", "9"]
    assert values(batch(spark, settings, numbered, start=at(60))) == []


def test_a_stream_starts_where_it_is_told_and_then_where_it_stopped(
    spark: SparkSession, settings: Settings, broker: Cluster, numbered: str, tmp_path: Path
) -> None:
    source = settings.source.model_copy(update={"starting_offsets": at(7).isoformat()})
    stream = kafka.read_stream(spark, settings.kafka, source, Subscription((numbered,)))
    assert drain(stream, tmp_path) == [["8", "7", "9"]]
    send(broker, numbered, Record(b"10"))
    assert drain(stream, tmp_path) == [["10"]]


def test_a_backlog_is_admitted_in_bounded_micro_batches(
    spark: SparkSession, settings: Settings, numbered: str, tmp_path: Path
) -> None:
    source = settings.source.model_copy(update={"max_offsets_per_trigger": 4})
    batches = drain(kafka.read_stream(spark, settings.kafka, source, Subscription((numbered,))), tmp_path)
    assert len(batches) >= 3
    assert max(map(len, batches)) <= 4
    assert sorted(map(int, chain(*batches))) == list(range(10))


def test_records_of_an_aborted_transaction_are_not_seen(
    spark: SparkSession, settings: Settings, broker: Cluster, new_topic: NewTopicOf, tmp_path: Path
) -> None:
    topic = new_topic(1)
    producer = Producer({**settings.kafka.client_config(), "transactional.id": f"test-{topic}"})
    producer.init_transactions(30)
    for value, kept in ((b"kept", True), (b"aborted", False)):
        producer.begin_transaction()
        produce(producer, topic, Record(value))
        producer.flush(30)
        (producer.commit_transaction if kept else producer.abort_transaction)(30)
    assert values(batch(spark, settings, topic)) == ["kept"]
    stream = kafka.read_stream(spark, settings.kafka, settings.source, Subscription((topic,)))
    assert drain(stream, tmp_path) == [["kept"]]


def test_what_correctness_needs_stands_whatever_is_configured(settings: Settings) -> None:
    options = kafka.source_options(settings.kafka, settings.source, Subscription(("a", "b")))
    assert options["kafka.isolation.level"] == "read_committed"
    assert options["failOnDataLoss"] == "true"
    assert options["subscribe"] == "a,b"
    assert options["kafka.max.poll.records"] == str(settings.source.max_poll_records)
    options.clear()
    assert kafka.source_options(settings.kafka, settings.source, Subscription(("a",)))["failOnDataLoss"] == "true"


def test_lost_records_stop_a_stream(
    spark: SparkSession, settings: Settings, broker: Cluster, numbered: str, tmp_path: Path
) -> None:
    source = settings.source.model_copy(update={"starting_offsets": f'{{"{numbered}": {{"0": 1, "1": 1}}}}'})
    admin = AdminClient({**settings.kafka.client_config()})
    admin.delete_records([TopicPartition(numbered, 0, 3)])[TopicPartition(numbered, 0)].result(30)
    stream = kafka.read_stream(spark, settings.kafka, source, Subscription((numbered,)))
    with pytest.raises(Exception, match=r"OffsetOutOfRange|data was lost|DATA_LOSS|dataloss"):
        drain(stream, tmp_path)


SINK_ROWS = "key string, value binary, partition int, headers array<struct<key string, value binary>>"


def consumed(settings: Settings, topic: str, count: int) -> list[tuple[Any, ...]]:
    """The first `count` records as (key, value, partition, headers)."""
    found: list[tuple[Any, ...]] = []
    consumer = Consumer({**settings.kafka.client_config(), "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    try:
        deadline = time.monotonic() + 30
        while len(found) < count and time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is not None and not message.error():  # a message without a value is false
                found.append((message.key(), message.value(), message.partition(), message.headers()))
    finally:
        consumer.close()
    return sorted(found, key=str)


def test_key_value_partition_and_headers_are_written(
    spark: SparkSession, settings: Settings, new_topic: NewTopicOf
) -> None:
    topic = new_topic(3)
    rows = [
        ("a", bytearray(b"1"), 2, [("h", bytearray(b"x")), ("h", None)]),
        (None, bytearray(b"2"), 1, None),
        ("gone", None, 0, None),
    ]
    kafka.write_batch(spark.createDataFrame(rows, SINK_ROWS), settings.kafka, settings.sink, topic)
    assert consumed(settings, topic, 3) == [
        (None, b"2", 1, None),
        (b"a", b"1", 2, [("h", b"x"), ("h", None)]),
        (b"gone", None, 0, None),
    ]


def test_a_row_names_its_topic_where_the_sink_has_none(
    spark: SparkSession, settings: Settings, new_topic: NewTopicOf
) -> None:
    topics = [new_topic(1), new_topic(1)]
    rows = spark.createDataFrame([(topic, f"to {topic}") for topic in topics], "topic string, value string")
    kafka.write_batch(rows, settings.kafka, settings.sink)
    for topic in topics:
        assert consumed(settings, topic, 1) == [(None, f"to {topic}".encode(), 0, None)]


def test_a_stream_is_written_to_a_topic(
    spark: SparkSession, settings: Settings, numbered: str, new_topic: NewTopicOf, tmp_path: Path
) -> None:
    topic = new_topic(1)
    stream = kafka.read_stream(spark, settings.kafka, settings.source, Subscription((numbered,)))
    writer = kafka.write_stream(stream.select("key", "value"), settings.kafka, settings.sink, topic)
    query = writer.option("checkpointLocation", str(tmp_path)).trigger(availableNow=True).start()
    query.awaitTermination(120)
    assert [value for _, value, _, _ in consumed(settings, topic, 10)] == [b"%d" % n for n in range(10)]


@pytest.mark.parametrize(
    ("schema", "topic", "expected"),
    [
        ("key string", "t", "column `value` is missing among: key string"),
        ("value string", None, "column `topic` is missing among: value string"),
        ("value struct<a int>", "t", "column `value` is struct<a:int>; it must be string or binary"),
        ("value string, key int", "t", "column `key` is int; it must be string or binary"),
        ("value string, partition bigint", "t", "column `partition` is bigint; it must be int"),
        ("value string, headers map<string,binary>", "t", "column `headers` is map<string,binary>; it must be array"),
        ("value string, delay int", "t", "column `delay` has no place in a Kafka record; drop it"),
    ],
)
def test_columns_that_a_topic_cannot_take_are_refused_before_the_query_starts(
    schema: str, topic: str | None, expected: str, spark: SparkSession, settings: Settings
) -> None:
    frame = spark.createDataFrame([], schema)
    for write in (kafka.write_batch, kafka.write_stream):
        with pytest.raises(TidemarkError, match="BAD_SINK_COLUMNS") as refused:
            write(frame, settings.kafka, settings.sink, topic)
        assert expected in str(refused.value)


def test_a_missing_topic_is_told_with_the_nearest_that_is_there(settings: Settings, new_topic: NewTopicOf) -> None:
    topic = new_topic(1)
    kafka.require_topics(settings.kafka, [topic])
    with pytest.raises(TidemarkError, match="TOPIC_MISSING") as refused:
        kafka.require_topics(settings.kafka, [topic, f"{topic}x"])
    assert f"topic `{topic}x` is not on" in str(refused.value)
    assert f"did you mean `{topic}`?" in str(refused.value)


def test_a_broker_that_does_not_answer_is_told_within_seconds(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert METADATA_TIMEOUT_S <= 10
    monkeypatch.setattr(kafka, "METADATA_TIMEOUT_S", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        unreachable = load("local", [f"kafka.bootstrap_servers={address}"]).kafka
        began = time.monotonic()
        with pytest.raises(TidemarkError, match=f"BROKER_UNREACHABLE: no Kafka broker answers at {address}"):
            kafka.require_topics(unreachable, ["departures"])
        assert time.monotonic() - began < 6
    assert capfd.readouterr().err == ""


PASSWORD = 'p"ss\\word-hunter2'


def test_a_password_reaches_the_client_and_no_plan_or_explanation(
    spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    access = ["security_protocol=SASL_SSL", "sasl_mechanism=SCRAM-SHA-512", "sasl_username=reader"]
    secured = load(
        "local", [f"kafka.{pair}" for pair in (*access, f"sasl_password={PASSWORD}", "bootstrap_servers=h:1")]
    )
    options = kafka.connection_options(secured.kafka)
    assert options["kafka.sasl.mechanism"] == "SCRAM-SHA-512"
    assert options["kafka.sasl.jaas.config"] == (
        "org.apache.kafka.common.security.scram.ScramLoginModule required "
        'username="reader" password="p\\"ss\\\\word-hunter2";'
    )
    stream = kafka.read_stream(spark, secured.kafka, secured.source, Subscription(("t",)))
    stream.explain(extended=True)
    read = kafka.read_batch(spark, secured.kafka, secured.source, Subscription(("t",)))
    plans = [frame._jdf.queryExecution().logical().toString() for frame in (stream, read)]
    texts = [capsys.readouterr().out, *plans]
    assert "kafka.sasl.jaas.config" in texts[0] + texts[1]
    assert not any("hunter2" in text for text in texts)


def test_a_plain_login_has_its_own_module() -> None:
    access = ["security_protocol=SASL_PLAINTEXT", "sasl_mechanism=PLAIN", "sasl_username=u", "bootstrap_servers=h:1"]
    options = kafka.connection_options(load("local", [f"kafka.{pair}" for pair in access]).kafka)
    assert "plain.PlainLoginModule" in options["kafka.sasl.jaas.config"]
