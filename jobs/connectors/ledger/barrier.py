"""What a writer's predecessors have committed, up to its own beginning, when nothing of theirs is under way."""

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

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


def read_last(writer: Writer, barrier: int) -> Plan | Done | None:
    """The last marker before offset `barrier`, once everything before it is committed or aborted.

    Raises:
        TidemarkError: FENCED, where another writer has aborted the transaction that wrote `barrier`.
        KafkaException: what the brokers answer, and when they do not within the writer's time.
    """
    consumer = Consumer({**CONSUMER, **writer.connection, "socket.timeout.ms": writer.answer_ms})
    try:
        behind = TAIL_OFFSETS
        while True:
            start = max(0, barrier - behind)
            consumer.assign([TopicPartition(writer.ledger, writer.partition, start)])
            last = _read_to(consumer, writer, barrier)
            if last is not None or start == 0:
                return last
            behind *= 16
    finally:
        consumer.close()


def _read_to(consumer: Consumer, writer: Writer, barrier: int) -> Plan | Done | None:
    last = None
    until = time.monotonic() + writer.timeout_ms / 1000
    while time.monotonic() < until:
        message = consumer.poll(1.0)
        if message is None:
            continue
        error = message.error()
        if error is None:
            last = parse(message.value()) or last
        elif error.code() != KafkaError._PARTITION_EOF:
            if not (error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)):
                raise KafkaException(error)
        elif int(message.offset() or 0) > barrier:
            # Only our own end can have let the reader pass our beginning: we were aborted under way.
            raise stops.fenced(writer.transactional_id)
        elif message.offset() == barrier:
            return last
    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
