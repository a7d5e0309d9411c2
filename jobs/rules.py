"""Data rules as Column expressions in the same pass as the decode: which event fails which rule, and what follows.

A null passes every rule but `required`. Failures are judged of decoded events only.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, NumericType, StringType, StructType, TimestampNTZType, TimestampType

from conf.errors import TidemarkError, nearest
from conf.rules import Freshness, Pattern, Range, Reference, Required, Rule, Stateless, Unique, fields_of

RULE_FAILED = "RULE_FAILED"
FUTURE_EVENT_TIME = "FUTURE_EVENT_TIME"
RULE_STOPPED = "RULE_STOPPED"
FAILED = "failed_"  # begins the name of a rule's column
LOG_APPEND_TIME = 1  # Kafka's timestampType of a record that the broker stamped
REMEDY = "mend the rule in conf/rules.toml, or set its on_failure to quarantine, and start again"


class Kinds(NamedTuple):
    """Types that a rule can judge, and what people call them."""

    name: str
    types: tuple[type[DataType], ...]


ANY = Kinds("any type", (DataType,))
NUMBER = Kinds("a number", (NumericType,))
TEXT = Kinds("a string", (StringType,))
TIME = Kinds("a timestamp", (TimestampType, TimestampNTZType))
Failures = Mapping[str, Column]


def unjudged(decoded: DataFrame) -> DataFrame:
    """`avro.decode`'s result with `rule` string, null: what `judge` takes."""
    return decoded.withColumn("rule", F.lit(None).cast("string"))


def judge(decoded: DataFrame, rules: Sequence[Rule], failures: Failures, ahead: Column | None = None) -> DataFrame:
    """Let each of `rules` have its effect on the rows that have no `error` yet.

    Args:
        decoded: `avro.decode`'s result of Kafka's columns, `unjudged` or judged by other rules.
        failures: where each rule fails, boolean (null: it does not), by the rule's name.
        ahead: where the event time is too far in the future, boolean.

    Returns:
        the same columns with `error` string FUTURE_EVENT_TIME or RULE_FAILED, and then `rule` string, the first that
        failed; and a column FAILED and name, boolean and never null, for each rule, whatever its action. Where a rule
        that stops fails, the evaluation of `error` does: RULE_STOPPED.
    """
    good = F.col("error").isNull()
    columns = {f"{FAILED}{rule.name}": F.coalesce(good & failures[rule.name], F.lit(False)) for rule in rules}
    marked = decoded.withColumns(columns) if columns else decoded
    failed = {rule.name: F.col(f"{FAILED}{rule.name}") for rule in rules}
    error = F.when(~good, F.col("error"))
    for rule in (rule for rule in rules if rule.on_failure == "stop"):
        error = error.when(failed[rule.name], _stopped(rule))
    is_ahead = F.lit(False) if ahead is None else F.coalesce(ahead, F.lit(False))
    error = error.when(is_ahead, FUTURE_EVENT_TIME)
    first = _first([rule for rule in rules if rule.on_failure == "quarantine"], failed)
    if first is None:
        return marked.withColumn("error", error) if rules or ahead is not None else marked
    found = F.when(good & ~is_ahead, first)
    return marked.withColumns({"error": error.when(first.isNotNull(), RULE_FAILED), "rule": F.coalesce("rule", found)})


def _first(rules: Sequence[Rule], failed: Failures) -> Column | None:
    names = [F.when(failed[rule.name], rule.name) for rule in rules]
    return F.coalesce(*names) if names else None


def _stopped(rule: Rule) -> Column:
    place = F.format_string(
        f"{RULE_STOPPED}: rule `{rule.name}` of topic %s fails at partition %d, offset %d: %s; {REMEDY}",
        "topic",
        "partition",
        "offset",
        F.lit(str(rule)),
    )
    return F.raise_error(place).cast("string")


def counts(names: Sequence[str]) -> dict[str, Column]:
    """How many rows fail each rule of `names`, as aggregates of `judge`'s result by column name."""
    return {f"{FAILED}{name}": F.count_if(F.col(f"{FAILED}{name}")) for name in names}


def stateless(rules: Sequence[Rule]) -> list[Stateless]:
    """Those of `rules` that look at nothing but the record: they hold in every job, the others in `ingest`."""
    return [rule for rule in rules if not isinstance(rule, Reference | Unique)]


def failures(rules: Sequence[Stateless]) -> dict[str, Column]:
    """Where each of `rules` fails, on `event` and `timestamp` of `avro.decode`'s result."""
    return {rule.name: ~F.expr(holds(rule, "event")) for rule in rules}


def holds(rule: Stateless, within: str = "") -> str:
    """SQL that is true where `rule` holds for an event whose fields are columns, or fields of the struct `within`."""
    field = ".".join(f"`{part}`" for part in [*([within] if within else []), *rule.field.split(".")])
    if isinstance(rule, Required):
        return f"{field} IS NOT NULL"
    if isinstance(rule, Range):
        sides = ((">=", rule.min), ("<=", rule.max))
        asked = " AND ".join(f"{field} {side} {bound}" for side, bound in sides if bound is not None)
    elif isinstance(rule, Pattern):
        quoted = rule.pattern.replace("\\", "\\\\").replace("'", "\\'")
        asked = f"{field} RLIKE '\\\\A(?:{quoted})\\\\z'"
    else:
        asked = f"{field} >= `timestamp` - INTERVAL {rule.max_age}"
    return f"({field} IS NULL OR ({asked}))"


def ahead(event_time: str, clock: Column, max_ahead: str) -> Column:
    """Where the field `event_time` of `event` is more than `max_ahead` past `clock`.

    Of a topic whose records the broker stamps, that stamp is the clock: it stays the same however often they are read.
    """
    stamped = F.when(F.col("timestampType") == LOG_APPEND_TIME, F.col("timestamp")).otherwise(clock)
    return F.col("event").getField(event_time) > stamped + F.expr(f"INTERVAL {max_ahead}")


def require_fields(topic: str, rules: Sequence[Rule], event_time: str | None, event: DataType) -> None:
    """Check that every rule's fields are there and of a type that it can judge.

    Raises:
        TidemarkError: BAD_RULES, with the rule, the field, and the nearest name or the type.
    """
    for rule in rules:
        for field in fields_of(rule):
            _require(f"rule `{rule.name}` of topic {topic}", field, event, _wanted(rule))
        if isinstance(rule, Unique) and event_time is None:
            what = f"rule `{rule.name}` of topic {topic} asks for event time, and the topic declares none"
            raise TidemarkError("BAD_RULES", what, "declare event_time in conf/topics.toml")
    if event_time is not None:
        _require(f"event_time of topic {topic} in conf/topics.toml", event_time, event, TIME)


def _wanted(rule: Rule) -> Kinds:
    wanted: dict[type, Kinds] = {Range: NUMBER, Pattern: TEXT, Freshness: TIME}
    return wanted.get(type(rule), ANY)


def _require(who: str, path: str, event: DataType, wanted: Kinds) -> None:
    kind = event
    for part in path.split("."):
        names = kind.fieldNames() if isinstance(kind, StructType) else []
        if part not in names:
            remedy = nearest(part, names) if names else "a dot leads into a record only"
            raise TidemarkError("BAD_RULES", f"{who} asks for field {path}, and there is no `{part}`", remedy)
        kind = cast(StructType, kind)[part].dataType
    if not isinstance(kind, wanted.types):
        what = f"{who} asks for {wanted.name}, and {path} is {kind.simpleString()}"
        raise TidemarkError("BAD_RULES", what, "name another field")
