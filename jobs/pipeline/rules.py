"""Makes conditions of data rules: on an event's fields, and by comparison with tables or earlier records.

`jobs.pipeline.validation` decides what becomes of a record that fails one.
"""

import struct
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import cache, reduce
from typing import NamedTuple, assert_never, cast

from pyspark.errors import IllegalArgumentException
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import (
    DataType,
    DecimalType,
    DoubleType,
    FloatType,
    NumericType,
    StringType,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from conf import setting_types
from conf.errors import TidemarkError, nearest
from conf.rules import Freshness, Pattern, Range, Reference, Required, Rule, Stateless, Unique, fields_of
from jobs.connectors.spark_internals import jvm

RULE_FAILED = "RULE_FAILED"
FUTURE_EVENT_TIME, NO_EVENT_TIME = "FUTURE_EVENT_TIME", "NO_EVENT_TIME"
FAILED = "failed_"  # begins the name of a rule's column
DIGITS = 38  # of a number that SQL compares exactly
EXACT_DIGITS = 400  # any double has fewer before the point of a decimal's
LOG_APPEND_TIME = 1  # Kafka's timestampType of a record that the broker stamped


class Kinds(NamedTuple):
    """The types of fields that a kind of rule works on, and what people call them."""

    name: str
    types: tuple[type[DataType], ...]


ANY = Kinds("any type", (DataType,))
COMPARABLE = Kinds("anything but a map", (DataType,))
NUMBER = Kinds("a number", (NumericType,))
TEXT = Kinds("a string", (StringType,))
TIME = Kinds("a timestamp", (TimestampType, TimestampNTZType))
FIELDS_OF: dict[type, Kinds] = {
    **{Range: NUMBER, Pattern: TEXT, Freshness: TIME},
    **{Reference: COMPARABLE, Unique: COMPARABLE},
}


def counts(names: Sequence[str]) -> dict[str, Column]:
    """Return how many rows fail each rule of `names`, as aggregates of validated records by column name."""
    return {f"{FAILED}{name}": F.count_if(F.col(f"{FAILED}{name}")) for name in names}


def stateless(rules: Sequence[Rule]) -> list[Stateless]:
    """Return the rules that look at nothing but the record: they hold in every job, the others in `ingest` only."""
    return [rule for rule in rules if not isinstance(rule, Reference | Unique)]


def failures(rules: Sequence[Stateless], event: DataType) -> dict[str, Column]:
    """Return whether each of `rules` fails, on `event`, of that type, and `timestamp` of `avro.decode`'s result."""
    return {rule.name: ~F.expr(holds(rule, event, "event")) for rule in rules}


def holds(rule: Stateless, event: DataType, within: str = "") -> str:
    """Return SQL that is true where `rule` holds for an event: its columns, or fields of the struct `within`."""
    field = ".".join(f"`{part}`" for part in [*([within] if within else []), *rule.field.split(".")])
    if isinstance(rule, Required):
        return f"{field} IS NOT NULL"
    if isinstance(rule, Range):
        condition = _within_bounds(field, field_type(event, rule.field), rule)
    elif isinstance(rule, Pattern):
        quoted = rule.pattern.replace("\\", "\\\\").replace("'", "\\'")
        condition = f"{field} RLIKE '\\\\A(?:{quoted})\\\\z'"
        if rule.longest is not None:
            condition = f"char_length({field}) <= {rule.longest} AND {condition}"
    elif isinstance(rule, Freshness):
        condition = f"{field} >= `timestamp` - INTERVAL {rule.max_age}"
    else:
        assert_never(rule)
    return f"({field} IS NULL OR ({condition}))"


def _within_bounds(field: str, kind: DataType, rule: Range) -> str:
    sides = ((">=", rule.min), ("<=", rule.max))
    conditions = [f"{field} {side} {_bound(bound, kind, side)}" for side, bound in sides if bound is not None]
    # For Spark NaN is above all numbers.
    if isinstance(kind, FloatType | DoubleType) and rule.max is None:
        conditions.append(f"NOT isnan({field})")
    return " AND ".join(conditions)


def _bound(bound: int | float, kind: DataType, side: str) -> str:
    """Return a bound as SQL takes it for just that number; for a float, for the float that is nearest; for a decimal,
    for the first or last one within the bound.
    """
    number = Decimal(str(bound))
    if isinstance(kind, DecimalType) and -int(number.as_tuple().exponent) > kind.scale:
        # Compared with more digits behind the point, a decimal has fewer before it: a long one would overflow.
        rounding = ROUND_CEILING if side == ">=" else ROUND_FLOOR
        number = number.quantize(Decimal(1).scaleb(-kind.scale), rounding, Context(prec=EXACT_DIGITS)) or Decimal(0)
    text = f"{number:f}"
    if len(text.strip("-").replace(".", "")) > DIGITS:
        return repr(float(bound))
    is_cast = isinstance(kind, FloatType) and struct.unpack("f", struct.pack("f", bound))[0] != bound
    return f"CAST({text} AS FLOAT)" if is_cast else text


def field_type(event: DataType, path: str) -> DataType:
    """Return the type of the field at a dotted `path` of an event."""
    for part in path.split("."):
        event = cast(StructType, event)[part].dataType
    return event


def event_time_error(event_time: str, clock: Column, max_ahead: str) -> Column:
    """Return what is wrong with the field `event_time` of `event`, string: NO_EVENT_TIME, where it is null, which is in
    no window and which a watermark does not drop either; FUTURE_EVENT_TIME, where it is more than `max_ahead` past
    `clock`; or null.

    Where the broker stamps a topic's records, that stamp is the clock: it stays the same however often they are read.
    """
    time = F.col("event").getField(event_time)
    stamped = F.when(F.col("timestampType") == LOG_APPEND_TIME, F.col("timestamp")).otherwise(clock)
    is_ahead = time > stamped + F.expr(f"INTERVAL {max_ahead}")
    # A tombstone is no event.
    is_missing = F.col("event").isNotNull() & time.isNull()
    return F.when(is_missing, NO_EVENT_TIME).when(is_ahead, FUTURE_EVENT_TIME)


def require_fields(topic: str, rules: Sequence[Rule], event_time: str | None, event: DataType) -> None:
    """Check that every rule's fields are there and of a type that it works on; raises TidemarkError BAD_RULES, with the
    rule, the field, and the nearest name or the type."""
    for rule in rules:
        if isinstance(rule, Pattern):
            _require_pattern(topic, rule)
    for rule in rules:
        for field in fields_of(rule):
            _require(f"rule `{rule.name}` of topic {topic}", field, event, FIELDS_OF.get(type(rule), ANY))
        if isinstance(rule, Unique) and event_time is None:
            what = f"rule `{rule.name}` of topic {topic} asks for event time, and the topic declares none"
            raise TidemarkError("BAD_RULES", what, "declare event_time in conf/topics.toml")
    if event_time is not None:
        _require(f"event_time of topic {topic} in conf/topics.toml", event_time, event, TIME)


@cache
def _require_pattern(topic: str, rule: Pattern) -> None:
    spark = SparkSession.active()
    try:
        # Compile the pattern by itself and as it is used: `a)|(b` is none, and a comment may hide what follows it.
        for pattern in (rule.pattern, f"\\A(?:{rule.pattern})\\z"):
            jvm(spark).java.util.regex.Pattern.compile(pattern)
    except IllegalArgumentException as exc:
        problem = str(exc).splitlines()[0]
        what = f"rule `{rule.name}` of topic {topic} has a pattern that is no regular expression of Java: {problem}"
        raise TidemarkError("BAD_RULES", what, "mend it in conf/rules.toml") from exc


def _require(who: str, path: str, event: DataType, kinds: Kinds) -> None:
    kind = event
    for part in path.split("."):
        names = kind.fieldNames() if isinstance(kind, StructType) else []
        if part not in names:
            remedy = nearest(part, names) if names else "a dot leads into a record only"
            raise TidemarkError("BAD_RULES", f"{who} asks for field {path}, and there is no `{part}`", remedy)
        kind = cast(StructType, kind)[part].dataType
    if kinds is COMPARABLE and "map<" in kind.simpleString():
        raise TidemarkError("BAD_RULES", f"{who} compares {path}, a map, and maps have no equals", "name another field")
    if not isinstance(kind, kinds.types):
        what = f"{who} asks for {kinds.name}, and {path} is {kind.simpleString()}"
        raise TidemarkError("BAD_RULES", what, "name another field")


MARK = "looked_up"


def with_reference(validated: DataFrame, rule: Reference, values: DataFrame) -> DataFrame:
    """Return `validated` with the boolean column MARK, true where the rule's field has none of `values`;
    null: no field.

    Args:
        values: the column `value`, in any order, repeats and nulls as they come.
    """
    field = field_of_event(rule.field)
    known = values.where(F.col("value").isNotNull()).distinct().select(F.col("value").alias("known_value"))
    joined = validated.join(known, field == F.col("known_value"), "left")
    absent = F.when(field.isNotNull(), F.col("known_value").isNull())
    return joined.withColumn(MARK, absent).drop("known_value")


def with_repeats(validated: DataFrame, rule: Unique, event_time: str, earlier: DataFrame | None) -> DataFrame:
    """Return `validated` with the boolean column MARK, true where an earlier good record has the same fields and an
    event time at most `within` away; earlier in its partition, or in one of a lower number.

    Args:
        earlier: `repeated` struct (the rule's fields) and `at_ms` long of events before this batch; None for none.
    """
    fields, at = [field_of_event(name) for name in rule.fields], field_of_event(event_time)
    comparable = reduce(Column.__and__, (field.isNotNull() for field in [*fields, at]), F.col("error").isNull())
    derived = {
        "repeated": F.when(comparable, repeated(fields)),
        "at_ms": F.unix_millis(at.cast("timestamp")),
        "place": F.struct("partition", "offset"),
    }
    rows = validated.withColumns(derived)
    if earlier is not None:
        before = earlier.withColumn(
            "place", F.struct(F.lit(-1).alias("partition"), F.lit(-1).cast("long").alias("offset"))
        )
        rows = rows.unionByName(before, allowMissingColumns=True)
    reach = setting_types.milliseconds(rule.within)
    # A row that is compared with nothing has its own window: in one window for all, each would look at every other.
    alone = F.when(F.col("repeated").isNull(), F.col("place"))
    near = Window.partitionBy("repeated", alone).orderBy("at_ms").rangeBetween(-reach, reach)
    marked = rows.withColumn(MARK, F.min("place").over(near) < F.col("place"))
    return marked.where("place.offset >= 0").drop(*derived)


def repeated(fields: Sequence[Column]) -> Column:
    """Return the value that two events have in common where they are repeats, as `with_repeats` compares it."""
    return F.struct(*(field.alias(f"field_{number}") for number, field in enumerate(fields)))


def before_batch(
    silver: DataFrame, rule: Unique, event_time: str, starts: Mapping[int, int], between: tuple[int, int]
) -> DataFrame:
    """Return the `earlier` of `with_repeats`: what `silver` holds of before the batch, within reach of its event times.

    Args:
        starts: the batch's first offset in each partition; rows of other partitions do not count as before.
        between: the batch's first and last event time, in milliseconds since 1970-01-01T00:00Z.
    """
    reach = setting_types.milliseconds(rule.within)
    first, last = F.timestamp_millis(F.lit(between[0] - reach)), F.timestamp_millis(F.lit(between[1] + reach))
    near = F.col(event_time).between(first, last)
    sides = ((F.col("_partition") == number) & (F.col("_offset") < start) for number, start in starts.items())
    older = reduce(Column.__or__, sides, F.lit(False))
    fields = [F.col(name) for name in rule.fields]
    return silver.where(near & older).select(
        repeated(fields).alias("repeated"), F.unix_millis(F.col(event_time).cast("timestamp")).alias("at_ms")
    )


def field_of_event(path: str) -> Column:
    """Return the field at a dotted `path` of the struct `event`."""
    column = F.col("event")
    for part in path.split("."):
        column = column.getField(part)
    return column
