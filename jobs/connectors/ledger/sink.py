"""The ledger sink: micro-batches into Kafka topics, each record exactly once for `read_committed` readers.

Used from `foreachBatch`, whose batch Spark takes for done only after `write` has returned: a batch that was cut short
is written again, and the ledger says what of it is in the topic already. For each batch the driver commits a plan, then
the shards publish in parallel, each in a Kafka transaction that holds its records and its marker.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from confluent_kafka.admin import AdminClient
from pyspark.sql import DataFrame

from conf.errors import TidemarkError
from conf.settings import Batching, Delivery, Kafka
from conf.settings import Ledger as Limits
from jobs.connectors.ledger import stops
from jobs.connectors.ledger.layout import Cut, arrow_batches, cut_frame, natural_cut
from jobs.connectors.ledger.markers import PLAN, BatchId, Plan, offsets_hash, plan_due
from jobs.connectors.ledger.shard import ANSWER, PASSING, Answer, Assignment, publish_shard, task
from jobs.connectors.ledger.topic import PLAN_PARTITION, Ledger, require_timeout_below_cap, topic_ids
from jobs.connectors.ledger.transaction import Transaction
from jobs.connectors.ledger.writer import Writer

# A run that was thought dead may fence a plan once; a second time somebody else runs the query.
PLAN_ATTEMPTS = 3
# The queue is bounded by the one who fills it (see `ledger.bulk`): a full one would break the order of what follows.
QUEUE = {
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 2_000_000,
    "batch.num.messages": 100_000,  # under `batch_bytes` all the same
}


@dataclass(frozen=True)
class BatchFacts:
    """What the checkpoint says of a micro-batch.

    Args:
        files: the checkpoint's files that begin the batch, by path in it; `offsets/<batch>` names its offsets.
        stateful: whether the query keeps state in its checkpoint.
    """

    query_id: str
    batch: int
    files: Mapping[str, str]
    stateful: bool = False
    code: str = ""

    @property
    def id(self) -> BatchId:
        return BatchId(self.query_id, self.batch, offsets_hash(self.files[f"offsets/{self.batch}"]))


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
    sizes: dict[int, float] = field(default_factory=dict, compare=False)  # bytes of a mean record, by shard
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
            raise stops.too_many_shards(self.id, self.limits.shards, self.limits.max_shards)
        self.ledger.require_shards(self.admin, self.limits.shards)

    def write(self, frame: DataFrame, facts: BatchFacts, order_by: str | None = None) -> int:
        """Publish a micro-batch (columns value, and key, topic, partition, headers if there are any); how many records.

        Args:
            order_by: a further column that sorts the rows of a shard, where the frame has lost their order.

        Raises:
            TidemarkError: the named stops of `ledger.stops`.
        """
        cut = natural_cut(frame, self.limits.shards, self.limits.max_shards)
        plan = self._planned(facts, cut)
        self.ledger.require_shards(self.admin, plan.shards)
        assignment = Assignment(
            self.id,
            plan.id,
            tuple(self.writer(shard, facts.batch) for shard in range(plan.shards)),
            cut.order if plan.layout == "source" else (),
            self.topic,
            self.delivery,
        )
        shards = cut_frame(frame, plan.layout, plan.shards, order_by)
        return sum(answer.n for answer in self._publish(shards, plan, assignment))

    def writer(self, shard: int | None, batch: int) -> Writer:
        """The identity that plans (shard None), or writes a shard."""
        name = "plan" if shard is None else str(shard)
        return Writer(
            transactional_id=f"{self.id}.{name}",
            ledger=self.ledger.name,
            partition=PLAN_PARTITION if shard is None else self.ledger.partition_of(shard),
            connection=self.kafka.client_config(),
            timeout_ms=self.limits.transaction_timeout_ms,
            tuning={**self.batching.client_config(), **QUEUE},
            where={"sink": self.id, "step": "plan" if shard is None else "shard", "shard": shard, "batch": batch},
        )

    def _planned(self, facts: BatchFacts, cut: Cut) -> Plan:
        wanted = Plan(
            facts.id,
            cut.layout,
            cut.shards,
            cut.fingerprint,
            checkpoint=dict(facts.files),
            stateful=facts.stateful,
            code=facts.code,
        )
        for _ in range(PLAN_ATTEMPTS - 1):
            try:
                return self._plan(wanted)
            except TidemarkError as error:
                if error.code not in PASSING:
                    raise
        return self._plan(wanted)

    def _plan(self, wanted: Plan) -> Plan:
        with Transaction(self.writer(None, wanted.id.batch)) as transaction:
            found = transaction.last_marker()
            last = found if isinstance(found, Plan) else None
            known = {*self.topics, *(last.topics if last else ())}
            due = plan_due(last, replace(wanted, topics=topic_ids(self.admin, known)), self.id)
            if due is not last:
                transaction.commit(due.to_json(), PLAN)
            return due

    def _publish(self, frame: DataFrame, plan: Plan, assignment: Assignment) -> list[Answer]:
        with arrow_batches(frame.sparkSession, max(self.sizes.values(), default=None)):
            rows = frame.mapInArrow(task(assignment), ANSWER).collect()
        answers = {row.shard: Answer(**row.asDict()) for row in rows}
        for shard in set(range(plan.shards)) - answers.keys():
            # Spark gives an empty frame fewer tasks, or none.
            answers[shard] = publish_shard(assignment, shard, ())
        for answer in answers.values():
            answer.require_no_stop()
            self.topics.update(answer.topics)
            self.sizes.update({answer.shard: answer.size / answer.n} if answer.size else {})
        return list(answers.values())
