"""Rejecting has a limit: past it the job stops, instead of moving a whole topic into quarantine."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.rules import Quarantine


@dataclass(frozen=True)
class Account:
    """A batch of one topic that is written, as its limits see it.

    Args:
        rejects: those of `records` (both have Kafka's columns) that today's verdict rejects, with `error` and `rule`.
        kept, quarantined: the tables bronze and quarantine, for what came before; the second may hold other topics.
        starts: the batch's first offset in each partition.
    """

    topic: str
    records: DataFrame
    count: int
    rejects: DataFrame
    rejected: int
    kept: DataFrame
    quarantined: DataFrame
    starts: Mapping[int, int]


def require_within(limits: Quarantine, account: Account) -> None:
    """Stop where too many records of a batch, or too many in a row, were rejected.

    Raises:
        TidemarkError: REJECT_LIMIT, with the topic, the counts, the most frequent code and where it was found.
    """
    of_batch = f"{account.rejected:,} of the {account.count:,} records of a batch were rejected"
    if account.count >= limits.min_records and account.rejected > limits.max_ratio * account.count:
        raise _exceeded(account, of_batch, f"max_ratio = {limits.max_ratio}")
    run = _longest_run(account, limits.max_consecutive) if limits.max_consecutive else None
    if run is not None and run.length > limits.max_consecutive:
        place = f"partition {run.partition}, offsets {run['first']} to {run['last']}"
        in_a_row = f"{run.length:,} records in a row were rejected ({place})"
        raise _exceeded(account, in_a_row, f"max_consecutive = {limits.max_consecutive}")


def _exceeded(account: Account, what: str, limit: str) -> TidemarkError:
    (top,) = summary(account.rejects).collect()
    code = f"{top.error} (rule {top.rule})" if top.rule else str(top.error)
    example = f"{top['count']:,} of the batch for {code}, as at partition {top.partition}, offset {top.offset}"
    message = f"topic {account.topic}: {what}, more than quarantine.{limit} allows: {example}"
    cause = "all of them are kept in the table quarantine, mend the producer, schema or rule and start again"
    raised = f"or raise the limit, --set quarantine.{limit.partition(' ')[0]}=..."
    return TidemarkError("REJECT_LIMIT", message, f"{cause}, {raised}")


def _longest_run(account: Account, limit: int) -> Row | None:
    before = _just_before(account.starts, 2 * limit)
    earlier = account.quarantined.where((F.col("topic") == account.topic) & before)
    # A run is no longer than the rejects there are: with few of them the batch need not be sorted.
    if account.rejected + earlier.count() <= limit:
        return None
    now = _marked(account.records, account.rejects).withColumn("in_batch", F.lit(True))
    then = _marked(account.kept.where(before), earlier).withColumn("in_batch", F.lit(False))
    found = longest_run(now.union(then)).collect()
    return found[0] if found else None


def _just_before(starts: Mapping[int, int], reach: int) -> Column:
    # Twice as far as the limit, in offsets: every second one may be a transaction's marker, which is no record.
    offset, partition = F.col("offset"), F.col("partition")
    sides = ((partition == number) & (offset >= start - reach) & (offset < start) for number, start in starts.items())
    return reduce(Column.__or__, sides, F.lit(False))


def _marked(records: DataFrame, rejects: DataFrame) -> DataFrame:
    places = ["partition", "offset"]
    bad = rejects.select(*places, F.lit(True).alias("rejected"))
    return (
        records.select(*places)
        .join(bad, places, "left")
        .select(*places, F.coalesce("rejected", F.lit(False)).alias("rejected"))
    )


def longest_run(records: DataFrame) -> DataFrame:
    """The longest run of rejects that reaches into the batch, in one row; none where no reject is in the batch.

    Args:
        records: `partition` int, `offset` long, `rejected` boolean, `in_batch` boolean: what came just before, too.

    Returns:
        `partition`, `length` long, `first` long and `last` long (offsets).
    """
    # Rejects have the same number as the last accepted record before them.
    so_far = Window.partitionBy("partition").orderBy("offset").rowsBetween(Window.unboundedPreceding, 0)
    numbered = records.withColumn("island", F.count_if(~F.col("rejected")).over(so_far))
    runs = numbered.where("rejected").groupBy("partition", "island")
    measured = runs.agg(
        F.count("*").alias("length"),
        F.min("offset").alias("first"),
        F.max("offset").alias("last"),
        F.bool_or("in_batch").alias("in_batch"),
    )
    longest = measured.where("in_batch").orderBy(F.desc("length"), "partition", "first").limit(1)
    return longest.select("partition", "length", "first", "last")


def summary(rejected: DataFrame) -> DataFrame:
    """The most frequent `error` and `rule` of rejected rows, in one row: with `count` long, `partition`, `offset`."""
    kinds = rejected.groupBy("error", "rule").agg(
        F.count("*").alias("count"), F.min(F.struct("partition", "offset")).alias("place")
    )
    return kinds.orderBy(F.desc("count"), "error", "rule").limit(1).select("error", "rule", "count", "place.*")
