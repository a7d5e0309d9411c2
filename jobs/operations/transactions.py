"""Finds what holds readers back: open transactions by partition, their writers, and which of them a ledger proves dead.

Readers of committed records get nothing behind a partition's last stable offset, where its first open transaction
begins. One whose process is gone stays open until its time-out; fencing its writer ends it at once, as the next start
of the same sink would.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Literal

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from conf.errors import TidemarkError
from conf.settings import Kafka
from jobs.connectors.exactly_once.ledger import author_of, ledger_topic, sink_of
from jobs.connectors.exactly_once.process import Author, is_gone
from jobs.connectors.kafka.access import connect, granting
from jobs.connectors.kafka.acls import cluster_operations
from jobs.connectors.kafka.consumer import is_end, messages, open_consumer
from jobs.connectors.kafka.java_client import TO_LIST, OpenTransaction, TransactionAdmin
from jobs.connectors.kafka.offsets import SECONDS, edges, list_offsets

# Kafka's own topic, which nobody reads as a reader of committed records.
STATE_TOPIC = "__transaction_state"
READ_SECONDS = 10.0
# What follows the application in transactional ids of `quarantine`, the log it writes, and what it is.
QUARANTINE = {
    ".redrive.": (".redriven", "quarantine redrive of"),
    ".quarantine.fill": (".quarantine.queued", "quarantine queue fill"),
}

Place = tuple[str, int]
State = Literal["dead", "lives", "unproven", "foreign", "hanging"]


@dataclass(frozen=True)
class JudgedTransaction:
    """An open transaction in a partition, and what is known of its writer.

    Args:
        waiting: offsets from the partition's last stable one to its end: readers miss at most so many records.
        is_first: whether the last stable offset is where it begins; one behind it holds nobody back yet.
        owner: which part of Tidemark wrote it, in words; empty where no ledger knows it.
        why: how its state is known.
    """

    transaction: OpenTransaction
    stable: int
    waiting: int
    is_first: bool
    state: State
    owner: str
    why: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self.transaction) | {name: value for name, value in asdict(self).items() if name != "transaction"}


def blocked_partitions(admin: AdminClient) -> dict[Place, tuple[int, int]]:
    """Return the last stable offset, and the end, of each partition where they differ.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    try:
        topics = admin.list_topics(timeout=SECONDS).topics.keys() - {STATE_TOPIC}
        stable = {place: edge.end for place, edge in edges(admin, topics).items()}
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        ends = list_offsets(admin, stable, latest, IsolationLevel.READ_UNCOMMITTED)
    except KafkaException as exc:
        remedy = "see the brokers' logs, then ask again"
        raise TidemarkError("KAFKA_FAILED", f"the ends of topics: {exc.args[0].str()}", remedy) from exc
    return {place: (offset, ends[place]) for place, offset in stable.items() if ends[place] > offset}


def ledger_of(transactional_id: str, topics: Collection[str]) -> str | None:
    """Return the ledger of the sink or publisher that writes under an id; None where there is none."""
    # A publisher's id is its sink's; shards and plans of a query's sink add their number or `plan`.
    for sink in (transactional_id, transactional_id.rpartition(".")[0]):
        if sink and ledger_topic(sink) in topics:
            return ledger_topic(sink)
    for writes, (log, _) in QUARANTINE.items():
        application, is_one, _ = transactional_id.partition(writes)
        if is_one and f"{application}{log}" in topics:
            return f"{application}{log}"
    return None


def owner_of(transactional_id: str, ledger: str) -> str:
    """Name the part of Tidemark that writes under an id."""
    for writes, (log, what) in QUARANTINE.items():
        if ledger.endswith(log):
            return f"{what} {transactional_id.partition(writes)[2]}".rstrip()
    sink = sink_of(ledger)
    part = transactional_id.removeprefix(sink).removeprefix(".")
    if not part:
        return f"publisher {sink}"
    return f"sink {sink}, {'plan' if part == 'plan' else f'shard {part}'}"


def judge(
    transaction: OpenTransaction, ledger: str | None, author: Author | None, gone: bool | None
) -> tuple[State, str]:
    """Return the state of a transaction, and why it is taken for that.

    Args:
        ledger: of its writer; None where it has none.
        author: that its `open` marker names; None where there is none.
        gone: whether that process has ended; None where that is not known.
    """
    if not transaction.transactional_id:
        return "hanging", "no coordinator knows it, so it has no time-out"
    if ledger is None:
        return "foreign", "no ledger knows its writer"
    if author is None:
        return "unproven", "its ledger does not say which process began it"
    if gone is None:
        return "unproven", f"begun by {author}: ask there, or start the job again, which ends it"
    return ("dead", f"{author}, which began it, has ended") if gone else ("lives", f"{author} is at it")


class OpenTransactions:
    """The open transactions of a cluster."""

    def __init__(self, kafka: Kafka, fences: TransactionAdmin) -> None:
        self._kafka, self._fences = kafka, fences
        self._admin = connect(kafka)

    def find(self) -> list[JudgedTransaction]:
        """Return every open transaction, and what is known of its writer.

        Raises:
            TidemarkError: KAFKA_FAILED, and what the client for Java raises.
        """
        blocked = blocked_partitions(self._admin)
        topics = self._admin.list_topics(timeout=SECONDS).topics.keys()
        transactions = self._fences.open_in(blocked.keys())
        by_writer = {(each.topic, each.transactional_id): each for each in transactions}
        judged = []
        for transaction in transactions:
            stable, end = blocked[transaction.topic, transaction.partition]
            id = transaction.transactional_id
            ledger = ledger_of(id, topics) if id else None
            opened = by_writer.get((ledger, id)) if ledger else None
            author = self._author_at((opened.topic, opened.partition), opened.offset, id) if opened else None
            state, why = judge(transaction, ledger, author, is_gone(author) if author else None)
            owner = owner_of(id, ledger) if ledger else ""
            is_first = transaction.offset <= stable
            judged.append(JudgedTransaction(transaction, stable, end - stable, is_first, state, owner, why))
        # Coordinators tell each user of those transactions only that it may describe.
        if any(each.state == "hanging" for each in judged) and "Alter" not in cluster_operations(self._admin):
            who, command = granting(TO_LIST, self._kafka.client_config())
            lacks = f"{who} lacks the right to {TO_LIST}: {command}"
            why = f"no coordinator tells {who} of it: it has no time-out, or {lacks}"
            judged = [replace(each, why=why) if each.state == "hanging" else each for each in judged]
        return judged

    def abort(self, judged: Iterable[JudgedTransaction]) -> list[str]:
        """End those of `judged` that are dead, and still the same; return the ids of their writers."""
        dead = {each.transaction.transactional_id for each in judged if each.state == "dead"}
        if not dead:
            return []
        # A transaction that has begun since, under the same id, has another producer, or begins at another offset.
        same = {each.transaction for each in self.find() if each.state == "dead"}
        ended = sorted(dead & {each.transactional_id for each in same})
        for id in ended:
            self._fences.fence(id)
        return ended

    def _author_at(self, place: Place, offset: int, writer: str) -> Author | None:
        """Return the process that began a transaction, by its `open` marker at an offset of a ledger's partition."""
        connection = {**self._kafka.client_config(), "isolation.level": "read_uncommitted"}
        consumer = open_consumer(connection)
        try:
            message = next(messages(consumer, TopicPartition(*place, offset), READ_SECONDS))
            return None if is_end(message) else author_of(message.value(), writer)
        except KafkaException:
            return None  # then nothing is proven
        finally:
            consumer.close()


def lines(judged: Sequence[JudgedTransaction], servers: str, now_ms: float) -> Iterator[str]:
    """Yield the lines that people read of each partition and its transactions."""
    if not judged:
        yield "no transaction is open: readers of committed records get all there is"
    for (topic, partition), group in groupby(judged, lambda each: (each.transaction.topic, each.transaction.partition)):
        each, *more = group
        yield f"{topic} partition {partition}: readers wait at offset {each.stable:,}, {each.waiting:,} before the end"
        for transaction in (each, *more):
            yield from _transaction_lines(transaction, servers, now_ms)


def _transaction_lines(judged: JudgedTransaction, servers: str, now_ms: float) -> Iterator[str]:
    transaction = judged.transaction
    since = datetime.fromtimestamp(transaction.since_ms / 1000, UTC)
    ends = f", its time-out is {transaction.timeout_ms / 1000:,.0f} s" if transaction.timeout_ms else ""
    behind = "" if judged.is_first else " (behind the first)"
    id = transaction.transactional_id or "-"
    yield f"  {id}  producer id {transaction.producer_id}  from offset {transaction.offset:,}{behind}"
    yield f"    since {since:%Y-%m-%d %H:%M:%S}Z, {(now_ms - transaction.since_ms) / 1000:,.0f} s{ends}"
    yield f"    {judged.state}: {', '.join(part for part in (judged.owner, judged.why) if part)}"
    if judged.state in ("foreign", "hanging"):
        place = f"--topic {transaction.topic} --partition {transaction.partition} --start-offset {transaction.offset}"
        command = f"local/tidemark kafka transactions --bootstrap-server {servers} abort {place}"
        yield f"    where you know that its writer is gone: {command}"
