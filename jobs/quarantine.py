"""The envelope in which a rejected record is kept: the record as it came, where it lay, and why it was rejected.

Of every batch the accepted rows and the rejected ones are exactly its records, however often it is run again: once the
table silver holds a batch, what it lacks of it is what was rejected, whatever today's code, schemas and rules say.
"""

from collections.abc import Sequence
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.rules import Rule
from jobs import rules
from jobs.connectors import avro, kafka

VERDICT_CHANGED = "VERDICT_CHANGED"
REASONS = {
    avro.NO_VALUE: "the record has no value, and the topic is not a compacted one, where that would delete the key",
    avro.BAD_FRAMING: "the value does not begin with a zero byte and a schema id",
    avro.UNKNOWN_SCHEMA_ID: "no schema with this id is registered for the topic",
    avro.UNDECODABLE: "the bytes after the schema id are not one whole event of that schema",
    rules.FUTURE_EVENT_TIME: "the event time is further in the future than quarantine.max_ahead allows",
    VERDICT_CHANGED: "rejected before a crash by other code, schemas or rules, and accepted by today's",
}


def envelope(rejected: DataFrame, judged_by: Sequence[Rule], code_version: str, at: datetime) -> DataFrame:
    """One row per rejected record.

    Args:
        rejected: Kafka's columns, `schema_id` int, `error` string and `rule` string; a null `error` is VERDICT_CHANGED.
        judged_by: the topic's rules, for their text.

    Returns:
        Kafka's eight columns, `schema_id` int, `error` string (code), `rule` string (null, but for RULE_FAILED),
        `reason` string (for people), `code_version` string, `quarantined_at` timestamp.
    """
    error = F.coalesce("error", F.lit(VERDICT_CHANGED))
    texts = [F.when(error == code, text) for code, text in REASONS.items()]
    broken = [F.when(F.col("rule") == rule.name, f"rule {rule.name}: {rule}") for rule in judged_by]
    return rejected.select(
        *kafka.COLUMNS,
        "schema_id",
        error.alias("error"),
        "rule",
        F.coalesce(*texts, *broken).alias("reason"),
        F.lit(code_version).alias("code_version"),
        F.lit(at).alias("quarantined_at"),
    )


def left_out(judged: DataFrame, silver: DataFrame) -> DataFrame:
    """The rows of a batch that `silver` does not hold: `_partition` int, `_offset` long of its rows are compared."""
    held = silver.select("_partition", "_offset")
    same = (F.col("partition") == F.col("_partition")) & (F.col("offset") == F.col("_offset"))
    return judged.join(held, same, "left_anti")


def left_out_by_key(judged: DataFrame, silver: DataFrame, key: str, bad: Column) -> DataFrame:
    """`left_out` of a compacted topic, where silver holds the newest row of each `key` only.

    An accepted record leaves its row or a later one: without either it was rejected. With a later one nobody can tell,
    and it does not matter, but to the count: there today's verdict decides.

    Args:
        judged: the rows of a batch, among their columns `own_key` string, as silver holds the key in `key`.
        bad: where today's verdict rejects the record.
    """
    newest = silver.select(F.col(key).alias("newest_key"), F.col("_offset").alias("newest_offset"))
    joined = left_out(judged, silver).join(newest, F.col("own_key") == F.col("newest_key"), "left")
    accepted = F.coalesce(F.col("newest_offset") > F.col("offset"), F.lit(False)) & ~bad
    return joined.where(~accepted).drop("newest_key", "newest_offset", "own_key")
