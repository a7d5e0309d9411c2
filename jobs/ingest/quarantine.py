"""Makes the envelopes that keep rejected records as they came, and checks the limits past which a job stops."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce

from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.rules import Rule
from conf.settings import Quarantine
from jobs.connectors.avro import decode
from jobs.connectors.kafka import source_sink
from jobs.pipeline import rules, tombstones, validation

VERDICT_CHANGED = "VERDICT_CHANGED"
NOT_JSON, NOT_ECS = "NOT_JSON", "NOT_ECS"  # of log lines
REASONS = {
    decode.NO_VALUE: "the record has no value, and the topic is not a compacted one, where that would delete the key",
    tombstones.BAD_KEY: "the record deletes a key, and its own is not the text that a value of the key field has",
    decode.BAD_FRAMING: "the value does not begin with a zero byte and a schema id",
    decode.UNKNOWN_SCHEMA_ID: "no schema with this id is registered for the topic",
    validation.NOT_AVRO: "the schema with this id is registered for the topic, and is no Avro: PROTOBUF, JSON or such",
    decode.UNDECODABLE: "the bytes after the schema id are not one whole event of that schema",
    NOT_JSON: "the value is no JSON object",
    NOT_ECS: "the JSON object lacks @timestamp, log.level or message, or its @timestamp is no time",
    rules.NO_EVENT_TIME: "the field that conf/topics.toml declares as `event_time` is null",
    rules.FUTURE_EVENT_TIME: "the event time is further in the future than quarantine.max_ahead allows",
    VERDICT_CHANGED: "rejected before a crash by other code, schemas or rules, and accepted by today's",
}


def envelope(rejected: DataFrame, by_rules: Sequence[Rule], code_version: str, at: datetime) -> DataFrame:
    """Return one row per rejected record.

    Args:
        rejected: Kafka's columns, `schema_id` int, `error` string and `rule` string; a null `error` is VERDICT_CHANGED.
        by_rules: the topic's rules, for their text.

    Returns:
        Kafka's eight columns, `schema_id` int, `error` string (code), `rule` string (null, but for RULE_FAILED),
        `reason` string (for people), `code_version` string, `quarantined_at` timestamp.
    """
    error = F.coalesce("error", F.lit(VERDICT_CHANGED))
    texts = [F.when(error == code, text) for code, text in REASONS.items()]
    broken = [F.when(F.col("rule") == rule.name, f"rule {rule.name}: {rule}") for rule in by_rules]
    return rejected.select(
        *source_sink.COLUMNS,
        "schema_id",
        error.alias("error"),
        "rule",
        F.coalesce(*texts, *broken).alias("reason"),
        F.lit(code_version).alias("code_version"),
        F.lit(at).alias("quarantined_at"),
    )


@dataclass(frozen=True)
class BatchRejects:
    """The rejects of a micro-batch of one topic, among its records and after those before it.

    Args:
        rejects: those of `records` (both have Kafka's columns) that are invalid today, with `error` and `rule`.
        bronze, quarantined: the tables, for what came before; the second may hold other topics.
        starts: the batch's first offset in each partition.
    """

    topic: str
    records: DataFrame
    count: int
    rejects: DataFrame
    rejected: int
    bronze: DataFrame
    quarantined: DataFrame
    starts: Mapping[int, int]


def require_within(limits: Quarantine, batch: BatchRejects) -> None:
    """Stop where too many records of a batch, or too many in a row, were rejected; raises TidemarkError REJECT_LIMIT,
    with the topic, the counts, the most frequent code and where it was found."""
    of_batch = f"{batch.rejected:,} of the {batch.count:,} records of a batch were rejected"
    if batch.count >= limits.min_records and batch.rejected > limits.max_ratio * batch.count:
        raise _exceeded(batch, of_batch, f"max_ratio = {limits.max_ratio}")
    run = _longest_run(batch, limits.max_consecutive) if limits.max_consecutive else None
    if run is not None and run.length > limits.max_consecutive:
        place = f"partition {run.partition}, offsets {run['first']} to {run['last']}"
        in_a_row = f"{run.length:,} records in a row were rejected ({place})"
        raise _exceeded(batch, in_a_row, f"max_consecutive = {limits.max_consecutive}")


def _exceeded(batch: BatchRejects, what: str, limit: str) -> TidemarkError:
    (top,) = summary(batch.rejects).collect()
    code = f"{top.error} (rule {top.rule})" if top.rule else str(top.error)
    example = f"{top['count']:,} of the batch for {code}, as at partition {top.partition}, offset {top.offset}"
    message = f"topic {batch.topic}: {what}, more than quarantine.{limit} allows: {example}"
    cause = "all of them are kept in the table quarantine, mend the producer, schema or rule and start again"
    raised = f"or raise the limit, --set quarantine.{limit.partition(' ')[0]}=..."
    return TidemarkError("REJECT_LIMIT", message, f"{cause}, {raised}")


def _longest_run(batch: BatchRejects, limit: int) -> Row | None:
    before = _just_before(batch.starts, 2 * limit)
    earlier = batch.quarantined.where((F.col("topic") == batch.topic) & before)
    # A run is no longer than the rejects there are: with few of them the batch need not be sorted.
    if batch.rejected + earlier.count() <= limit:
        return None
    now = _marked(batch.records, batch.rejects).withColumn("in_batch", F.lit(True))
    then = _marked(batch.bronze.where(before), earlier).withColumn("in_batch", F.lit(False))
    return longest_run(now.union(then)).first()


def _just_before(starts: Mapping[int, int], reach: int) -> Column:
    # Twice as far as the limit, in offsets: every second one may be a transaction's marker, which is no record.
    offset, partition = F.col("offset"), F.col("partition")
    sides = ((partition == number) & (offset >= start - reach) & (offset < start) for number, start in starts.items())
    return reduce(Column.__or__, sides, F.lit(False))


def _marked(records: DataFrame, rejects: DataFrame) -> DataFrame:
    places = ["partition", "offset"]
    bad = rejects.select(*places, F.lit(True).alias("rejected"))
    joined = records.select(*places).join(bad, places, "left")
    return joined.select(*places, F.coalesce("rejected", F.lit(False)).alias("rejected"))


def longest_run(records: DataFrame) -> DataFrame:
    """Return the longest run of rejects that reaches into the batch, in one row; none where no reject is in the batch.

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
    """Return the most frequent `error` and `rule` of rejected rows, with `count` long, `partition`, `offset`."""
    kinds = rejected.groupBy("error", "rule").agg(
        F.count("*").alias("count"), F.min(F.struct("partition", "offset")).alias("place")
    )
    return kinds.orderBy(F.desc("count"), "error", "rule").limit(1).select("error", "rule", "count", "place.*")
