"""Writes micro-batches into Kafka topics with a ledger: each record exactly once for `read_committed` readers.

Used from `foreachBatch`, whose batch Spark takes for done only after `write` has returned: a batch that was cut short
is written again, and the ledger says what of it is in the topic already. For each batch the driver commits a plan, then
the shards publish in parallel, each in a Kafka transaction that holds its records and its marker. A small batch the
driver publishes itself, in the transaction of its plan.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TypeVar

from confluent_kafka.admin import AdminClient
from pyspark.sql import DataFrame

from conf.errors import TidemarkError
from conf.sections import Delivery
from conf.settings import Batching, Kafka
from conf.settings import Ledger as Limits
from jobs.connectors.exactly_once.ledger import (
    PLAN,
    PLAN_PARTITION,
    BatchId,
    Done,
    Layout,
    Ledger,
    Plan,
    ledger_topic,
    plan_due,
    require_timeout_below_cap,
)
from jobs.connectors.exactly_once.shards import (
    PASSING,
    ShardResult,
    ShardTask,
    collect_rows,
    publish_shards,
    publish_whole,
)
from jobs.connectors.exactly_once.transaction import Transaction, Writer
from jobs.connectors.kafka.offsets import topic_ids
from jobs.connectors.kafka.refusals import Limits as TopicLimits
from jobs.connectors.kafka.refusals import SizeLimits, retention_warning, size_config, topic_limits
from jobs.connectors.spark_internals import kafka_ranges, state_partitions
from jobs.connectors.tally import Tally

# A FENCED may come from a run that was thought dead; as often as this in a row, another run is active.
PLAN_ATTEMPTS = 3
# The code that fills the queue bounds it (see `bulk`): a full queue would break the order of later records.
QUEUE = {
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 2_000_000,
    "batch.num.messages": 100_000,  # `batch_bytes` limits a batch, too
}
# Of a batch that the driver publishes itself.
MOST_BYTES = 16 << 20
# For the first batch of a run only its number of records is known, and each may be as large as topics take.
FIRST_RECORDS = 100
# For a batch behind a shuffle only the number of records of the one before is known: it may have several times more.
MARGIN = 4


T = TypeVar("T")


@dataclass(frozen=True)
class BatchFacts:
    """A micro-batch as its checkpoint tells of it.

    Args:
        files: the checkpoint's files that begin the batch, by path in it.
        stateful: whether the query keeps state in its checkpoint.
        code: the version of the code that plans it.
        may_lack: whether records of it may be gone that an earlier attempt at it has published.
    """

    id: BatchId
    files: Mapping[str, str]
    stateful: bool = False
    code: str = ""
    may_lack: bool = False


@dataclass(frozen=True)
class ShardPlan:
    """`order[i]` is the shard that Spark's partition i holds; empty where partition and shard have the same number.

    `origins` says for people what each shard is made of, where that is a range of a source partition; `read` is how
    many offsets of the source those are, None where that is not known. `may_lack`: see `BatchFacts`.
    """

    layout: Layout
    shards: int
    fingerprint: str = ""
    order: tuple[int, ...] = ()
    origins: tuple[str, ...] = ()
    read: int | None = None
    may_lack: bool = False


@dataclass(frozen=True)
class PublishedBatch:
    """The batch before: `read` records of the source (None behind a shuffle), `n` published, of `size` bytes."""

    read: int | None
    n: int
    size: int


@dataclass(frozen=True)
class LedgerSink:
    """A sink by its id, which its ledger and its transactional ids are named by: one for each output, for ever.

    Args:
        topic: where rows go; None for rows that name their topic.
    """

    id: str
    topic: str | None
    kafka: Kafka
    batching: Batching
    limits: Limits
    delivery: Delivery = "exactly-once"
    topics: set[str] = field(default_factory=set)  # that were written to, as far as this run knows
    takes: dict[str, TopicLimits] = field(default_factory=dict, compare=False)  # what the topics and the ledger take
    sizes: dict[int, float] = field(default_factory=dict, compare=False)  # bytes of a mean record, by shard
    warned: set[str] = field(default_factory=set, compare=False)  # topics whose retention was warned of
    before: list[PublishedBatch] = field(default_factory=list, compare=False)  # the last batch that published something
    admin: AdminClient = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "admin", AdminClient({**self.kafka.client_config(), "log_level": 0}))
        self.topics.update([self.topic] if self.topic else [])

    @property
    def ledger(self) -> Ledger:
        return Ledger(ledger_topic(self.id), self.kafka.replication_factor)

    def open(self) -> None:
        """Check the settings against the brokers, and create the ledger.

        Raises:
            TidemarkError: TRANSACTION_TIMEOUT_ABOVE_CAP, TOO_MANY_SHARDS, KAFKA_FAILED.
        """
        require_timeout_below_cap(self.admin, self.limits.transaction_timeout_ms)
        if self.limits.shards > self.limits.max_shards:
            wanted, most = self.limits.shards, self.limits.max_shards
            what = f"sink {self.id} is to have {wanted} shards, ledger.max_shards is {most}"
            raise TidemarkError("TOO_MANY_SHARDS", what, "lower ledger.shards, or raise the limit")
        self.ledger.require_shards(self.admin, self.limits.shards, self.kafka.client_config())
        self._learn({self.ledger.name, *self.topics})

    def _learn(self, topics: Iterable[str]) -> bool:
        """Ask the brokers what `topics` take; return whether some were not known before."""
        new = set(topics) - self.takes.keys()
        self.takes.update(topic_limits(self.admin, new))
        return bool(new)

    def write(
        self, frame: DataFrame, facts: BatchFacts, order_by: str | None = None, tally: Tally | None = None
    ) -> int:
        """Publish a micro-batch (columns value, and key, topic, partition, headers, timestamp if there are any); how
        many records.

        Args:
            order_by: a further column that sorts the rows of a shard, where the frame has lost their order.
            tally: takes the time that planning takes, and publishing, in which the frame is computed.

        Raises:
            TidemarkError: what `ledger.plan_due` and `publish_shards` raise.
        """
        if "topic" in frame.columns:
            self.takes.setdefault("", TopicLimits())  # they may name a topic of which nothing is known
        tally = tally or Tally()
        with tally.phase("plan in ledger"):
            shard_plan = plan_shards(frame, self.limits.shards, self.limits.max_shards)
            shard_plan = replace(shard_plan, may_lack=facts.may_lack)
        wanted = Plan(
            facts.id,
            shard_plan.layout,
            shard_plan.shards,
            shard_plan.fingerprint,
            checkpoint=dict(facts.files),
            stateful=facts.stateful,
            code=facts.code,
        )
        results = self._publish_whole(frame, wanted, shard_plan.read, order_by, tally)
        if not results:
            results = self._publish_in_shards(frame, wanted, shard_plan, order_by, tally)
        for result in results:
            if result.stop:
                raise TidemarkError(*result.stop)
            self.sizes.update({result.shard: result.size / result.n} if result.size else {})
        self._learn_from(results)
        self._warn_of_retention(results)
        published, size = sum(result.n for result in results), sum(result.size for result in results)
        self.before[:] = [PublishedBatch(shard_plan.read, published, size)] if size else self.before
        return published

    def _publish_whole(
        self, frame: DataFrame, wanted: Plan, read: int | None, order_by: str | None, tally: Tally
    ) -> list[ShardResult]:
        """Publish a small batch from this process; return no result where it needs shards."""
        before = self.before[0] if self.before else None
        if self.delivery != "exactly-once" or not is_small(read, before, self.limits.small_batch_records):
            return []
        rows = cache(lambda: collect_rows(frame, order_by))
        whole = replace(wanted, layout="whole", shards=1, fingerprint="")

        def due(last: Plan | Done | None) -> Plan | None:
            found = self._due(last, wanted)
            return None if found is last else replace(whole, topics=found.topics)

        writer = self.writer(None, wanted.id.batch)
        writer = replace(writer, topics=tuple(sorted(self.topics)), where={**writer.where, "step": "whole"})
        task, partition = self._shard_task(whole, ShardPlan("whole", 1)), self.ledger.partition_of(0)
        with tally.phase("publish"):
            result = _passing_again(lambda: publish_whole(writer, partition, task, rows, due))
        # If the small batch was stopped, it is published in shards: they can name the record, and learn topics' limits.
        return [result] if result is not None and not result.stop else []

    def _publish_in_shards(
        self, frame: DataFrame, wanted: Plan, shard_plan: ShardPlan, order_by: str | None, tally: Tally
    ) -> list[ShardResult]:
        with tally.phase("plan in ledger"):
            plan = _passing_again(lambda: self._plan(wanted))
            self.ledger.require_shards(self.admin, plan.shards, self.kafka.client_config())
        with tally.phase("publish"):
            results = self._publish(frame, plan, shard_plan, order_by)
            if any(result.stop[:1] == ["RECORD_TOO_LARGE"] for result in results) and self._learn_from(results):
                # Rows may name their topics: only now is it known which these are, and what they take.
                results = self._publish(frame, plan, shard_plan, order_by)
        return results

    def _warn_of_retention(self, results: Iterable[ShardResult]) -> None:
        oldest = min((result.oldest for result in results if result.oldest is not None), default=None)
        if self.topic is None or oldest is None or self.topic in self.warned:
            return
        warning = retention_warning(self.topic, self.takes.get(self.topic, TopicLimits()), oldest, time.time() * 1000)
        if warning:
            self.warned.add(self.topic)
            print(f"warning: {warning}", file=sys.stderr, flush=True)

    def _learn_from(self, results: Iterable[ShardResult]) -> bool:
        topics = {topic for result in results for topic in result.topics}
        self.topics.update(topics)
        return self._learn(topics)

    def _shard_task(self, plan: Plan, shard_plan: ShardPlan) -> ShardTask:
        is_by_source = plan.layout == "source"
        takes = {name: limits for name, limits in self.takes.items() if name != self.ledger.name}
        return ShardTask(
            self.id,
            plan.id,
            tuple(self.writer(shard, plan.id.batch) for shard in range(plan.shards)),
            shard_plan.order if is_by_source else (),
            self.topic,
            self.delivery,
            SizeLimits.of(takes, self.kafka.bootstrap_servers, self.batching.batch_bytes),
            shard_plan.origins if is_by_source else (),
            shard_plan.may_lack or plan.accepted,
        )

    def writer(self, shard: int | None, batch: int) -> Writer:
        """Return the identity that plans (shard None), or writes a shard."""
        name = "plan" if shard is None else str(shard)
        return Writer(
            transactional_id=f"{self.id}.{name}",
            ledger=self.ledger.name,
            partition=PLAN_PARTITION if shard is None else self.ledger.partition_of(shard),
            connection=self.kafka.client_config(),
            timeout_ms=self.limits.transaction_timeout_ms,
            tuning={**self.batching.client_config(), **QUEUE, **size_config(self.batching, self.takes.values())},
            topics=tuple(sorted(self.topics)) if shard is not None else (),
            where={"sink": self.id, "step": "plan" if shard is None else "shard", "shard": shard, "batch": batch},
        )

    def _plan(self, wanted: Plan) -> Plan:
        with Transaction(self.writer(None, wanted.id.batch)) as transaction:
            last = transaction.last_marker()
            due = self._due(last, wanted)
            if due is not last:
                transaction.commit(due.to_json(), PLAN)
            return due

    def _due(self, last: Plan | Done | None, wanted: Plan) -> Plan:
        known = {*self.topics, *(last.topics if last else ())}
        ids = topic_ids(self.admin, known, self.kafka.client_config())
        return plan_due(last, replace(wanted, topics=ids), self.id)

    def _publish(self, frame: DataFrame, plan: Plan, shard_plan: ShardPlan, order_by: str | None) -> list[ShardResult]:
        record_bytes = max(self.sizes.values(), default=None)
        return publish_shards(frame, plan.layout, self._shard_task(plan, shard_plan), order_by, record_bytes)


def plan_shards(frame: DataFrame, shards: int, most: int) -> ShardPlan:
    """Return the cut of a batch that nobody has planned: by the partitions of its source or of its state, `most` at
    most, or into `shards` by key."""
    partitions = kafka_ranges(frame)
    ranges = [partition for partition in partitions if partition is not None]
    is_of_source = len(ranges) == len(partitions)
    read = sum(end - first for _, first, end in ranges) if is_of_source else None
    if not is_of_source or not 0 < len(ranges) <= most:
        stored = state_partitions(frame) or 0
        return ShardPlan("state", stored, read=read) if 0 < stored <= most else ShardPlan("key", shards, read=read)
    ranked = sorted(ranges)
    fingerprint = hashlib.sha256(json.dumps(ranked).encode()).hexdigest()
    origins = tuple(f"made of {place} from offset {first} to before {end}" for place, first, end in ranked)
    order = tuple(ranked.index(source_range) for source_range in ranges)
    return ShardPlan("source", len(ranges), fingerprint, order, origins, read)


def is_small(read: int | None, before: PublishedBatch | None, most: int) -> bool:
    """Return whether a batch is likely to have at most `most` records, of MOST_BYTES.

    Args:
        read: how many offsets of the source it is made of; None behind a shuffle.
        before: the last batch of this run that published something; None for none.
    """
    if before is None:
        return read is not None and read <= min(most, FIRST_RECORDS)
    if read is None or before.read is None:
        expected = float(before.n * MARGIN)
    else:
        expected = read * max(1.0, before.n / max(before.read, 1))
    return expected <= most and expected * before.size / max(before.n, 1) <= MOST_BYTES


def _passing_again(attempt: Callable[[], T]) -> T:
    for _ in range(PLAN_ATTEMPTS - 1):
        try:
            return attempt()
        except TidemarkError as error:
            if error.code not in PASSING:
                raise
    return attempt()
