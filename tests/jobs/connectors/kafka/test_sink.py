"""Spark's Kafka sink against a real broker."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.kafka import source_sink

NewTopicOf = Callable[[int], str]


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
    source_sink.write_batch(spark.createDataFrame(rows, SINK_ROWS), settings.kafka, settings.sink, topic)
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
    source_sink.write_batch(rows, settings.kafka, settings.sink)
    for topic in topics:
        assert consumed(settings, topic, 1) == [(None, f"to {topic}".encode(), 0, None)]


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
def test_columns_that_a_topic_cannot_take_are_refused(
    schema: str, topic: str | None, expected: str, spark: SparkSession, settings: Settings
) -> None:
    frame = spark.createDataFrame([], schema)
    with pytest.raises(TidemarkError, match="BAD_SINK_COLUMNS") as refused:
        source_sink.write_batch(frame, settings.kafka, settings.sink, topic)
    assert expected in str(refused.value)
