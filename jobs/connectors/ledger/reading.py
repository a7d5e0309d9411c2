"""Reading one partition of a ledger, as `read_committed` readers do: nothing of a transaction before its end."""

import time
from collections.abc import Callable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

CONSUMER = {
    "isolation.level": "read_committed",
    "enable.partition.eof": True,
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "group.id": "tidemark-ledger",  # asked for by the client, never joined
    # The end of a partition is told by an empty answer, which the broker holds back for so long.
    "fetch.wait.max.ms": 5,
    "log_level": 0,
}
PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)


def read(
    connection: Mapping[str, str | int],
    start: TopicPartition,
    seconds: float,
    take: Callable[[Message], None],
    is_end: Callable[[int], bool] = lambda offset: True,
) -> int:
    """Hand every record from `start` on to `take`, until the partition's end is where `is_end` says; that offset.

    Raises:
        KafkaException: where the brokers say no, or after so many seconds.
    """
    consumer = Consumer({**CONSUMER, **connection})
    try:
        consumer.assign([start])
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            message = consumer.poll(1.0)
            if message is None:
                continue
            error = message.error()
            if error is None:
                take(message)
            elif error.code() != KafkaError._PARTITION_EOF:
                if not (error.retriable() or error.code() in PASSING):
                    raise KafkaException(error)
            elif is_end(int(message.offset() or 0)):
                return int(message.offset() or 0)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    finally:
        consumer.close()
