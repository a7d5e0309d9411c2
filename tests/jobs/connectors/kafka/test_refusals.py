"""What topics take, held against a broker that counts the same bytes; what errors of clients mean, and a remedy."""

from collections.abc import Callable
from random import Random

import pyarrow as pa
import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from conf.settings import Settings, load
from jobs.connectors.causes import KAFKA, Cause
from jobs.connectors.exactly_once.shard_producer import RECORD_OVERHEAD, LargeRecords, sizes_of
from jobs.connectors.kafka.access import client_error
from jobs.connectors.kafka.refusals import (
    BY_ERROR,
    LEAST_BYTES,
    MOST_BYTES,
    REFUSALS,
    REQUEST_BYTES,
    Limits,
    SizeLimits,
    largest_record,
    record_bytes,
    size_config,
    topic_limits,
)
from jobs.pipeline.errors import known_error
from jobs.pipeline.supervision import PASSING

HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
LIMIT = 20_000
# Key, headers, and so many bytes of value that the record is as large as LIMIT.
SHAPES = [
    (None, []),
    (b"", [("", None)]),
    (b"k" * 200, [("one", b"x" * 300), ("ü" * 70, b""), ("none", None)]),
    (b"k" * 9_000, [("h", b"x" * 9_000)]),
]


def value_for(size: int, key: bytes | None, headers: list[tuple[str, bytes | None]]) -> bytes:
    """A value with which the record has `size` bytes."""
    length = size - record_bytes(key, b"", headers)
    while record_bytes(key, b"x" * length, headers) > size:
        length -= 1
    return Random(1).randbytes(length)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_broker_takes_records_up_to_the_limit_and_none_that_is_a_byte_larger(
    settings: Settings, new_topic: Callable[[int], str], shape: tuple[bytes | None, list[tuple[str, bytes | None]]]
) -> None:
    key, headers = shape
    topic, admin = f"{new_topic(1)}-limited", AdminClient({**settings.kafka.client_config()})
    admin.create_topics([NewTopic(topic, 1, 1, config={"max.message.bytes": str(LIMIT)})])[topic].result()
    answers: list[KafkaError | None] = []

    def answered(error: KafkaError | None, _: Message) -> None:
        answers.append(error)

    producer = Producer({**settings.kafka.client_config(), "linger.ms": 0})
    fits = value_for(LIMIT, key, headers)
    assert record_bytes(key, fits, headers) == LIMIT
    for value in (fits, fits + b"x"):
        producer.produce(topic, value, key, headers=list(headers), on_delivery=answered)
        producer.flush(30)
    assert answers[0] is None
    assert answers[1] is not None
    assert answers[1].code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert topic_limits(admin, [topic])[topic].max_message_bytes == LIMIT


def test_sizes_by_column_are_never_less_than_those_of_the_records_and_little_more() -> None:
    random = Random(7)
    rows = [
        {
            "key": random.choice([None, b"", random.randbytes(random.randrange(300))]),
            "value": random.choice([None, b"", random.randbytes(random.randrange(70_000))]),
            "headers": random.choice(
                [
                    None,
                    [],
                    [{"key": "h" * random.randrange(200), "value": random.choice([None, b"x" * random.randrange(400)])}]
                    * random.randrange(4),
                ]
            ),
        }
        for _ in range(300)
    ]
    schema = pa.schema([("key", pa.binary()), ("value", pa.binary()), ("headers", HEADERS)])
    batch = pa.RecordBatch.from_pylist(rows, schema).slice(17, 250)
    for row, size in zip(batch.to_pylist(), sizes_of(batch).tolist(), strict=True):
        headers = [(each["key"], each["value"]) for each in row["headers"] or []]
        exact = record_bytes(row["key"], row["value"], headers)
        assert exact <= size <= exact + RECORD_OVERHEAD + 10 * len(headers)


def test_only_rows_above_the_limit_of_their_own_topic_are_watched() -> None:
    limits = SizeLimits({"small": 1_000, "large": 50_000}, otherwise=10_000)
    values = [b"x" * size for size in (500, 5_000, 5_000, 5_000, 60_000, 20_000)]
    batch = pa.RecordBatch.from_pydict(
        {"value": values, "topic": pa.array(["small", "small", "large", None, "large", "unknown"])}
    )
    assert LargeRecords(limits, "").rows(batch, "small") == [1, 3, 4, 5]
    assert LargeRecords(limits, "").rows(batch.select(["value"]), "large") == [4]


def test_the_client_lets_pass_what_a_topic_takes_and_what_is_not_known() -> None:
    batching = load("local").sink
    known, unknown = Limits(max_message_bytes=10_000_000), Limits()
    assert size_config(batching, [known]) == {"batch.size": 1_000_000, "message.max.bytes": 10_000_000}
    assert size_config(batching, [Limits(max_message_bytes=2_000), known])["batch.size"] == 2_000
    assert largest_record([known, unknown]) == largest_record([]) == REQUEST_BYTES
    assert largest_record([Limits(max_message_bytes=1)]) == LEAST_BYTES
    assert largest_record([Limits(max_message_bytes=(1 << 31) - 1)]) == MOST_BYTES


def test_the_stop_names_record_size_limit_and_a_limit_that_is_enough() -> None:
    stop = SizeLimits({"out": 1_048_588}, "b:9092").too_large("the record with key 'a'", "out", b"a", b"x" * 5_000_000)
    assert str(stop) == (
        "RECORD_TOO_LARGE: the record with key 'a' is 5,000,075 bytes, topic out takes 1,048,588 (max.message.bytes); "
        "raise the topic's limit, then start the same again: `kafka-configs.sh --bootstrap-server b:9092 --alter "
        "--entity-type topics --entity-name out --add-config max.message.bytes=5242880`"
    )


@pytest.mark.parametrize("name", sorted(BY_ERROR))
def test_each_error_is_one_of_librdkafkas_and_has_a_code_and_a_remedy(name: str) -> None:
    error = KafkaError(getattr(KafkaError, name))
    assert error.name() == name
    stop = client_error("topic t", error, (), {})
    assert (stop.code, stop.message) == (BY_ERROR[name].code, f"topic t: {error.str()}")
    assert "then start the same again" in stop.remedy


def test_java_names_the_same() -> None:
    for refusal in REFUSALS:
        for name in refusal.java:
            stop = known_error([Cause(f"{KAFKA}{name}", "said")])
            assert stop is not None and stop.code == refusal.code


def test_only_what_may_pass_by_itself_is_started_again() -> None:
    assert {refusal.code for refusal in REFUSALS} & PASSING == {"BROKER_UNREACHABLE"}
