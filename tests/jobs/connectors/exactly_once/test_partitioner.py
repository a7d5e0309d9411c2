"""Keys find the partition that librdkafka's `murmur2_random` and Java's default partitioner give them."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Message, Producer
from pyspark.sql import SparkSession

from conf.settings import Settings
from jobs.connectors.exactly_once.bulk import MOST_LENGTHS, partitions_of
from jobs.connectors.exactly_once.transaction import PRODUCER
from jobs.connectors.kafka import source_sink
from jobs.connectors.kafka.source_sink import Subscription

NewTopicOf = Callable[[int], str]

PARTITIONS = 7


def keys_of(*lengths: int, each: int = 5) -> list[bytes]:
    """Random keys, all of them distinct from length to length, in mixed order."""
    chance = random.Random(17)
    keys = [chance.randbytes(length) for length in lengths for _ in range(each)]
    chance.shuffle(keys)
    return keys


def ours(keys: Sequence[bytes], partitions: int = PARTITIONS) -> list[int] | None:
    array = pa.array(keys, pa.binary())
    _, offsets, data = array.buffers()
    found = partitions_of(
        np.frombuffer(data or b"\0", np.uint8), np.frombuffer(offsets, np.int32)[: len(keys) + 1], partitions
    )
    return None if found is None else found.tolist()


def librdkafkas(settings: Settings, topic: str, keys: Sequence[bytes]) -> list[int]:
    placed: dict[int, int] = {}

    def acknowledged(number: int) -> Callable[[object, Message], None]:
        return lambda error, message: placed.__setitem__(number, message.partition() or 0)

    producer = Producer({**settings.kafka.client_config(), "partitioner": PRODUCER["partitioner"]})
    for number, key in enumerate(keys):
        producer.produce(topic, b"v", key, on_delivery=acknowledged(number))
    assert producer.flush(30) == 0
    return [placed[number] for number in range(len(keys))]


@pytest.mark.parametrize(
    "lengths", [(4,), (8,), (1,), (13,), (0,), (0, 1, 2, 3, 4, 5), tuple(range(1, 40)), (1000, 3)], ids=str
)
def test_keys_go_where_librdkafka_puts_them(
    lengths: tuple[int, ...], settings: Settings, new_topic: NewTopicOf
) -> None:
    keys = keys_of(*lengths)
    assert ours(keys) == librdkafkas(settings, new_topic(PARTITIONS), keys)


def test_keys_go_where_sparks_own_sink_puts_them(
    spark: SparkSession, settings: Settings, new_topic: NewTopicOf
) -> None:
    topic, keys = new_topic(PARTITIONS), sorted(set(keys_of(*range(1, 20))))
    rows = spark.createDataFrame([(bytearray(key), b"v") for key in keys], "key binary, value binary")
    source_sink.write_batch(rows, settings.kafka, settings.sink, topic)
    written = source_sink.read_batch(spark, settings.kafka, settings.source, Subscription((topic,))).collect()
    placed = {bytes(row.key): row.partition for row in written}
    assert ours(keys) == [placed[key] for key in keys]


def test_keys_of_too_many_lengths_are_left_to_librdkafka() -> None:
    assert ours(keys_of(*range(MOST_LENGTHS))) is not None
    assert ours(keys_of(*range(MOST_LENGTHS + 1))) is None


def test_a_slice_of_a_column_is_hashed_as_that_slice() -> None:
    keys = keys_of(6, each=20)
    array = pa.array(keys, pa.binary())
    offsets = np.frombuffer(array.buffers()[1], np.int32)
    found = partitions_of(np.frombuffer(array.buffers()[2], np.uint8), offsets[5:16], PARTITIONS)
    assert found is not None
    assert found.tolist() == (ours(keys) or [])[5:15]
