"""The publisher against a real broker: order, counts, failures, back-pressure."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from random import Random
from time import time
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from conf.errors import TidemarkError
from conf.settings import Batching, Kafka, load
from local.broker import Cluster
from producers.kafka import publisher as kafka_publisher
from producers.kafka.publisher import Batch, Publisher

NOW_MS = int(time() * 1000)
TIMEOUT = 30.0


@pytest.fixture
def kafka(broker: Cluster) -> Kafka:
    return load("local", [f"kafka.bootstrap_servers={broker.bootstrap_servers}"]).kafka


@pytest.fixture
def batching() -> Batching:
    return load("local").producer


@pytest.fixture
def limited_topic(broker: Cluster, new_topic: Callable[[int], str]) -> Callable[..., str]:
    """Makes a topic with settings of its own."""

    def make(**config: str) -> str:
        name = f"{new_topic(1)}-limited"
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
        settings = {key.replace("_", "."): value for key, value in config.items()}
        admin.create_topics([NewTopic(name, 1, 1, config=settings)])[name].result()
        return name

    return make


def batch(topic: str, values: list[bytes], keys: list[str | bytes | None] | None = None, **columns: Any) -> Batch:
    count = len(values)
    return Batch(
        [topic] * count, values, keys or [None] * count, columns.pop("timestamps", [NOW_MS] * count), **columns
    )


def consume(servers: str, topic: str, count: int) -> list[Message]:
    """The first `count` records of a topic, in the order in which each partition has them."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "test", "enable.auto.commit": False})
    partitions = consumer.list_topics(topic, timeout=TIMEOUT).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    records: list[Message] = []
    deadline = time() + TIMEOUT
    while len(records) < count and time() < deadline:
        records += consumer.consume(count - len(records), timeout=1.0)
    consumer.close()
    assert len(records) == count
    return records


def test_a_key_stays_in_one_partition_and_keeps_its_order(
    kafka: Kafka, batching: Batching, new_topic: Callable[[int], str]
) -> None:
    topic = new_topic(4)
    numbers = range(20_000)
    events = batch(topic, [b"%d" % n for n in numbers], [f"key-{n % 50}" for n in numbers])
    report = Publisher(kafka, batching, [topic]).publish([events])
    assert report.delivered == {topic: 20_000}
    partitions, values = defaultdict(set), defaultdict(list)
    for record in consume(kafka.bootstrap_servers, topic, 20_000):
        partitions[record.key()].add(record.partition())
        values[record.key()].append(int(record.value() or b"-1"))
    assert {len(where) for where in partitions.values()} == {1}
    assert {partition for where in partitions.values() for partition in where} == {0, 1, 2, 3}
    for key, found in values.items():
        assert found == sorted(found), key


def test_keys_go_where_java_puts_them(kafka: Kafka, batching: Batching, new_topic: Callable[[int], str]) -> None:
    topic = new_topic(10)
    # The hashes are those of Kafka's own test of murmur2 (UtilsTest); its clients drop the sign, then divide.
    hashes = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"abc": 479470107}
    expected = {key: (number & 0x7FFFFFFF) % 10 for key, number in hashes.items()}
    Publisher(kafka, batching, [topic]).publish([batch(topic, [b"x"] * 4, list(expected))])
    records = consume(kafka.bootstrap_servers, topic, 4)
    assert {record.key(): record.partition() for record in records} == expected


def test_timestamp_key_and_headers_arrive(kafka: Kafka, batching: Batching, new_topic: Callable[[int], str]) -> None:
    topic = new_topic(1)
    headers = [[("source", b"test"), ("none", None)], None]
    events = batch(topic, [b"one", b"two"], ["clé", b"\xff"], timestamps=[1_357_000_000_123, 0], headers=headers)
    Publisher(kafka, batching, [topic]).publish([events])
    first, second = consume(kafka.bootstrap_servers, topic, 2)
    assert (first.key(), first.timestamp()[1]) == ("clé".encode(), 1_357_000_000_123)
    assert first.headers() == [("source", b"test"), ("none", None)]
    assert (second.key(), second.headers()) == (b"\xff", None)
    assert second.timestamp()[1] >= NOW_MS


def test_what_is_too_large_fails_with_counts_and_the_rest_arrives(
    kafka: Kafka, batching: Batching, limited_topic: Callable[..., str]
) -> None:
    topic = limited_topic(max_message_bytes="2000")
    values = [Random(0).randbytes(size) for size in (100, 5_000, 100, 1_100_000, 100)]
    report = Publisher(kafka, batching, [topic]).publish([batch(topic, values)])
    assert report.delivered == {topic: 3}
    assert report.failed == {(topic, "MSG_SIZE_TOO_LARGE"): 2}
    assert not report.complete
    with pytest.raises(TidemarkError, match=f"DELIVERY_FAILED: 2 to {topic}.*max.message.bytes"):
        report.require_complete()
    assert len(consume(kafka.bootstrap_servers, topic, 3)) == 3


def test_batches_fit_the_topics_limit(kafka: Kafka, batching: Batching, limited_topic: Callable[..., str]) -> None:
    topic = limited_topic(max_message_bytes="3000")
    values = [Random(number).randbytes(500) for number in range(2_000)]
    report = Publisher(kafka, batching, [topic]).publish([batch(topic, values)])
    assert report.delivered == {topic: 2_000}


def test_a_compacted_topic_refuses_what_has_no_key(
    kafka: Kafka, batching: Batching, limited_topic: Callable[..., str]
) -> None:
    topic = limited_topic(cleanup_policy="compact")
    report = Publisher(kafka, batching, [topic]).publish([batch(topic, [b"x"])])
    assert report.failed == {(topic, "INVALID_RECORD"): 1}


def test_a_full_queue_is_waited_for(
    kafka: Kafka, batching: Batching, new_topic: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_publisher, "QUEUE_MESSAGES", 100)
    topic = new_topic(2)
    report = Publisher(kafka, batching, [topic]).publish([batch(topic, [b"%d" % n for n in range(5_000)])])
    assert report.delivered == {topic: 5_000}
    assert len({record.value() for record in consume(kafka.bootstrap_servers, topic, 5_000)}) == 5_000


def test_a_stop_flushes_what_was_handed_over_and_reports_it(
    kafka: Kafka, batching: Batching, new_topic: Callable[[int], str]
) -> None:
    topic, stop = new_topic(1), threading.Event()

    def endless() -> Iterator[Batch]:
        for number in range(1_000):
            if number == 3:
                stop.set()
            yield batch(topic, [b"x"] * 10)

    report = Publisher(kafka, batching, [topic]).publish(endless(), stop.is_set)
    assert report.interrupted
    assert report.delivered == {topic: 40}


def test_an_error_of_the_source_comes_after_what_was_read_before_it(
    kafka: Kafka, batching: Batching, new_topic: Callable[[int], str]
) -> None:
    topic = new_topic(1)
    cause = TidemarkError("BAD_FILE", "half a file", "mend it")

    def broken() -> Iterator[Batch]:
        yield batch(topic, [b"x"] * 10)
        raise cause

    report = Publisher(kafka, batching, [topic]).publish(broken())
    assert report.delivered == {topic: 10}
    with pytest.raises(TidemarkError, match="BAD_FILE"):
        report.require_complete()


def test_a_topic_that_would_delete_the_events_is_warned_about(
    kafka: Kafka, batching: Batching, limited_topic: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    topic = limited_topic(retention_ms="604800000")
    publisher = Publisher(kafka, batching, [topic])
    publisher.publish([batch(topic, [b"x"])])
    assert capsys.readouterr().err == ""
    Publisher(kafka, batching, [topic]).publish([batch(topic, [b"x"], timestamps=[1_357_000_000_000])])
    assert f"topic {topic} deletes records 7 days after their timestamp" in capsys.readouterr().err


def test_a_missing_topic_is_one_line_with_the_remedy(
    kafka: Kafka, batching: Batching, new_topic: Callable[[int], str]
) -> None:
    with pytest.raises(TidemarkError, match=r"NO_TOPIC: no topic no-such-topic .*; create"):
        Publisher(kafka, batching, [new_topic(1), "no-such-topic"])


def test_a_missing_broker_is_one_line_with_the_remedy_soon(batching: Batching) -> None:
    kafka = load("local", ["kafka.bootstrap_servers=127.0.0.1:1"]).kafka
    started = time()
    with pytest.raises(TidemarkError, match=r"BROKER_UNREACHABLE: no Kafka broker answers at 127\.0\.0\.1:1"):
        Publisher(kafka, batching, ["departures"])
    assert time() - started < 10
