"""Rules that look further than the record: at another table, or at the records before it. They hold in `ingest`.

Both read tables as they were when the batch began, so that all readings of the batch find the same.
"""

from collections.abc import Mapping, Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf import durations
from conf.rules import Reference, Unique

MARK = "looked_up"


def with_reference(judged: DataFrame, rule: Reference, values: DataFrame) -> DataFrame:
    """`judged` with the boolean column MARK, true where the rule's field has none of `values`; null: no field.

    Args:
        values: the column `value`, in any order, repeats and nulls as they come.
    """
    field = field_of_event(rule.field)
    known = values.where(F.col("value").isNotNull()).distinct().select(F.col("value").alias("known_value"))
    joined = judged.join(known, field == F.col("known_value"), "left")
    absent = F.when(field.isNotNull(), F.col("known_value").isNull())
    return joined.withColumn(MARK, absent).drop("known_value")


def with_repeats(judged: DataFrame, rule: Unique, event_time: str, earlier: DataFrame | None) -> DataFrame:
    """`judged` with the boolean column MARK, true where an earlier good record has the same fields and an
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
    rows = judged.withColumns(derived)
    if earlier is not None:
        before = earlier.withColumn(
            "place", F.struct(F.lit(-1).alias("partition"), F.lit(-1).cast("long").alias("offset"))
        )
        rows = rows.unionByName(before, allowMissingColumns=True)
    reach = durations.milliseconds(rule.within)
    # What is compared with nothing has a window of its own: in one for all of it every row would look at every other.
    alone = F.when(F.col("repeated").isNull(), F.col("place"))
    near = Window.partitionBy("repeated", alone).orderBy("at_ms").rangeBetween(-reach, reach)
    marked = rows.withColumn(MARK, F.min("place").over(near) < F.col("place"))
    return marked.where("place.offset >= 0").drop(*derived)


def repeated(fields: Sequence[Column]) -> Column:
    """What two events must have in common to be repeats, as `with_repeats` compares it."""
    return F.struct(*(field.alias(f"field_{number}") for number, field in enumerate(fields)))


def before_batch(
    silver: DataFrame, rule: Unique, event_time: str, starts: Mapping[int, int], between: tuple[int, int]
) -> DataFrame:
    """The `earlier` of `with_repeats`: what `silver` holds of before the batch, within reach of its event times.

    Args:
        starts: the batch's first offset in each partition; the rows of others are none of before.
        between: the batch's first and last event time, in milliseconds since 1970-01-01T00:00Z.
    """
    reach = durations.milliseconds(rule.within)
    first, last = F.timestamp_millis(F.lit(between[0] - reach)), F.timestamp_millis(F.lit(between[1] + reach))
    near = F.col(event_time).between(first, last)
    sides = ((F.col("_partition") == number) & (F.col("_offset") < start) for number, start in starts.items())
    older = reduce(Column.__or__, sides, F.lit(False))
    fields = [F.col(name) for name in rule.fields]
    return silver.where(near & older).select(
        repeated(fields).alias("repeated"), F.unix_millis(F.col(event_time).cast("timestamp")).alias("at_ms")
    )


def field_of_event(path: str) -> Column:
    """The field at a dotted `path` of the struct `event`."""
    column = F.col("event")
    for part in path.split("."):
        column = column.getField(part)
    return column
