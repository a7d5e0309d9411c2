"""Arrow batches into a real broker: what is sent is what is there, in order, by the fast way and by the slow one."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import confluent_kafka
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.exactly_once import bulk
from jobs.connectors.exactly_once.bulk import KNOWN, Bulk, bulk_of
from jobs.connectors.exactly_once.ledger import BatchId, Done
from jobs.connectors.exactly_once.shard_producer import HASH, ShardProducer
from jobs.connectors.exactly_once.sink import QUEUE
from jobs.connectors.exactly_once.transaction import PRODUCER, Transaction, Writer

NewTopicOf = Callable[[int], str]
Found = tuple[int, bytes | None, bytes | None]

SECONDS = 30.0
HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
TYPES = {"key": pa.binary(), "value": pa.binary(), "partition": pa.int32(), "topic": pa.string(), "headers": HEADERS}


def rows(**columns: Sequence[Any]) -> pa.RecordBatch:
    """A batch of these columns, and hashes."""
    arrays = {name: pa.array(values, TYPES[name]) for name, values in columns.items()}
    hashes = pa.array(range(len(next(iter(arrays.values())))), pa.int64())
    return pa.RecordBatch.from_pydict({**arrays, HASH: hashes})


@pytest.fixture
def producer(settings: Settings) -> Producer:
    return Producer({**PRODUCER, **QUEUE, **settings.kafka.client_config(), "linger.ms": 20})


def produced(producer: Producer, topic: str | None, *batches: pa.RecordBatch) -> Done:
    """Sends as a shard does."""
    sent = ShardProducer(Done(BatchId("query", 0, "hash"), 0), "sink")
    sent.produce(producer, iter(batches), topic, SECONDS)
    assert producer.flush(SECONDS) == 0
    return sent.done


def messages_in(settings: Settings, topic: str) -> list[confluent_kafka.Message]:
    """All committed messages, partition by partition, in order."""
    own = {"group.id": topic, "isolation.level": "read_committed", "enable.partition.eof": True}
    consumer = Consumer({**settings.kafka.client_config(), **own})
    try:
        partitions = sorted(consumer.list_topics(topic, timeout=SECONDS).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        found: dict[int, list[confluent_kafka.Message]] = defaultdict(list)
        left = set(partitions)
        while left:
            message = consumer.poll(SECONDS)
            assert message is not None, "the end of the topic was not reached"
            error, number = message.error(), message.partition() or 0
            if error is None:
                found[number].append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                left.discard(number)
        return [message for number in partitions for message in found[number]]
    finally:
        consumer.close()


def found_in(settings: Settings, topic: str) -> list[Found]:
    return [(message.partition() or 0, message.key(), message.value()) for message in messages_in(settings, topic)]


def test_the_installed_client_is_one_that_the_fast_way_was_made_for(producer: Producer, new_topic: NewTopicOf) -> None:
    assert str(confluent_kafka.__version__) in KNOWN
    fast = bulk_of(producer, new_topic(1))
    assert fast is not None
    fast.close()


def test_with_another_client_records_are_sent_one_by_one(
    producer: Producer, settings: Settings, new_topic: NewTopicOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = new_topic(1)
    monkeypatch.setattr(bulk, "KNOWN", ("0.0.0",))
    bulk._library.cache_clear()
    try:
        assert bulk_of(producer, topic) is None
        produced(producer, topic, rows(key=[b"k", None], value=[b"v", b""]))
    finally:
        bulk._library.cache_clear()
    assert found_in(settings, topic) == [(0, b"k", b"v"), (0, None, b"")]


def test_nulls_empty_ones_and_tombstones_stay_what_they_are(
    producer: Producer, settings: Settings, new_topic: NewTopicOf
) -> None:
    topic = new_topic(1)
    keys, values = [b"a", b"", None, b"gone", b"", None], [b"1", b"2", b"3", None, b"", b""]
    produced(producer, topic, rows(key=keys, value=values))
    assert found_in(settings, topic) == [(0, *pair) for pair in zip(keys, values, strict=True)]


@pytest.mark.parametrize("keys", [None, [None, None, None], [b"", b"", b""]], ids=["no column", "nulls", "empty"])
def test_columns_without_a_byte_are_sent(
    keys: list[bytes | None] | None, producer: Producer, settings: Settings, new_topic: NewTopicOf
) -> None:
    topic = new_topic(1)
    values = [b"", None, b""]
    produced(producer, topic, rows(key=keys, value=values) if keys else rows(value=values))
    expected = [(0, key, value) for key, value in zip(keys or [None] * 3, values, strict=True)]
    assert found_in(settings, topic) == expected


@pytest.mark.parametrize("lengths", [[5], range(12), range(200)], ids=["one length", "twelve", "too many to hash"])
def test_a_key_is_in_one_partition_and_in_order(
    lengths: Sequence[int], producer: Producer, settings: Settings, new_topic: NewTopicOf
) -> None:
    topic = new_topic(4)
    keys = [b"%d" % (n % 7) + b"x" * lengths[n % len(lengths)] for n in range(2_000)]
    values = [b"%06d" % n for n in range(2_000)]
    produced(
        producer, topic, rows(key=keys[:1_500], value=values[:1_500]), rows(key=keys[1_500:], value=values[1_500:])
    )
    found = found_in(settings, topic)
    assert sorted(value or b"" for _, _, value in found) == values
    by_key: dict[bytes | None, list[tuple[int, bytes | None]]] = defaultdict(list)
    for partition, key, value in found:
        by_key[key].append((partition, value))
    for placed in by_key.values():
        assert len({partition for partition, _ in placed}) == 1
        assert placed == sorted(placed)


def test_a_row_goes_to_the_partition_that_it_names_and_else_by_its_key(
    producer: Producer, settings: Settings, new_topic: NewTopicOf
) -> None:
    topic, by_key = new_topic(3), new_topic(3)
    keys = [b"a", b"b", b"c", b"d", b"e"]
    produced(producer, by_key, rows(key=keys, value=keys))
    natural = {value: partition for partition, _, value in found_in(settings, by_key)}
    produced(producer, topic, rows(key=keys, value=keys, partition=[2, None, 0, None, 1]))
    placed = {value: partition for partition, _, value in found_in(settings, topic)}
    assert placed == natural | {b"a": 2, b"c": 0, b"e": 1}


def test_a_partition_that_is_not_there_stops_the_shard(producer: Producer, new_topic: NewTopicOf) -> None:
    with pytest.raises(TidemarkError, match=r"RECORD_REFUSED.*key 'a' .*row 1\) names partition 9, .* has 2"):
        produced(producer, new_topic(2), rows(key=[b"a"], value=[b"1"], partition=[9]))


def test_headers_and_topics_of_rows_are_kept(producer: Producer, settings: Settings, new_topic: NewTopicOf) -> None:
    first, second = new_topic(1), new_topic(1)
    headers = [[{"key": "h", "value": b"1"}, {"key": "h", "value": None}], None, []]
    batch = rows(key=[b"a", None, b"c"], value=[b"1", b"2", None], topic=[second, None, second], headers=headers)
    done = produced(producer, first, batch)
    assert done.n == 3
    assert done.topics == (second,)
    assert found_in(settings, first) == [(0, None, b"2")]
    assert [(m.key(), m.value(), m.headers()) for m in messages_in(settings, second)] == [
        (b"a", b"1", [("h", b"1"), ("h", None)]),
        (b"c", None, None),
    ]


def test_a_row_without_any_topic_stops_the_shard(producer: Producer) -> None:
    with pytest.raises(TidemarkError, match="BAD_SINK_COLUMNS"):
        produced(producer, None, rows(value=[b"1"], topic=[None]))


def test_a_slice_of_a_batch_is_sent_as_that_slice(
    producer: Producer, settings: Settings, new_topic: NewTopicOf
) -> None:
    topic = new_topic(1)
    whole = rows(key=[b"k%d" % n for n in range(9)], value=[b"v%d" % n for n in range(9)])
    done = produced(producer, topic, whole.slice(3, 4), whole.slice(0, 0))
    assert done.n == 4
    assert done.checksum == 3 + 4 + 5 + 6
    assert found_in(settings, topic) == [(0, b"k%d" % n, b"v%d" % n) for n in range(3, 7)]


def test_a_record_that_is_too_large_fails_and_nothing_is_committed(
    settings: Settings, new_topic: NewTopicOf, producer: Producer
) -> None:
    topic, ledger = new_topic(1), new_topic(1)
    writer = Writer(f"{ledger}.0", ledger, 0, settings.kafka.client_config(), 20_000)
    large = rows(key=[b"a", b"b"], value=[b"small", b"x" * 1_500_000])
    with (
        pytest.raises(TidemarkError, match=r"RECORD_TOO_LARGE: the record with key 'b' \(batch 0, shard 0, row 2\)"),
        Transaction(writer) as begun,
    ):
        begun.last_marker()
        ShardProducer(Done(BatchId("query", 0, "hash"), 0), "sink").produce(begun.producer, [large], topic, SECONDS)
        begun.commit(b"{}", "done")
    assert found_in(settings, topic) == []


@pytest.fixture
def bounded(producer: Producer, new_topic: NewTopicOf, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bulk]:
    """A sender that lets 1,000 records be under way."""
    monkeypatch.setattr(bulk, "WINDOW_RECORDS", 1_000)
    fast = bulk_of(producer, new_topic(1))
    assert fast is not None
    yield fast
    fast.close()


def test_what_is_under_way_is_bounded(bounded: Bulk, producer: Producer) -> None:
    batch, most = rows(key=[b"k"] * 500, value=[b"v"] * 500), 0
    for _ in range(40):
        bounded.send(batch, SECONDS)
        most = max(most, len(producer))
    assert producer.flush(SECONDS) == 0
    assert most <= 1_500, "the window and the batch that was let in"


def test_brokers_that_take_nothing_end_the_wait(new_topic: NewTopicOf, settings: Settings, bounded: Bulk) -> None:
    bounded._producer = type("Stuck", (), {"__len__": lambda self: 5_000, "poll": lambda self, seconds: 0})()
    with pytest.raises(KafkaException, match="_TIMED_OUT"):
        bounded.send(rows(key=[b"k"], value=[b"v"]), 0.05)
