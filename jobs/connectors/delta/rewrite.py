"""Merges rows into a Delta table by writing the table anew: for columns that MERGE cannot tell from its own."""

from collections.abc import Iterable, Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructField, StructType

from jobs.connectors.spark_internals import MERGE_COLUMNS

CAME = "tidemark_came"


def needs_rewrite(columns: Iterable[str]) -> bool:
    """Return whether MERGE fails where its target or its source has these columns."""
    return not MERGE_COLUMNS.isdisjoint(name.lower() for name in columns)


def merged(held: DataFrame, rows: DataFrame, keys: Sequence[str], not_older: str | None) -> DataFrame:
    """Return all rows of the table `held` as MERGE would leave them, `rows` merged by `keys`.

    Args:
        rows: each key once; a column that they lack keeps its value in the table.
        not_older: SQL over `s`, a row that came, and `t`, the table's of the same key: whether it takes its place.
    """
    columns = joined_types(held.schema, rows.schema)
    sides = (_conformed(side, columns).withColumn(CAME, F.lit(came)) for came, side in enumerate((held, rows)))
    both = reduce(DataFrame.unionByName, sides)
    names = [name for name in both.columns if name != CAME]
    row = F.struct(*(F.col(f"`{name}`") for name in names))
    # Where only one side has the key, it is both `s` and `t`; a key may be called so, too.
    named = (F.col(f"`{key}`").alias(f"{CAME}_{number}") for number, key in enumerate(keys))
    pairs = both.groupBy(*named).agg(F.max_by(row, CAME).alias("s"), F.min_by(row, CAME).alias("t"))
    given = {name.lower() for name in rows.columns}
    takes = F.expr(not_older) if not_older else F.lit(True)

    def value(name: str) -> Column:
        kept = F.col(f"t.`{name}`")
        return F.when(takes, F.col(f"s.`{name}`")).otherwise(kept) if name.lower() in given else kept

    return pairs.select(*(value(name).alias(name) for name in names))


def joined_types(old: DataType, new: DataType) -> DataType:
    """Return the type that holds the values of both: with the fields of both, and of each the wider type `new`."""
    if isinstance(old, StructType) and isinstance(new, StructType):
        came = {field.name.lower(): field.dataType for field in new.fields}
        kept = [(field.name, field.dataType, came.pop(field.name.lower(), None)) for field in old.fields]
        fields = [StructField(name, joined_types(kind, other) if other else kind) for name, kind, other in kept]
        return StructType([*fields, *(field for field in new.fields if field.name.lower() in came)])
    if isinstance(old, ArrayType) and isinstance(new, ArrayType):
        return ArrayType(joined_types(old.elementType, new.elementType))
    if isinstance(old, MapType) and isinstance(new, MapType):
        return MapType(joined_types(old.keyType, new.keyType), joined_types(old.valueType, new.valueType))
    return new


def _conformed(frame: DataFrame, columns: DataType) -> DataFrame:
    row = _as(F.struct(*(F.col(f"`{name}`") for name in frame.columns)), frame.schema, columns)
    return frame.select(row.alias("row")).select("row.*")


def _as(value: Column, old: DataType, new: DataType) -> Column:
    """Return `value` of type `old` as one of `new`, fields by their names, null where it lacks one.

    A union of frames does the same for records and arrays of them, but not for maps.
    """
    if isinstance(old, StructType) and isinstance(new, StructType):
        known = {field.name.lower(): field for field in old.fields}
        fields = [(field, known.get(field.name.lower())) for field in new.fields]
        inner = (
            (
                _as(value.getField(held.name), held.dataType, field.dataType)
                if held
                else F.lit(None).cast(field.dataType)
            ).alias(field.name)
            for field, held in fields
        )
        return F.when(value.isNotNull(), F.struct(*inner))
    if isinstance(old, ArrayType) and isinstance(new, ArrayType):
        return F.transform(value, lambda item: _as(item, old.elementType, new.elementType))
    if isinstance(old, MapType) and isinstance(new, MapType):
        return F.transform_values(value, lambda _, item: _as(item, old.valueType, new.valueType))
    return value.cast(new)
