"""Keeps how far a named run has published its input: a marker in a ledger topic, committed with the records."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.exactly_once.ledger import (
    PLAN_PARTITION,
    PUBLISHED,
    BatchId,
    Ledger,
    Published,
    ledger_topic,
    require_timeout_below_cap,
)
from jobs.connectors.exactly_once.transaction import Transaction, Writer
from jobs.connectors.kafka.offsets import topic_ids
from jobs.connectors.kafka.refusals import Limits, topic_limits
from producers.kafka.publisher import producer_config

# A run that only looked dead fences us once; repeated fencing means two publishers at a time.
ATTEMPTS = 3
# After this time a run that has taken over has its marker in the ledger.
FENCED_SECONDS = 1.0
# After these the transaction may be committed or not: the next one's barrier tells.
UNCLEAR = ("FENCED", "KAFKA_FAILED", "BROKER_UNREACHABLE", "TRANSACTION_TIMED_OUT")


@dataclass(frozen=True)
class PublishProgress:
    """The progress of one name.

    Args:
        writer: the name's one identity in Kafka, and where its markers lie.
        topics: where the records go.
    """

    name: str
    writer: Writer
    admin: AdminClient
    topics: Collection[str]

    def begin(self, first: Published, check_first: Callable[[], None]) -> Published:
        """Take the name over for a run whose `first_marker` is `first`, unless all is done; the marker to go on from.

        Args:
            check_first: checks what must hold before the first run.

        Raises:
            TidemarkError: INPUT_CHANGED, TOPIC_RECREATED, FENCED, KAFKA_FAILED, and what `check_first` raises.
        """
        for _ in range(ATTEMPTS - 1):
            try:
                return self._begin(first, check_first)
            except TidemarkError as error:
                if error.code != "FENCED":
                    raise
        return self._begin(first, check_first)

    def append(self, last: Published, marker: Published, send: Callable[[Producer], None]) -> None:
        """Commit the records that `send` hands over, with `marker`, where the ledger ends with `last`.

        Raises:
            TidemarkError: FENCED, KAFKA_FAILED, TRANSACTION_TIMED_OUT, and what `send` raises; then nothing is
                committed, as far as the brokers can be asked.
        """
        failure = None
        for _ in range(ATTEMPTS):
            try:
                is_ours = self._append(last, marker, send, failure)
            except TidemarkError as error:
                if error is failure or error.code not in UNCLEAR or (failure and failure.code != "FENCED"):
                    raise
                failure = error
                time.sleep(FENCED_SECONDS)
            else:
                if is_ours:
                    return
                break
        what = f"another publisher has taken over as {self.name}, and goes on where this one ends"
        raise TidemarkError("FENCED", what, "run one at a time, or give each its own --exactly-once NAME")

    def _begin(self, first: Published, check_first: Callable[[], None]) -> Published:
        with Transaction(self._writer(-1)) as transaction:
            marker = transaction.last_marker()
            last = marker if isinstance(marker, Published) else None
            ids = topic_ids(self.admin, self.topics, self.writer.connection)
            start = starting_point(last, replace(first, topic_ids=ids), self.name)
            if last is None:
                check_first()
            if not start.complete:
                transaction.commit(start.to_json(), PUBLISHED)
            return start

    def _append(
        self, last: Published, marker: Published, send: Callable[[Producer], None], failure: TidemarkError | None
    ) -> bool:
        """Return whether the ledger is still this run's."""
        with Transaction(self._writer(marker.id.batch)) as transaction:
            committed = transaction.last_marker()
            if committed == marker:
                return True  # the attempt that seemed to fail has committed
            if committed != last:
                return False
            if failure and failure.code != "FENCED":
                raise failure
            with transaction.named():
                send(transaction.producer)
            transaction.commit(marker.to_json(), PUBLISHED)
            return True

    def _writer(self, number: int) -> Writer:
        return replace(self.writer, where={**self.writer.where, "transaction": number})


def publisher_id(settings: Settings, input_kind: str, name: str) -> str:
    """Return the transactional id of `name`, which also names its ledger; `input_kind`: the input's kind, or topic."""
    return f"{settings.ledger.application}.publish.{input_kind}.{name}"


def open_progress(
    settings: Settings, admin: AdminClient, input_kind: str, name: str, topics: Mapping[str, Limits]
) -> PublishProgress:
    """Return the progress of `name`, its ledger created where it is missing.

    Args:
        input_kind: the input's kind, or its topic.
        topics: where the records go, and what these topics take.

    Raises:
        TidemarkError: TRANSACTION_TIMEOUT_ABOVE_CAP, KAFKA_FAILED.
    """
    timeout_ms = settings.ledger.transaction_timeout_ms
    sink = publisher_id(settings, input_kind, name)
    ledger = Ledger(ledger_topic(sink), settings.kafka.replication_factor)
    require_timeout_below_cap(admin, timeout_ms)
    ledger.require_shards(admin, 0, settings.kafka.client_config())
    limits = [*topics.values(), *topic_limits(admin, [ledger.name]).values()]
    tuning, where = producer_config(settings.producer, limits), {"sink": sink, "step": "publish"}
    writer = Writer(
        sink, ledger.name, PLAN_PARTITION, settings.kafka.client_config(), timeout_ms, tuning, where, tuple(topics)
    )
    return PublishProgress(name, writer, admin, topics)


@dataclass(frozen=True)
class Position:
    """How far an input was read: rows or events, and how many of them were rejected."""

    read: int
    rejected: int = 0


def first_marker(identity: Mapping[str, str], run: str) -> Published:
    """Return the marker of a run that begins with the first row.

    Args:
        identity: everything that decides on the input's records, by name: another value is another input.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Published(BatchId(digest, 0, ""), 0, facts=dict(identity), run=run)


def starting_point(last: Published | None, first: Published, name: str) -> Published:
    """Return where the run with the marker `first` goes on, given the name's last marker;
    complete where nothing is left.

    Raises:
        TidemarkError: INPUT_CHANGED, TOPIC_RECREATED.
    """
    if last is None:
        return first
    if last.id.query_id != first.id.query_id:
        parts = sorted(last.facts.keys() | first.facts.keys())
        changed = [part for part in parts if last.facts.get(part) != first.facts.get(part)]
        what = (
            f"{name} was begun with other {', '.join(changed)}, and {last.read:,} rows or events of that are published"
        )
        remedy = "restore the input and its options, or take another --exactly-once NAME"
        raise TidemarkError("INPUT_CHANGED", what, remedy)
    for topic in sorted(last.topic_ids.keys() & first.topic_ids.keys()):
        if last.topic_ids[topic] != first.topic_ids[topic]:
            what = f"topic {topic} was deleted and created again: what {name} published before is gone"
            raise TidemarkError("TOPIC_RECREATED", what, "to publish all of it anew, take another --exactly-once NAME")
    return replace(last, id=_next_id(last), n=0, topic_ids=first.topic_ids, run=first.run)


def next_marker(last: Published, position: Position, records: Mapping[str, int], complete: bool) -> Published:
    """Return the marker of the transaction after `last`, which holds so many `records` by topic."""
    topics = {*last.delivered, *records}
    return replace(
        last,
        id=_next_id(last),
        n=sum(records.values()),
        topics=tuple(sorted(records)),
        read=position.read,
        rejected=position.rejected,
        delivered={topic: last.delivered.get(topic, 0) + records.get(topic, 0) for topic in sorted(topics)},
        complete=complete,
    )


def earlier_runs(start: Published, name: str, unit: str) -> str | None:
    """Return the line on what earlier runs have done; None where there is nothing to say. `unit`: row or event."""
    done = f"{sum(start.delivered.values()):,} delivered"
    done += f", {start.rejected:,} rejected" if start.rejected else ""
    if start.complete:
        return f"exactly once: {name} is complete since an earlier run, {start.read:,} {unit}s ({done}): nothing to do"
    if not start.read:
        return None
    return f"exactly once: {name} goes on after {unit} {start.read:,}: {done} by earlier runs"


def digest_of_files(paths: Iterable[Path]) -> str:
    """Return SHA-256 over the files, one after the other, in hexadecimal; raises TidemarkError BAD_FILE."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as exc:
            raise TidemarkError("BAD_FILE", f"{path}: {exc.strerror}", "mend or leave out the file") from exc
    return digest.hexdigest()


def _next_id(last: Published) -> BatchId:
    return replace(last.id, batch=last.id.batch + 1)
