"""Sends rejected records back into the topics they came from, once and only once: every job meets them again.

Same key, value, headers, timestamp and partition; the headers of `records` lead back to the original. Each goes out
with its marker in a marker log, in one Kafka transaction:

    fence      init_transactions under the writer's id: an older run can commit no more
    barrier    an "open" record in the marker log at offset o; read it, read_committed, until its end is exactly o
    decide     what has a marker is left out
    send       the records, and a marker for each; commit both

A transaction that began before o, under any id, has ended when the log's end is o: so no marker is ever missed.
"""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from confluent_kafka.admin import AdminClient

from conf import code_version
from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.exactly_once.ledger import require_timeout_below_cap
from jobs.connectors.exactly_once.transaction import Transaction, Writer
from jobs.connectors.kafka.offsets import topic_ids
from jobs.connectors.kafka.refusals import REQUEST_BYTES, SizeLimits, record_bytes, topic_limits
from producers.kafka.pacing import Progress
from producers.kafka.preflight import RetentionWatch
from producers.kafka.publish_progress import ATTEMPTS, FENCED_SECONDS, UNCLEAR
from producers.kafka.publisher import Batch, Report, never, open_topics, producer_config
from producers.kafka.transactional import TransactionSender
from producers.quarantine import marker_log
from producers.quarantine.marker_log import MarkerLog
from producers.quarantine.records import Rejected
from producers.quarantine.selection import Selection
from producers.quarantine.table import Quarantine, slices

# A transaction costs some 0.3 s, and readers see nothing of it before its end.
TRANSACTION_SECONDS = 0.3
MOST_RECORDS = 1_000
MOST_BYTES = 16 << 20
WAIT_SECONDS = 0.1


def redrive_id(settings: Settings, topic: str) -> str:
    """Return the transactional id of a redrive into `topic`; those of workers begin with it."""
    return f"{settings.ledger.application}.redrive.{topic}"


@dataclass
class Redrive:
    """A run over a selection; `skipped` counts records that were redriven before.

    A record that is too large for its topic holds up no other: the report's cause names it.
    """

    settings: Settings
    run: str
    rate: float | None = None
    into_compacted: bool = False
    stopped: Callable[[], bool] = never
    progress: Progress = field(default_factory=Progress)
    sent: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    started: float = field(default_factory=time.monotonic)

    def send(self, table: Quarantine, selection: Selection) -> Report:
        """Send the selected records, by topic, in the order of their offsets; the report tells what is committed."""
        cause, too_large = None, None
        # So few in a transaction that the rate is kept from second to second.
        most = MOST_RECORDS if self.rate is None else max(1, min(MOST_RECORDS, int(self.rate)))
        try:
            parts = slices(table.index(selection), most, MOST_BYTES)
            for topic, parts_of_topic in groupby(parts, key=lambda part: part.topic):
                redriver: Redriver | None = None
                for part in parts_of_topic:
                    if self._is_stopped_before_due():
                        break
                    redriver = redriver or self._redriver(topic)
                    self._send_slice(redriver, table.rows(selection, part))
                if redriver and not too_large:
                    too_large = redriver.too_large_error()
        except TidemarkError as error:
            cause = error
        self.progress.clear()
        seconds = time.monotonic() - self.started
        return Report(self.sent, {}, {}, seconds, interrupted=self.stopped(), cause=cause or too_large)

    def _redriver(self, topic: str) -> "Redriver":
        return Redriver(self.settings, topic, self.run, self.into_compacted, "", self.stopped, self.progress)

    def _send_slice(self, redriver: "Redriver", rows: Sequence[Rejected]) -> None:
        skipped_before = redriver.skipped
        self.sent[redriver.topic] += len(redriver.send(rows))
        self.skipped += redriver.skipped - skipped_before
        if rows:
            self.progress.show(self.sent.total(), rows[-1].timestamp_ms)

    def _is_stopped_before_due(self) -> bool:
        """Wait until the rate allows the next slice."""
        due = self.started + (self.sent.total() / self.rate if self.rate else 0.0)
        while not self.stopped() and (left := due - time.monotonic()) > 0:
            time.sleep(min(left, WAIT_SECONDS))
        return self.stopped()


class ExactlyOnceSender(ABC):
    """Sends chunks of records of one partition; `skipped` counts those that had a marker before.

    Args:
        name: what messages say has failed.
        limits: what the topic takes.
    """

    def __init__(
        self,
        name: str,
        writer: Writer,
        markers: MarkerLog,
        limits: SizeLimits,
        stopped: Callable[[], bool],
        progress: Progress,
    ) -> None:
        self._name, self._writer, self._markers, self._limits = name, writer, markers, limits
        self._stopped, self._progress = stopped, progress
        self._transactions, self._too_large = 0, list[TidemarkError]()
        self.skipped = 0

    @abstractmethod
    def make_batch(self, rows: Sequence[Rejected]) -> Batch:
        """Return the records to send, one for each rejected record, all of one partition."""

    @abstractmethod
    def make_marker(self, row: Rejected, partition: int, offset: int) -> bytes:
        """Return a record's marker, given where it went."""

    def send(self, chunk: Sequence[Rejected]) -> list[Rejected]:
        """Send those of `chunk` that have no marker, and return them once they are committed.

        Records that are too large for the topic are left out (see `too_large_error`); they hold up no other.

        Raises:
            TidemarkError: FENCED, KAFKA_FAILED, TRANSACTION_TIMED_OUT, DELIVERY_FAILED; what has no marker is not sent.
        """
        unmarked = [row for row in chunk if not self._markers.has(row.at)]
        fitting = self._fitting(unmarked)
        sent = self._send(fitting) if fitting else []
        self.skipped += len(chunk) - len(unmarked) + len(fitting) - len(sent)
        return sent

    def too_large_error(self) -> TidemarkError | None:
        """Return RECORD_TOO_LARGE, where a record was left out since it is too large."""
        if not self._too_large:
            return None
        first, others = self._too_large[0], len(self._too_large) - 1
        more = f" (and {others:,} more are too large)" if others else ""
        return TidemarkError(first.code, f"{first.message}{more}; all others were sent", first.remedy)

    def require_all_taken(self) -> None:
        """Raise TidemarkError RECORD_TOO_LARGE, where a record was left out."""
        if error := self.too_large_error():
            raise error

    def _fitting(self, rows: Sequence[Rejected]) -> list[Rejected]:
        fitting = []
        for row, (topic, value, key, _, headers, _) in zip(rows, self.make_batch(rows).events(), strict=True):
            if record_bytes(key, value, headers) <= self._limits.by_topic.get(topic, self._limits.otherwise):
                fitting.append(row)
            else:
                what = f"{self._name}: the record for {row.at}"
                self._too_large.append(self._limits.too_large(what, topic, key, value, headers))
        return fitting

    def _send(self, rows: Sequence[Rejected]) -> list[Rejected]:
        self._transactions += 1
        self._markers.forget_run()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._send_unmarked(rows)
            except TidemarkError as error:
                # The markers will tell whether it was committed.
                if error.code not in UNCLEAR or attempt == ATTEMPTS:
                    raise
                time.sleep(FENCED_SECONDS)
        raise AssertionError("the last attempt returns or raises")

    def _send_unmarked(self, rows: Sequence[Rejected]) -> list[Rejected]:
        where = {**self._writer.where, "transaction": self._transactions}
        with Transaction(replace(self._writer, where=where)) as transaction:
            self._markers.position = transaction.read(self._markers.position, self._markers.take_message)
            due = [row for row in rows if not self._markers.has(row.at)]
            if due:
                self._commit(transaction, due)
            sent = {row.at for row in due}
            # An attempt may have committed though its answer was lost: its records are this run's, too.
            return [row for row in rows if row.at in sent or self._markers.is_of_run(row.at)]

    def _commit(self, transaction: Transaction, due: Sequence[Rejected]) -> None:
        places: list[tuple[int, int]] = []
        self._hand_over(transaction, self.make_batch(due), lambda *place: places.append(place))
        *markers, last = [self.make_marker(row, *place) for row, place in zip(due, places, strict=True)]
        *keys, last_key = [str(row.at) for row in due]
        topics, partitions = [self._writer.ledger] * len(markers), [marker_log.PARTITION] * len(markers)
        self._hand_over(transaction, Batch(topics, markers, keys, [0] * len(markers), partitions=partitions), None)
        transaction.commit(last, last_key)

    def _hand_over(
        self, transaction: Transaction, batch: Batch, on_delivery: Callable[[int, int], None] | None
    ) -> None:
        where = {**self._writer.where, "transaction": self._transactions}
        seconds = self._writer.timeout_ms / 1000
        with transaction.named():
            sender = TransactionSender(self._name, seconds, self._stopped, self._progress, where, on_delivery)
            sender.send(transaction.producer, [batch])


class Redriver(ExactlyOnceSender):
    """Sends records of one topic back there, in the run `run`.

    Args:
        into_compacted: send them even where they become the newest of their key, whatever came after them.
        worker: tells apart those that redrive into one topic at a time; runs of the same name fence each other.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES, NO_TOPIC, COMPACTED_TOPIC,
            TRANSACTION_TIMEOUT_ABOVE_CAP, KAFKA_FAILED, before anything is sent.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        run: str,
        into_compacted: bool,
        worker: str,
        stopped: Callable[[], bool],
        progress: Progress,
    ) -> None:
        self.topic, self._run = topic, run
        admin, limits = open_topics(settings.kafka, [topic])
        if limits[topic].compacts and not into_compacted:
            what = f"topic {topic} is compacted: what is redriven becomes the newest of its key, whatever came after it"
            remedy = "if nothing newer has come for these keys, use --into-compacted"
            raise TidemarkError("COMPACTED_TOPIC", what, remedy)
        self._retention = RetentionWatch(limits)
        log, sink = marker_log.redriven_topic(settings), redrive_id(settings, topic)
        identity = f"{sink}.{worker}" if worker else sink
        writer = open_writer(settings, admin, identity, {"sink": sink, "step": "redrive"}, topic, log)
        self._ids = topic_ids(admin, [topic], settings.kafka.client_config())
        markers = MarkerLog(self._ids, run)
        # Outside of any transaction, which this could hold up for too long.
        markers.position = marker_log.read_markers(settings, log, 0, markers.take)
        sizes = SizeLimits.of(limits, settings.kafka.bootstrap_servers, REQUEST_BYTES)
        super().__init__(f"redrive of {topic}", writer, markers, sizes, stopped, progress)

    def make_batch(self, rows: Sequence[Rejected]) -> Batch:
        """Return the records as they were, with headers that lead back to them."""
        timestamps = [row.timestamp_ms for row in rows]
        topics = [self.topic] * len(rows)
        self._retention.look(topics, timestamps)
        headers = [row.redrive_headers(self._run) for row in rows]
        partitions = [row.at.partition for row in rows]
        return Batch(topics, [row.value for row in rows], [row.key for row in rows], timestamps, headers, partitions)

    def make_marker(self, row: Rejected, partition: int, offset: int) -> bytes:
        """Return a row of the table `redrives`."""
        more = {"attempt": row.attempt + 1, "origin": row.origin, "error": row.error, "rule": row.rule}
        more |= {"to_partition": partition, "to_offset": offset, "code_version": code_version.version()}
        return marker_log.make_marker(row.at, self._ids, self._run, **more)


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
