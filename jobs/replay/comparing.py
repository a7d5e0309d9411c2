"""Are two tables the same in the rows of a range? If not: which keys differ, in what, and why, where that is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

SHOWN = 20  # differences that are listed; all are counted
NEAR = 1e-9  # sums of floating-point numbers depend on the order of their terms
Fingerprint = tuple[int, int]


@dataclass(frozen=True)
class Difference:
    """A row that is not the same on both sides; `left` or `right` is None where the side has no such row.

    Args:
        key: the key's columns; of a table without keys, the whole row.
        cause: why, where it is known; empty otherwise.
    """

    key: Mapping[str, Any]
    left: Mapping[str, Any] | None
    right: Mapping[str, Any] | None
    cause: str = ""


def fingerprint(frame: DataFrame) -> Fingerprint:
    """How many rows, and a sum of their hashes modulo 2^64, which does not depend on their order."""
    columns = [F.col(f"`{name}`") for name in sorted(frame.columns)]
    hashes = F.sum(F.xxhash64(*columns).cast("decimal(38, 0)"))
    row = frame.agg(F.count("*").alias("rows"), hashes.alias("hash")).first()
    return (int(row["rows"]), int(row["hash"] or 0) % 2**64) if row else (0, 0)


def differences(left: DataFrame, right: DataFrame, keys: Sequence[str]) -> DataFrame:
    """The rows that differ: `left` and `right` struct (null where a side has no such row), both in the same columns.

    With `keys`, rows are paired by them; numbers that differ by a billionth of themselves are the same. Without, equal
    rows are taken off each other, one for one.
    """
    if not keys:
        return _unpaired(left, right)
    rows = (frame.select(F.struct("*").alias(side)) for side, frame in (("left", left), ("right", right)))
    ours, theirs = rows
    same_key = reduce(and_, (F.col(f"left.`{key}`").eqNullSafe(F.col(f"right.`{key}`")) for key in keys))
    paired = ours.join(theirs, same_key, "full_outer")
    equal = reduce(and_, (_equal(frame_field.name, frame_field.dataType.typeName()) for frame_field in left.schema))
    both = F.col("left").isNotNull() & F.col("right").isNotNull()
    return paired.where(~(both & equal))


def _equal(name: str, kind: str) -> Column:
    one, other = F.col(f"left.`{name}`"), F.col(f"right.`{name}`")
    if kind not in ("double", "float"):
        return one.eqNullSafe(other)
    near = F.abs(one - other) <= NEAR * F.greatest(F.abs(one), F.abs(other))
    return one.eqNullSafe(other) | F.coalesce(near, F.lit(False))


def _unpaired(left: DataFrame, right: DataFrame) -> DataFrame:
    columns = left.columns
    struct = F.struct(*(F.col(f"`{name}`") for name in columns))
    ours = left.exceptAll(right.select(*left.columns)).select(struct.alias("left"))
    theirs = right.select(*left.columns).exceptAll(left).select(struct.alias("right"))
    return ours.unionByName(theirs, allowMissingColumns=True).select("left", "right")


def explained(differing: DataFrame, late: DataFrame | None, event_time: str | None, back_s: float) -> DataFrame:
    """`differing` with a column `cause` string: how many late rows fall into the row's window; null for no cause.

    Args:
        late: of the query, column `event_time` timestamp; None where no row was late.
        event_time: the column that tells where a window begins; `back_s`: how long it is.
    """
    if late is None or event_time is None:
        return differing.withColumn("cause", F.lit(None).cast("string"))
    began = F.coalesce(F.col(f"left.`{event_time}`"), F.col(f"right.`{event_time}`")).cast("timestamp")
    spans = differing.withColumn("began", began)
    ends = F.col("began") + F.make_dt_interval(secs=F.lit(back_s))
    in_window = (F.col("late_at") >= F.col("began")) & (F.col("late_at") <= ends)
    rows = late.select(F.col("event_time").alias("late_at"))
    counts = (
        spans.select("began").distinct().join(rows, in_window).groupBy("began").agg(F.count("*").alias("late_rows"))
    )
    cause = F.when(F.col("late_rows") > 0, F.format_string("%d rows were late for the live job", F.col("late_rows")))
    return spans.join(counts, "began", "left").select("left", "right", cause.alias("cause"))


def listed(differing: DataFrame, keys: Sequence[str]) -> list[Difference]:
    """The first SHOWN of `explained`'s rows."""
    found = []
    for row in differing.limit(SHOWN).collect():
        left, right = (row[side].asDict() if row[side] is not None else None for side in ("left", "right"))
        either = left or right or {}
        key = {name: either[name] for name in keys} if keys else either
        found.append(Difference(key, left, right, row["cause"] or ""))
    return found
