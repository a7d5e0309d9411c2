"""Compares the rows of a range in two tables: which they are, whether they are the same, which keys differ in what."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import and_
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StructField

from conf.settings import Settings
from jobs.connectors.delta import table as delta_table
from jobs.connectors.kafka import source_sink
from jobs.operations.replay.record import Part, Replacement, Replay
from jobs.operations.replay.row_identity import comparable, quoted
from jobs.pipeline import paths
from jobs.pipeline.outputs import RowSelector


def row_selection(replay: Replay, part: Part, replacement: Replacement) -> str:
    """Return the condition, as SQL, that selects the rows of a table that a replay replaces;
    `true` for all of its rows."""
    rows = replacement.rows
    if rows.coordinates:
        return _of_records(replay, part, rows)
    if rows.event_time is None:
        return "true"
    everything = f"(`{rows.event_time}` IS NOT NULL OR `{rows.event_time}` IS NULL)"
    return _between(rows.event_time, replacement.start, replacement.until) or everything


def _between(column: str, start: datetime | None, until: datetime | None) -> str:
    edges = ((">=", start), ("<", until))
    return " AND ".join(f"`{column}` {sign} TIMESTAMP '{edge.isoformat(sep=' ')}'" for sign, edge in edges if edge)


def read_records(spark: SparkSession, root: str, part: Part) -> DataFrame | None:
    """Return the records for the topic of `part` that the replay makes anew, from the table under `root`;
    None for no table.

    Records without an event time are always among them.
    """
    records = read_rows(spark, paths.table(root, str(part.topic)), "true")
    span = _between(source_sink.TIMESTAMP, part.sends_since, part.sends_until)
    if records is None or not span or source_sink.TIMESTAMP not in records.columns:
        return records
    return records.where(f"`{source_sink.TIMESTAMP}` IS NULL OR ({span})")


def _of_records(replay: Replay, part: Part, rows: RowSelector) -> str:
    topic, partition, offset = (f"`{name}`" for name in rows.coordinates or ())
    spans = (
        f"({topic} = '{name}' AND {partition} = {number} AND {offset} >= {start}"
        f" AND {offset} < {replay.untils[name][number]})"
        for name in part.topics
        for number, start in replay.starts[name].items()
    )
    return " OR ".join(spans)


def live_path(settings: Settings, table: str) -> str:
    """Return the path of the table that readers know."""
    return paths.table(settings.paths.tables, table)


def read_rows(spark: SparkSession, path: str, where: str, version: int | None = None) -> DataFrame | None:
    """Return the rows of the table at `path` that meet `where`, of a version of it; None where there is no table."""
    if not delta_table.exists(spark, path):
        return None
    reader = spark.read.format("delta")
    return (reader if version is None else reader.option("versionAsOf", version)).load(path).where(where)


SHOWN = 20  # differences that are listed; all are counted
NEAR = 1e-9  # sums of floating-point numbers depend on the order of their terms


@dataclass(frozen=True)
class Difference:
    """A row that is not the same on both sides: `left` or `right` is None where the side has no such row.

    Args:
        key: the key's columns; of a table without keys, the whole row.
        cause: why, where it is known; empty otherwise.
    """

    key: Mapping[str, Any]
    left: Mapping[str, Any] | None
    right: Mapping[str, Any] | None
    cause: str = ""


def differences(left: DataFrame, right: DataFrame, keys: Sequence[str]) -> DataFrame:
    """Return the rows that differ: `left` and `right` struct (null where a side has no such row),
    both in the same columns.

    With `keys`, rows are paired by them, the first with a key with the first, the second with the second; numbers that
    differ by a billionth of themselves are the same. Without, equal rows are taken off each other, one for one.
    """
    if not keys:
        return _unpaired(left, right)
    by = {key.lower() for key in keys}
    as_left, as_right = (_numbered(frame, side, by) for side, frame in (("left", left), ("right", right)))
    in_key = (field for field in left.schema if field.name.lower() in by)
    same_key = reduce(and_, map(_same, in_key), F.col("left_copy") == F.col("right_copy"))
    equal = reduce(and_, map(_equal, left.schema))
    both = F.col("left").isNotNull() & F.col("right").isNotNull()
    paired = as_left.join(as_right, same_key, "full_outer")
    return paired.where(~(both & equal)).select("left", "right")


def _numbered(frame: DataFrame, side: str, keys: Collection[str]) -> DataFrame:
    """Return the rows as structs, and which of those with the same key each is."""
    # Floating-point numbers come last: those that are nearly the same may be in another order on the other side.
    others = sorted((field for field in frame.schema if field.name.lower() not in keys), key=_is_float)
    by_key = Window.partitionBy(*_comparable(field for field in frame.schema if field.name.lower() in keys))
    copy = F.row_number().over(by_key.orderBy(*_comparable(others) or [F.lit(0)]))
    return frame.select(F.struct("*").alias(side), copy.alias(f"{side}_copy"))


def _comparable(fields: Iterable[StructField], of: str = "") -> list[Column]:
    return [comparable(f"{of}{quoted(field.name)}", field.dataType) for field in fields]


def _is_float(field: StructField) -> bool:
    return field.dataType.typeName() in ("double", "float")


def _same(field: StructField) -> Column:
    (one,), (other,) = (_comparable([field], f"{side}.") for side in ("left", "right"))
    return one.eqNullSafe(other)


def _equal(field: StructField) -> Column:
    if not _is_float(field):
        return _same(field)
    one, other = (F.col(f"{side}.{quoted(field.name)}") for side in ("left", "right"))
    size = F.greatest(F.abs(one), F.abs(other))
    # NaN is greater than infinity, and equal to what is computed of it.
    near = (size < float("inf")) & (F.abs(one - other) <= NEAR * size)
    return _same(field) | F.coalesce(near, F.lit(False))


def _unpaired(left: DataFrame, right: DataFrame) -> DataFrame:
    names = [f"c{number}" for number in range(len(left.columns))]
    columns = [column.alias(name) for name, column in zip(names, _comparable(left.schema), strict=True)]
    row = F.struct(*(F.col(quoted(name)) for name in left.columns)).alias("row")
    counted = [frame.select(*columns, row, F.lit(sign).alias("more")) for frame, sign in ((left, 1), (right, -1))]
    rows = counted[0].unionAll(counted[1]).groupBy(*names).agg(F.first("row").alias("row"), F.sum("more").alias("more"))
    sides = ((F.col("more") > 0, "left"), (F.col("more") < 0, "right"))
    only = (F.when(is_more, F.col("row")).alias(side) for is_more, side in sides)
    repeated = F.explode(F.array_repeat(F.lit(0), F.abs("more").cast("int"))).alias("copy")
    return rows.where("more <> 0").select(*only, repeated).select("left", "right")


def with_causes(differing: DataFrame, late: DataFrame | None, event_time: str | None, back_s: float) -> DataFrame:
    """Return `differing` with a column `cause` string: how many late rows fall into the row's window;
    null for no cause.

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


def first_differences(differing: DataFrame, keys: Sequence[str]) -> list[Difference]:
    """Return the first SHOWN rows of what `with_causes` gave."""
    shown = []
    for row in differing.limit(SHOWN).collect():
        left, right = (row[side].asDict() if row[side] is not None else None for side in ("left", "right"))
        either = left or right or {}
        by = {key.lower() for key in keys} or {name.lower() for name in either}
        key = {name: value for name, value in either.items() if name.lower() in by}
        shown.append(Difference(key, left, right, row["cause"] or ""))
    return shown
