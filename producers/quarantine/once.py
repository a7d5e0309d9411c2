"""Rejected records into a topic, each once: with its mark in a register, in one Kafka transaction.

    fence      init_transactions under the writer's id: an older run can commit no more
    barrier    an "open" record in the register at offset o; read it, read_committed, until its end is exactly o
    decide     what is marked is left out
    send       the records, and a mark for each; commit both

Whoever began before o has ended when the register's end is o, under any id: so marks are never missed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.ledger.failpoints import reach
from jobs.connectors.ledger.topic import require_timeout_below_cap
from jobs.connectors.ledger.transaction import Transaction
from jobs.connectors.ledger.writer import Writer
from producers.preflight import topic_limits
from producers.progress import Progress
from producers.published_log import ATTEMPTS, FENCED_SECONDS, UNCLEAR
from producers.publisher import Batch, never, producer_config
from producers.quarantine import register as registers
from producers.quarantine.records import Rejected
from producers.quarantine.register import Register
from producers.sending import Sender


class Placed(NamedTuple):
    """Where a record went."""

    partition: int
    offset: int


@dataclass
class OnceWriter:
    """Sends chunks of records of one partition.

    Args:
        name: what people are told failed.
        batch: makes the records to send, one for each rejected record, all of one partition.
        mark: makes a record's mark, given where it went.
    """

    name: str
    writer: Writer
    register: Register
    batch: Callable[[Sequence[Rejected]], Batch]
    mark: Callable[[Rejected, Placed], bytes]
    stopped: Callable[[], bool] = never
    progress: Progress = field(default_factory=Progress)
    transactions: int = 0

    def send(self, chunk: Sequence[Rejected]) -> list[Rejected]:
        """Send those of `chunk` that are not marked, and return them once they are committed.

        Raises:
            TidemarkError: FENCED, KAFKA_FAILED, TRANSACTION_TIMED_OUT, DELIVERY_FAILED; what is not marked is not sent.
        """
        if all(self.register.has(each.at) for each in chunk):
            return []
        self.transactions += 1
        self.register.forget_own()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._attempt(chunk)
            except TidemarkError as stop:
                # Whatever has become of it, the marks will tell.
                if stop.code not in UNCLEAR or attempt == ATTEMPTS:
                    raise
                time.sleep(FENCED_SECONDS)
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, chunk: Sequence[Rejected]) -> list[Rejected]:
        where = {**self.writer.where, "transaction": self.transactions}
        with Transaction(replace(self.writer, where=where)) as transaction:
            self.register.position = transaction.read(self.register.position, self.register.take_message)
            due = [each for each in chunk if not self.register.has(each.at)]
            if due:
                self._commit(transaction, due)
            sent = {each.at for each in due}
            # What an attempt has committed whose answer was lost is this run's too.
            return [each for each in chunk if each.at in sent or self.register.is_own(each.at)]

    def _commit(self, transaction: Transaction, due: Sequence[Rejected]) -> None:
        placed: list[Placed] = []
        self._hand_over(transaction, self.batch(due), lambda *place: placed.append(Placed(*place)))
        *marks, last = [self.mark(each, place) for each, place in zip(due, placed, strict=True)]
        *keys, last_key = [str(each.at) for each in due]
        topics, partitions = [self.writer.ledger] * len(marks), [registers.PARTITION] * len(marks)
        self._hand_over(transaction, Batch(topics, marks, keys, [0] * len(marks), partitions=partitions), None)
        transaction.commit(last, last_key)

    def _hand_over(self, transaction: Transaction, batch: Batch, placed: Callable[[int, int], None] | None) -> None:
        where = {**self.writer.where, "transaction": self.transactions}
        sent = lambda: reach(f"{where['step']}-mid-produce", **where)  # noqa: E731
        seconds = self.writer.timeout_ms / 1000
        Sender(self.name, seconds, self.stopped, self.progress, sent, placed).send(transaction.producer, [batch])


def writer_of(
    settings: Settings, admin: AdminClient, identity: str, where: Mapping[str, str], target: str, register: str
) -> Writer:
    """The writer `identity` into `target`, its marks in the topic `register`, which is created if missing.

    Args:
        where: what fail points know it by.

    Raises:
        TidemarkError: TRANSACTION_TIMEOUT_ABOVE_CAP, KAFKA_FAILED.
    """
    timeout_ms = settings.ledger.transaction_timeout_ms
    require_timeout_below_cap(admin, timeout_ms)
    registers.create(settings, admin, register)
    config = producer_config(settings.producer, topic_limits(admin, [target]).values())
    return Writer(identity, register, registers.PARTITION, settings.kafka.client_config(), timeout_ms, config, where)
