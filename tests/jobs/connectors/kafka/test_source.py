"""Spark's Kafka source against a real broker."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.kafka import source_sink
from jobs.connectors.kafka.source_sink import Subscription
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


def batch(spark: SparkSession, settings: Settings, topic: str, **bounds: Any) -> DataFrame:
    return source_sink.read_batch(spark, settings.kafka, settings.source, Subscription((topic,)), **bounds)


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


def test_single_partitions_are_read_of_a_topic_that_has_more(
    spark: SparkSession, settings: Settings, broker: Cluster, new_topic: NewTopicOf
) -> None:
    topic = new_topic(2)
    send(broker, topic, Record(b"a"), Record(b"b"), Record(b"c"), Record(b"other", partition=1))
    bounds = {topic: {0: 1}}, {topic: {0: 3}}
    frame = source_sink.read_batch(
        spark, settings.kafka, settings.source, Subscription(partitions={topic: [0]}), *bounds
    )
    assert values(frame) == ["b", "c"]


def test_a_stream_has_the_same_columns_as_a_batch(
    spark: SparkSession, settings: Settings, new_topic: NewTopicOf
) -> None:
    stream = source_sink.read_stream(spark, settings.kafka, settings.source, Subscription((new_topic(1),)))
    assert stream.isStreaming
    assert stream.dtypes == COLUMN_TYPES


def test_the_brokers_own_time_is_told_apart_by_its_type(
    spark: SparkSession, settings: Settings, broker: Cluster
) -> None:
    topic = f"topic-{uuid.uuid4().hex[:12]}"
    appended = NewTopic(topic, 1, 1, config={"message.timestamp.type": "LogAppendTime"})
    admin = AdminClient({**settings.kafka.client_config(), "log_level": 0})
    admin.create_topics([appended])[topic].result(30)
    send(broker, topic, Record(b"x"))
    row = batch(spark, settings, topic).select("timestampType", F.unix_millis("timestamp")).collect()[0]
    assert row[0] == 1
    assert row[1] > T0


def test_several_topics_are_one_stream(
    spark: SparkSession, settings: Settings, broker: Cluster, new_topic: NewTopicOf, tmp_path: Path
) -> None:
    topics = sorted(new_topic(1) for _ in range(2))
    for topic in topics:
        send(broker, topic, Record(topic.encode()))

    stream = source_sink.read_stream(spark, settings.kafka, settings.source, Subscription(tuple(topics)))
    assert list(chain(*drain(stream, tmp_path))) == topics


def test_a_source_reads_topics_or_partitions_and_not_both() -> None:
    with pytest.raises(TidemarkError, match="BAD_SUBSCRIPTION"):
        Subscription(("a",), {"a": [0]})
    with pytest.raises(TidemarkError, match="BAD_SUBSCRIPTION"):
        Subscription()


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
    stream = source_sink.read_stream(spark, settings.kafka, source, Subscription((numbered,)))
    assert drain(stream, tmp_path) == [["8", "7", "9"]]
    send(broker, numbered, Record(b"10"))
    assert drain(stream, tmp_path) == [["10"]]


def test_a_backlog_is_admitted_in_bounded_micro_batches(
    spark: SparkSession, settings: Settings, numbered: str, tmp_path: Path
) -> None:
    source = settings.source.model_copy(update={"max_offsets_per_trigger": 4, "min_partitions": 3})
    batches = drain(source_sink.read_stream(spark, settings.kafka, source, Subscription((numbered,))), tmp_path)
    assert len(batches) >= 3
    assert max(map(len, batches)) <= 4
    assert sorted(map(int, chain(*batches))) == list(range(10))


def test_limits_are_options_of_the_source_where_they_are_set(settings: Settings) -> None:
    set_ones = {"min_offsets_per_trigger": 5, "max_trigger_delay": "2 minutes", "min_partitions": 3}
    assert source_sink.stream_limits(settings.source) == {"maxOffsetsPerTrigger": "2000000"}
    assert source_sink.stream_limits(settings.source.model_copy(update=set_ones)) == {
        "maxOffsetsPerTrigger": "2000000",
        "minOffsetsPerTrigger": "5",
        "maxTriggerDelay": "120000ms",
        "minPartitions": "3",
    }


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
    stream = source_sink.read_stream(spark, settings.kafka, settings.source, Subscription((topic,)))
    assert drain(stream, tmp_path) == [["kept"]]


def test_what_correctness_needs_stands_whatever_is_configured(settings: Settings) -> None:
    options = source_sink.source_options(settings.kafka, settings.source, Subscription(("a", "b")))
    assert options["kafka.isolation.level"] == "read_committed"
    assert options["failOnDataLoss"] == "true"
    assert options["subscribe"] == "a,b"
    assert options["kafka.max.poll.records"] == str(settings.source.max_poll_records)
    options.clear()
    assert source_sink.source_options(settings.kafka, settings.source, Subscription(("a",)))["failOnDataLoss"] == "true"


def test_lost_records_stop_a_stream(
    spark: SparkSession, settings: Settings, broker: Cluster, numbered: str, tmp_path: Path
) -> None:
    source = settings.source.model_copy(update={"starting_offsets": f'{{"{numbered}": {{"0": 1, "1": 1}}}}'})
    admin = AdminClient({**settings.kafka.client_config(), "log_level": 0})
    admin.delete_records([TopicPartition(numbered, 0, 3)])[TopicPartition(numbered, 0)].result(30)
    stream = source_sink.read_stream(spark, settings.kafka, source, Subscription((numbered,)))
    with pytest.raises(Exception, match=r"OffsetOutOfRange|data was lost|DATA_LOSS|dataloss"):
        drain(stream, tmp_path)
