"""Publishes a small micro-batch in the driver: plan, records and marker in one transaction, and no task for shards.

Its plan says "whole": one shard has all records. An attempt that takes such a plan over knows that the shard is done,
since both were committed together. The writer is the one of plans, which each batch fences first. No shard's writer of
another attempt can be at work: otherwise a sharded plan would be in the ledger, and we would follow that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from jobs.connectors.exactly_once.markers import DONE, PLAN, Done, Plan
from jobs.connectors.exactly_once.shards import ShardResult, ShardTask, cut_frame, send
from jobs.connectors.exactly_once.transaction import Writer, beginning

MOST_BYTES = 16 << 20
# For the first batch of a run only its number of records is known, and each may be as large as topics take.
FIRST_RECORDS = 100
# For a batch behind a shuffle only the number of records of the one before is known: it may have several times more.
MARGIN = 4


@dataclass(frozen=True)
class Published:
    """The batch before: `read` records of the source (None behind a shuffle), `n` published, of `size` bytes."""

    read: int | None
    n: int
    size: int


def is_small(read: int | None, before: Published | None, most: int) -> bool:
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


def collected(frame: DataFrame, order_by: str | None) -> list[pa.RecordBatch] | None:
    """Return the rows of a batch as `shards.cut_frame` gives them;
    None where Spark could not bring them to the driver."""
    # Only where rows have to be sorted must they be in one partition; else each has its order already.
    rows = cut_frame(frame, "whole" if order_by else "source", 1, order_by)
    try:
        return list(rows.toArrow().to_batches())
    except PySparkException:
        # They are more than spark.driver.maxResultSize; the shards will report any other cause.
        return None


def publish_whole(
    writer: Writer,
    partition: int,
    task: ShardTask,
    rows: Callable[[], Sequence[pa.RecordBatch] | None],
    due: Callable[[Plan | None], Plan | None],
) -> ShardResult | None:
    """Publish `rows` and commit the plan with them; None, and nothing is published, where the batch needs shards.

    Args:
        writer: the one of plans.
        partition: of the ledger, for the shard's marker.
        rows: computes them, while the transaction begins.
        due: the plan to commit, by the last one in the ledger; None where that one is of the same batch.

    Raises:
        TidemarkError: KAFKA_FAILED, FENCED: the attempt failed, and left nothing behind; and what `due` raises.
    """
    with beginning(writer) as begun:
        batches = rows()
        transaction, last = begun.result()
        plan = due(last if isinstance(last, Plan) else None)
        if plan is None or batches is None:
            return None

        def commit(done: Done) -> None:
            transaction.mark(done.to_json(), DONE, partition)
            transaction.commit(plan.to_json(), PLAN)

        return send(task, 0, transaction, batches, commit)
