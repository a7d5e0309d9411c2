"""Reading one partition of a ledger, as `read_committed` readers do: nothing of a transaction before its end."""

import time
from collections.abc import Callable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from jobs.connectors.ledger import stops
from jobs.connectors.ledger.markers import Done, Plan, parse
from jobs.connectors.ledger.writer import Writer

# Three ledger records a batch: the last marker is within the last few, unless transactions were aborted again and
# again.
TAIL_OFFSETS = 256
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


def read_to_barrier(writer: Writer, start: int, barrier: int, take: Callable[[Message], None]) -> None:
    """Hand every record of the writer's ledger partition from `start` on to `take`, up to `barrier`, where the writer's
    own transaction begins. All that began before it has ended by then.

    Raises:
        TidemarkError: FENCED, where another writer has aborted that transaction.
        KafkaException: as `read`, after the writer's own time.
    """

    def is_barrier(offset: int) -> bool:
        if offset > barrier:
            # Only our own end can have let the reader pass our beginning: we were aborted under way.
            raise stops.fenced(writer.transactional_id)
        return offset == barrier

    place = TopicPartition(writer.ledger, writer.partition, start)
    connection: dict[str, str | int] = {**writer.connection, "socket.timeout.ms": writer.answer_ms}
    read(connection, place, writer.timeout_ms / 1000, take, is_barrier)


def read_last(writer: Writer, barrier: int) -> Plan | Done | None:
    """The last marker before offset `barrier`; raises what `read_to_barrier` does."""
    found: list[Plan | Done] = []

    def take(message: Message) -> None:
        if (parsed := parse(message.value())) is not None:
            found[:] = [parsed]

    behind = TAIL_OFFSETS
    while True:
        start = max(0, barrier - behind)
        read_to_barrier(writer, start, barrier, take)
        if found or start == 0:
            return found[0] if found else None
        behind *= 16
