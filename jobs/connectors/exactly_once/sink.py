"""Writes micro-batches into Kafka topics with a ledger: each record exactly once for `read_committed` readers.

Used from `foreachBatch`, whose batch Spark takes for done only after `write` has returned: a batch that was cut short
is written again, and the ledger says what of it is in the topic already. For each batch the driver commits a plan, then
the shards publish in parallel, each in a Kafka transaction that holds its records and its marker. A small batch the
driver publishes itself, in the transaction of its plan.
"""

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
from jobs.connectors.exactly_once import errors
from jobs.connectors.exactly_once.ledger_topic import PLAN_PARTITION, Ledger, require_timeout_below_cap, topic_ids
from jobs.connectors.exactly_once.markers import PLAN, BatchId, Plan, plan_due
from jobs.connectors.exactly_once.shards import (
    PASSING,
    ShardPlan,
    ShardResult,
    ShardTask,
    plan_shards,
    publish_shards,
)
from jobs.connectors.exactly_once.small_batch import Published, collected, is_small, publish_whole
from jobs.connectors.exactly_once.transaction import Transaction, Writer
from jobs.connectors.kafka.refusals import Limits as TopicLimits
from jobs.connectors.kafka.refusals import SizeLimits, retention_warning, size_config, topic_limits
from jobs.connectors.tally import Tally

# A FENCED may come from a run that was thought dead; as often as this in a row, another run is active.
PLAN_ATTEMPTS = 3
# Rows that name their topic may name one of which nothing is known.
ANY_TOPIC = ""
# The code that fills the queue bounds it (see `bulk`): a full queue would break the order of later records.
QUEUE = {
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 2_000_000,
    "batch.num.messages": 100_000,  # `batch_bytes` limits a batch, too
}


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
    before: list[Published] = field(default_factory=list, compare=False)  # the last batch that published something
    admin: AdminClient = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "admin", AdminClient({**self.kafka.client_config(), "log_level": 0}))
        self.topics.update([self.topic] if self.topic else [])

    @property
    def ledger(self) -> Ledger:
        return Ledger(f"__{self.id}.ledger", self.kafka.replication_factor)

    def open(self) -> None:
        """Check the settings against the brokers, and create the ledger.

        Raises:
            TidemarkError: TRANSACTION_TIMEOUT_ABOVE_CAP, TOO_MANY_SHARDS, KAFKA_FAILED.
        """
        require_timeout_below_cap(self.admin, self.limits.transaction_timeout_ms)
        if self.limits.shards > self.limits.max_shards:
            raise errors.too_many_shards(self.id, self.limits.shards, self.limits.max_shards)
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
            TidemarkError: one of those in `exactly_once.errors`.
        """
        if "topic" in frame.columns:
            self.takes.setdefault(ANY_TOPIC, TopicLimits())
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
            result.require_no_stop()
            self.sizes.update({result.shard: result.size / result.n} if result.size else {})
        self._learn_from(results)
        self._warn_of_retention(results)
        published, size = sum(result.n for result in results), sum(result.size for result in results)
        self.before[:] = [Published(shard_plan.read, published, size)] if size else self.before
        return published

    def _publish_whole(
        self, frame: DataFrame, wanted: Plan, read: int | None, order_by: str | None, tally: Tally
    ) -> list[ShardResult]:
        """Publish a small batch from this process; return no result where it needs shards."""
        before = self.before[0] if self.before else None
        if self.delivery != "exactly-once" or not is_small(read, before, self.limits.small_batch_records):
            return []
        rows = cache(lambda: collected(frame, order_by))
        whole = replace(wanted, layout="whole", shards=1, fingerprint="")

        def due(last: Plan | None) -> Plan | None:
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
            marker = transaction.last_marker()
            last = marker if isinstance(marker, Plan) else None
            due = self._due(last, wanted)
            if due is not last:
                transaction.commit(due.to_json(), PLAN)
            return due

    def _due(self, last: Plan | None, wanted: Plan) -> Plan:
        known = {*self.topics, *(last.topics if last else ())}
        ids = topic_ids(self.admin, known, self.kafka.client_config())
        return plan_due(last, replace(wanted, topics=ids), self.id)

    def _publish(self, frame: DataFrame, plan: Plan, shard_plan: ShardPlan, order_by: str | None) -> list[ShardResult]:
        record_bytes = max(self.sizes.values(), default=None)
        return publish_shards(frame, plan.layout, self._shard_task(plan, shard_plan), order_by, record_bytes)


def _passing_again(attempt: Callable[[], T]) -> T:
    for _ in range(PLAN_ATTEMPTS - 1):
        try:
            return attempt()
        except TidemarkError as error:
            if error.code not in PASSING:
                raise
    return attempt()
