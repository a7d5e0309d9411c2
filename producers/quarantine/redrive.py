"""Sends rejected records back into the topics they came from, once and only once: every job meets them again.

Same key, value, headers, timestamp and partition; the headers of `records` lead back to the original.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa

from conf import code_version
from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.exactly_once.ledger_topic import topic_ids
from jobs.connectors.kafka.refusals import REQUEST_BYTES, SizeLimits
from producers.kafka.pacing import Progress
from producers.kafka.preflight import RetentionWatch
from producers.kafka.publisher import Batch, Report, never, open_topics
from producers.quarantine import marker_log
from producers.quarantine.exactly_once_sender import ExactlyOnceSender, Placement, open_writer
from producers.quarantine.marker_log import MarkerLog
from producers.quarantine.records import Rejected
from producers.quarantine.selection import Selection
from producers.quarantine.table import Quarantine, slices

# A transaction costs some 0.3 s, and readers see nothing of it before its end.
MOST_RECORDS = 1_000
MOST_BYTES = 16 << 20
WAIT_SECONDS = 0.1


def redrive_id(settings: Settings, topic: str) -> str:
    """Return the transactional id of a redrive into `topic`; those of workers begin with it."""
    return f"{settings.ledger.application}.redrive.{topic}"


@dataclass
class Redriver:
    """Sends records of one topic back there, in the run `run`.

    Args:
        into_compacted: send them even where they become the newest of their key, whatever came after them.
        worker: tells apart those that redrive into one topic at a time; runs of the same name fence each other.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES, NO_TOPIC, COMPACTED_TOPIC,
            TRANSACTION_TIMEOUT_ABOVE_CAP, KAFKA_FAILED, before anything is sent.
    """

    settings: Settings
    topic: str
    run: str
    into_compacted: bool = False
    worker: str = ""
    stopped: Callable[[], bool] = never
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        admin, limits = open_topics(self.settings.kafka, [self.topic])
        if limits[self.topic].compacts and not self.into_compacted:
            raise _compacted(self.topic)
        self._retention = RetentionWatch(limits)
        name = marker_log.redriven_topic(self.settings)
        sink = redrive_id(self.settings, self.topic)
        where = {"sink": sink, "step": "redrive"}
        writer = open_writer(self.settings, admin, f"{sink}{self.worker and '.'}{self.worker}", where, self.topic, name)
        self._ids = topic_ids(admin, [self.topic], self.settings.kafka.client_config())
        markers = MarkerLog(self._ids, self.run)
        # Outside of any transaction, which this could hold up for too long.
        markers.position = marker_log.read_markers(self.settings, name, 0, markers.take)
        sizes = SizeLimits.of(limits, self.settings.kafka.bootstrap_servers, REQUEST_BYTES)
        self._sender = ExactlyOnceSender(
            f"redrive of {self.topic}", writer, markers, self._batch, self._marker, sizes, self.stopped, self.progress
        )

    def send(self, chunk: Sequence[Rejected]) -> list[Rejected]:
        """Send those of `chunk` that were not redriven before; see `ExactlyOnceSender.send`."""
        return self._sender.send(chunk)

    def require_all_taken(self) -> None:
        """Raise TidemarkError RECORD_TOO_LARGE, where a record was left out; see `ExactlyOnceSender.send`."""
        self._sender.require_all_taken()

    @property
    def left_out(self) -> int:
        """Count records that were left out since they are too large."""
        return len(self._sender.too_large)

    def _batch(self, rows: Sequence[Rejected]) -> Batch:
        timestamps = [row.timestamp_ms for row in rows]
        topics = [self.topic] * len(rows)
        self._retention.look(topics, timestamps)
        headers = [row.redrive_headers(self.run) for row in rows]
        partitions = [row.at.partition for row in rows]
        return Batch(topics, [row.value for row in rows], [row.key for row in rows], timestamps, headers, partitions)

    def _marker(self, row: Rejected, placement: Placement) -> bytes:
        more = {"attempt": row.attempt + 1, "origin": row.origin, "error": row.error, "rule": row.rule}
        more |= {
            "to_partition": placement.partition,
            "to_offset": placement.offset,
            "code_version": code_version.version(),
        }
        return marker_log.make_marker(row.at, self._ids, self.run, **more)


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
        cause, unfit = None, None
        try:
            parts = slices(table.index(selection), most_records(self.rate), MOST_BYTES)
            for topic, parts_of_topic in groupby(parts, key=lambda part: part.topic):
                redriver: Redriver | None = None
                for part in parts_of_topic:
                    if self._is_stopped_before_due():
                        break
                    redriver = redriver or self._redriver(topic)
                    self._send_slice(redriver, table.rows(selection, part))
                unfit = unfit or _too_large(redriver)
        except TidemarkError as error:
            cause = error
        self.progress.clear()
        seconds = time.monotonic() - self.started
        return Report(self.sent, {}, {}, seconds, interrupted=self.stopped(), cause=cause or unfit)

    def _redriver(self, topic: str) -> Redriver:
        return Redriver(self.settings, topic, self.run, self.into_compacted, "", self.stopped, self.progress)

    def _send_slice(self, redriver: Redriver, rows: Sequence[Rejected]) -> None:
        left_out = redriver.left_out
        sent = redriver.send(rows)
        self.sent[redriver.topic] += len(sent)
        self.skipped += len(rows) - len(sent) - (redriver.left_out - left_out)
        if rows:
            self.progress.show(self.sent.total(), rows[-1].timestamp_ms)

    def _is_stopped_before_due(self) -> bool:
        """Wait until the rate allows the next slice."""
        due = self.started + (self.sent.total() / self.rate if self.rate else 0.0)
        while not self.stopped() and (left := due - time.monotonic()) > 0:
            time.sleep(min(left, WAIT_SECONDS))
        return self.stopped()


def _too_large(redriver: Redriver | None) -> TidemarkError | None:
    try:
        if redriver is not None:
            redriver.require_all_taken()
    except TidemarkError as error:
        return error
    return None


def _compacted(topic: str) -> TidemarkError:
    what = f"topic {topic} is compacted: what is redriven becomes the newest of its key, whatever came after it"
    return TidemarkError("COMPACTED_TOPIC", what, "if nothing newer has come for these keys, use --into-compacted")


def estimate(index: pa.Table, rate: float | None) -> float:
    """Return the seconds that the records of an `index` take."""
    transactions = sum(1 for _ in slices(index, MOST_RECORDS, MOST_BYTES))
    return max(transactions * 0.3, index.num_rows / rate if rate else 0.0)


def most_records(rate: float | None) -> int:
    """Return how many records a transaction may hold, so that a `rate` is kept from second to second."""
    return MOST_RECORDS if rate is None else max(1, min(MOST_RECORDS, int(rate)))


def counts(index: pa.Table) -> Mapping[tuple[str, str], int]:
    """Return the records of an `index` by topic and error."""
    grouped = index.group_by(["topic", "error"]).aggregate([([], "count_all")]).to_pylist()
    return {(row["topic"], row["error"]): row["count_all"] for row in grouped}
