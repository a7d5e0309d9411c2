"""How the rows of an output reach a topic: one knob, three promises."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from pyspark.sql import DataFrame, SparkSession

from conf import code
from conf.settings import Delivery, Settings
from jobs import checkpoint, plans
from jobs.connectors import kafka, outbox
from jobs.connectors.ledger import stops
from jobs.connectors.ledger.adopt import Held, adopt
from jobs.connectors.ledger.failpoints import reach
from jobs.connectors.ledger.markers import BatchId, offsets_hash
from jobs.connectors.ledger.sink import BatchFacts, LedgerSink
from jobs.outputs import Batch

Mode = Literal["direct", "outbox"]


def writer(
    settings: Settings, query: str, frame: DataFrame, topic: str | None, delivery: Delivery, mode: Mode
) -> Callable[[Batch], None]:
    """What writes each micro-batch of the stream `frame` to `topic`, checked before the query starts.

    Raises:
        TidemarkError: NOT_DETERMINISTIC; TRANSACTION_TIMEOUT_ABOVE_CAP, TOO_MANY_SHARDS, KAFKA_FAILED of the ledger.
    """
    id = f"{settings.ledger.application}.{query}"
    if delivery == "at-least-once":
        return PlainWriter(id, settings, topic)
    found = plans.changes_when_run_again(frame) if mode == "direct" else None
    if found:
        raise stops.not_deterministic(query, found)
    sink = LedgerSink(id, topic, settings.kafka, settings.sink, settings.ledger, delivery)
    sink.open()
    box = f"{settings.paths.tables}/outbox/{query}" if mode == "outbox" else None
    return LedgerWriter(sink, plans.keeps_state(frame), box)


@dataclass(frozen=True)
class PlainWriter:
    """Writes micro-batches through Spark's own sink: one that is run again is written again."""

    id: str
    settings: Settings
    topic: str | None

    def __call__(self, batch: Batch) -> None:
        kafka.write_batch(batch.frame, self.settings.kafka, self.settings.sink, self.topic)
        reach("batch-before-commit-log", self.id, batch=batch.version)


@dataclass(frozen=True)
class LedgerWriter:
    """Writes micro-batches through a ledger sink; `outbox` is the path of the table that freezes them first."""

    sink: LedgerSink
    stateful: bool
    outbox: str | None

    def __call__(self, batch: Batch) -> None:
        facts = BatchFacts(batch.query_id, batch.version, batch.files, self.stateful, code.version())
        if self.outbox:
            frozen = outbox.frozen(batch.frame, self.outbox, batch.commit("outbox"))
            self.sink.write(frozen, facts, order_by=outbox.POSITION)
        else:
            self.sink.write(batch.frame, facts)
        reach("batch-before-commit-log", self.sink.id, batch=batch.version)

    def adopt(self, spark: SparkSession, folder: str) -> list[str]:
        """Bring ledger and the checkpoint in `folder` together again; lines on what was done."""
        found = adopt(self.sink, _held(spark, folder), self.stateful)
        lines = [found.text]
        if found.restore:
            aside = checkpoint.move_aside(spark, folder)
            lines += [f"{self.sink.id}: the checkpoint that was there is kept as {aside}"] if aside else []
            begun = found.restore.id
            checkpoint.rebuild(spark, folder, begun.query_id, begun.batch, found.restore.checkpoint)
        return lines


@dataclass(frozen=True)
class InTurn:
    """Writes each micro-batch to a table, then the records made of it to a topic."""

    to_table: Callable[[Batch], None]
    to_topic: Callable[[Batch], None]
    as_records: Callable[[DataFrame], DataFrame]

    def __call__(self, batch: Batch) -> None:
        self.to_table(batch)
        ledger = ledger_of(self.to_topic)
        reach("batch-between-table-and-topic", ledger.sink.id if ledger else "", batch=batch.version)
        self.to_topic(replace(batch, frame=self.as_records(batch.frame)))


def ledger_of(write: Callable[[Batch], None]) -> LedgerWriter | None:
    """The ledger that an output's writer keeps; None where it keeps none."""
    if isinstance(write, InTurn):
        return ledger_of(write.to_topic)
    return write if isinstance(write, LedgerWriter) else None


def _held(spark: SparkSession, folder: str) -> Held:
    query_id, last = checkpoint.query_id(spark, folder), checkpoint.last_commit(spark, folder)
    done = checkpoint.entry(spark, folder, last) if last is not None else None
    begun = checkpoint.entry(spark, folder, last + 1 if last is not None else 0)
    at = BatchId(query_id, last, offsets_hash(done)) if query_id and last is not None and done else None
    return Held(query_id, at, offsets_hash(begun) if begun else None, checkpoint.is_damaged(spark, folder))
