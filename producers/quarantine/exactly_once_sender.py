"""Sends rejected records into a topic, each once: with its marker in a marker log, in one Kafka transaction.

    fence      init_transactions under the writer's id: an older run can commit no more
    barrier    an "open" record in the marker log at offset o; read it, read_committed, until its end is exactly o
    decide     what has a marker is left out
    send       the records, and a marker for each; commit both

A transaction that began before o, under any id, has ended when the log's end is o: so no marker is ever missed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.exactly_once.fail_points import fail_point
from jobs.connectors.exactly_once.ledger_topic import require_timeout_below_cap
from jobs.connectors.exactly_once.transaction import Transaction, Writer
from jobs.connectors.kafka.refusals import SizeLimits, record_bytes, topic_limits
from producers.kafka.pacing import Progress
from producers.kafka.publisher import Batch, never, producer_config
from producers.kafka.transaction_sender import ATTEMPTS, FENCED_SECONDS, UNCLEAR, TransactionSender
from producers.quarantine import marker_log
from producers.quarantine.marker_log import MarkerLog
from producers.quarantine.records import Rejected


class Placement(NamedTuple):
    """Where a record went."""

    partition: int
    offset: int


@dataclass
class ExactlyOnceSender:
    """Sends chunks of records of one partition.

    Args:
        name: what messages say has failed.
        batch: makes the records to send, one for each rejected record, all of one partition.
        make_marker: makes a record's marker, given where it went.
        limits: what the topic takes.
    """

    name: str
    writer: Writer
    markers: MarkerLog
    batch: Callable[[Sequence[Rejected]], Batch]
    make_marker: Callable[[Rejected, Placement], bytes]
    limits: SizeLimits
    stopped: Callable[[], bool] = never
    progress: Progress = field(default_factory=Progress)
    transactions: int = 0
    too_large: list[TidemarkError] = field(default_factory=list)

    def send(self, chunk: Sequence[Rejected]) -> list[Rejected]:
        """Send those of `chunk` that have no marker, and return them once they are committed.

        Records that are too large for the topic are left out, and noted in `too_large`; they hold up no other.

        Raises:
            TidemarkError: FENCED, KAFKA_FAILED, TRANSACTION_TIMED_OUT, DELIVERY_FAILED; what has no marker is not sent.
        """
        chunk = self._fitting([row for row in chunk if not self.markers.has(row.at)])
        if not chunk:
            return []
        self.transactions += 1
        self.markers.forget_run()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._attempt(chunk)
            except TidemarkError as error:
                # The markers will tell whether it was committed.
                if error.code not in UNCLEAR or attempt == ATTEMPTS:
                    raise
                time.sleep(FENCED_SECONDS)
        raise AssertionError("the last attempt returns or raises")

    def require_all_taken(self) -> None:
        """Raise TidemarkError RECORD_TOO_LARGE, where a record was left out since it is too large."""
        if self.too_large:
            first, others = self.too_large[0], len(self.too_large) - 1
            more = f" (and {others:,} more are too large)" if others else ""
            raise TidemarkError(first.code, f"{first.message}{more}; all others were sent", first.remedy)

    def _fitting(self, chunk: Sequence[Rejected]) -> list[Rejected]:
        fitting = []
        batch = self.batch(chunk)
        for row, (topic, value, key, _, headers, _) in zip(chunk, batch.events(), strict=True):
            if record_bytes(key, value, headers) <= self.limits.by_topic.get(topic, self.limits.otherwise):
                fitting.append(row)
            else:
                what = f"{self.name}: the record for {row.at}"
                self.too_large.append(self.limits.too_large(what, topic, key, value, headers))
        return fitting

    def _attempt(self, chunk: Sequence[Rejected]) -> list[Rejected]:
        where = {**self.writer.where, "transaction": self.transactions}
        with Transaction(replace(self.writer, where=where)) as transaction:
            self.markers.position = transaction.read(self.markers.position, self.markers.take_message)
            due = [row for row in chunk if not self.markers.has(row.at)]
            if due:
                self._commit(transaction, due)
            sent = {row.at for row in due}
            # An attempt may have committed though its answer was lost: its records are this run's, too.
            return [row for row in chunk if row.at in sent or self.markers.is_of_run(row.at)]

    def _commit(self, transaction: Transaction, due: Sequence[Rejected]) -> None:
        placements: list[Placement] = []
        self._hand_over(transaction, self.batch(due), lambda *placement: placements.append(Placement(*placement)))
        *markers, last = [self.make_marker(row, placement) for row, placement in zip(due, placements, strict=True)]
        *keys, last_key = [str(row.at) for row in due]
        topics, partitions = [self.writer.ledger] * len(markers), [marker_log.PARTITION] * len(markers)
        self._hand_over(transaction, Batch(topics, markers, keys, [0] * len(markers), partitions=partitions), None)
        transaction.commit(last, last_key)

    def _hand_over(
        self, transaction: Transaction, batch: Batch, on_delivery: Callable[[int, int], None] | None
    ) -> None:
        where = {**self.writer.where, "transaction": self.transactions}

        def on_batch() -> None:
            fail_point(f"{where['step']}-mid-produce", **where)

        seconds = self.writer.timeout_ms / 1000
        with transaction.named():
            sender = TransactionSender(self.name, seconds, self.stopped, self.progress, on_batch, on_delivery)
            sender.send(transaction.producer, [batch])


def open_writer(
    settings: Settings, admin: AdminClient, identity: str, where: Mapping[str, str], target: str, log: str
) -> Writer:
    """Return the writer `identity` into `target`, its markers in the topic `log`, which is created if missing.

    Args:
        where: what fail points know it by.

    Raises:
        TidemarkError: TRANSACTION_TIMEOUT_ABOVE_CAP, KAFKA_FAILED.
    """
    timeout_ms = settings.ledger.transaction_timeout_ms
    require_timeout_below_cap(admin, timeout_ms)
    marker_log.create(settings, admin, log)
    config = producer_config(settings.producer, topic_limits(admin, [target, log]).values())
    connection = settings.kafka.client_config()
    return Writer(identity, log, marker_log.PARTITION, connection, timeout_ms, config, where, (target,))
