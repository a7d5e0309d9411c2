"""Says which rows of two frames are the same, whatever types they have, and which differ in what.

Spark's own hash passes over nulls, knows no shapes, and takes neither maps nor variants: a value that stands in another
column, `[]` and null, `[[x], [y]]` and `[[x, y]]` are the same to it. Here each value that holds others becomes one
number, in which their count, their names and which of them are null have a part; it is said in SQL.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, NullType, StructField, StructType

Fingerprint = tuple[int, int]
SHOWN = 20  # differences that are listed; all are counted
NEAR = 1e-9  # sums of floating-point numbers depend on the order of their terms
HOLDERS = (StructType, ArrayType, MapType)
# A column may be widened between one look at a table and the next, which changes no row.
WIDER = {"byte": "BIGINT", "short": "BIGINT", "integer": "BIGINT", "float": "DOUBLE"}
ORDERLESS = ("map", "variant")  # types that Spark neither compares nor groups by


@dataclass(frozen=True)
class _Value:
    """A value as SQL text, which is short however deep it lies, and its type."""

    sql: str
    kind: DataType
    depth: int = 0

    def field(self, field: StructField) -> "_Value":
        return _Value(f"{self.sql}.{quoted(field.name)}", field.dataType, self.depth)

    def within(self, name: str, kind: DataType) -> "_Value":
        """Return a value that a function of a lambda, whose parameter begins with `name`, is given."""
        return _Value(f"{name}{self.depth}", kind, self.depth + 1)


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

    def line(self) -> str:
        """Return the difference as a line for people."""
        left, right = self.left, self.right
        key = ", ".join(f"{name} {value}" for name, value in self.key.items())
        cause = f"  [{self.cause or 'cause unknown'}]"
        if left is None or right is None:
            return f"{key}: only in {'the replay' if left is None else 'the other'}{cause}"
        changed = (f"{name} {value} -> {right[name]}" for name, value in left.items() if value != right[name])
        return f"{key}: {', '.join(changed)}{cause}"


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
    """Return for each column what is equal exactly where its values are, and can be compared, grouped by and sorted."""
    values = [_Value(f"{of}{quoted(field.name)}", field.dataType) for field in fields]
    return [F.expr(_identity(value) if _is_orderless(value.kind) else value.sql) for value in values]


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


def first_differences(differing: DataFrame, keys: Sequence[str]) -> list[Difference]:
    """Return the first SHOWN of the rows that `differences` gave, with the column `cause` where there is one."""
    shown = []
    for row in differing.limit(SHOWN).collect():
        left, right = (row[side].asDict() if row[side] is not None else None for side in ("left", "right"))
        either = left or right or {}
        by = {key.lower() for key in keys} or {name.lower() for name in either}
        key = {name: value for name, value in either.items() if name.lower() in by}
        shown.append(Difference(key, left, right, row.asDict().get("cause") or ""))
    return shown


def fingerprint(frame: DataFrame) -> Fingerprint:
    """Return how many rows, and a sum of their hashes modulo 2^64, which does not depend on their order."""
    hashes = F.sum(row_hash(frame.schema).cast("decimal(38, 0)"))
    found = frame.agg(F.count("*").alias("rows"), hashes.alias("hash")).first()
    return (int(found["rows"]), int(found["hash"] or 0) % 2**64) if found else (0, 0)


def row_hash(columns: StructType) -> Column:
    """Return the hash of a row: the order of its columns has no part in it, nor have columns that are null, nor how
    many bits an integer or a floating-point number may have."""
    return F.expr(_hash_of_fields([_Value(quoted(field.name), field.dataType) for field in columns], columns.fields))


def align_columns(frame: DataFrame | None, like: DataFrame, without: tuple[str, ...] = ()) -> DataFrame:
    """Return `frame` in the columns and types of `like`, null where it lacks one; no rows where there is no frame."""
    return _in_type(frame, StructType([field for field in like.schema if field.name not in without]), like)


def align_all(frames: Sequence[DataFrame | None], without: tuple[str, ...] = ()) -> list[DataFrame]:
    """Return the frames in the columns that any of them has, at any depth, in the types of the first that has one.

    Raises:
        ValueError: where all of the frames are None.
    """
    present = [frame for frame in frames if frame is not None]
    if not present:
        raise ValueError("there is nothing whose columns could be taken")
    kind: DataType = StructType([])
    for frame in present:
        kind = _joined(kind, StructType([field for field in frame.schema if field.name not in without]))
    return [_in_type(frame, kind, present[0]) for frame in frames]


def _in_type(frame: DataFrame | None, kind: DataType, like: DataFrame) -> DataFrame:
    assert isinstance(kind, StructType)
    if frame is None:
        return like.sparkSession.createDataFrame([], kind)
    has = _by_name(frame.schema)
    texts = [
        _as_type(_Value(quoted(has[field.name.lower()].name), has[field.name.lower()].dataType), field.dataType)
        if field.name.lower() in has
        else "NULL"
        for field in kind
    ]
    return frame.select(
        *(F.expr(text).cast(field.dataType).alias(field.name) for text, field in zip(texts, kind, strict=True))
    )


def _by_name(kind: StructType) -> Mapping[str, StructField]:
    """Return the fields by their names, in which Spark and Delta do not tell letters' cases apart."""
    return {field.name.lower(): field for field in kind}


def _joined(one: DataType, other: DataType) -> DataType:
    """Return a type with the fields of both; what both have is as in `one`."""
    if isinstance(one, StructType) and isinstance(other, StructType):
        mine, theirs = _by_name(one), _by_name(other)
        both = [
            StructField(
                field.name, _joined(field.dataType, theirs[name].dataType) if name in theirs else field.dataType
            )
            for name, field in mine.items()
        ]
        return StructType([*both, *(StructField(theirs[n].name, theirs[n].dataType) for n in theirs if n not in mine)])
    if isinstance(one, ArrayType) and isinstance(other, ArrayType):
        return ArrayType(_joined(one.elementType, other.elementType))
    if isinstance(one, MapType) and isinstance(other, MapType):
        return MapType(one.keyType, _joined(one.valueType, other.valueType))
    return one


def _as_type(value: _Value, kind: DataType) -> str:
    """Return the value with the fields of `kind` in its order, which a cast needs: it takes them by their places."""
    have = value.kind
    if not isinstance(have, HOLDERS) or type(have) is not type(kind) or have == kind:
        return value.sql
    if isinstance(have, StructType) and isinstance(kind, StructType):
        has = _by_name(have)
        parts = (
            f"{_as_type(value.field(has[name]), field.dataType) if name in has else 'NULL'} AS {quoted(field.name)}"
            for name, field in _by_name(kind).items()
        )
        return _unless_null(value.sql, f"struct({', '.join(parts)})")
    if isinstance(have, ArrayType) and isinstance(kind, ArrayType):
        element = value.within("e", have.elementType)
        return f"transform({value.sql}, {element.sql} -> {_as_type(element, kind.elementType)})"
    assert isinstance(have, MapType) and isinstance(kind, MapType)
    held = value.within("v", have.valueType)
    return f"transform_values({value.sql}, (k{value.depth}, {held.sql}) -> {_as_type(held, kind.valueType)})"


def quoted(name: str) -> str:
    """Return the name of a column or a field as SQL has it."""
    return "`{}`".format(name.replace("`", "``"))


def _is_orderless(kind: DataType) -> bool:
    if isinstance(kind, StructType):
        return any(_is_orderless(field.dataType) for field in kind)
    return _is_orderless(kind.elementType) if isinstance(kind, ArrayType) else kind.typeName() in ORDERLESS


def _identity(value: _Value) -> str:
    """Return what is null exactly where the value is, and else equal exactly where it is, up to collisions of hashes:
    a value that holds no others, or a number.

    Of an array in a variant whose elements are of several types it is not seen which of them is of which, where they
    have the same text.
    """
    sql, kind = value.sql, value.kind
    if isinstance(kind, StructType):
        return _unless_null(sql, _hash_of_fields([value.field(field) for field in kind], kind.fields))
    if isinstance(kind, ArrayType):
        element = value.within("e", kind.elementType)
        held = f"transform({sql}, {element.sql} -> {_nullable(element)})"
        return _unless_null(sql, f"xxhash64(size({sql}), {held})")
    if isinstance(kind, MapType):
        entry = value.within("m", StructType().add("key", kind.keyType).add("value", kind.valueType))
        key, held = (_nullable(entry.field(field)) for field in entry.kind)  # type: ignore[attr-defined]
        hashes = f"transform(map_entries({sql}), {entry.sql} -> xxhash64({key}, {held}))"
        return _unless_null(sql, f"xxhash64(size({sql}), sort_array({hashes}))")
    if kind.typeName() == "variant":
        return _unless_null(sql, f"xxhash64(schema_of_variant({sql}), to_json({sql}))")
    wider = WIDER.get(kind.typeName())
    return f"CAST({sql} AS {wider})" if wider else sql


def _nullable(value: _Value) -> str:
    return f"struct({value.sql} IS NULL, {_identity(value)})"


def _unless_null(sql: str, hashed: str) -> str:
    return f"IF({sql} IS NULL, NULL, {hashed})"


def _hash_of_fields(values: Sequence[_Value], fields: Sequence[StructField]) -> str:
    """Return the hash of names and values of those that are not null: the others have no part in it."""
    parts = ["0"]
    for value, field in sorted(zip(values, fields, strict=True), key=lambda pair: pair[1].name):
        if not isinstance(value.kind, NullType):
            parts += [f"IF({value.sql} IS NULL, NULL, X'{field.name.encode().hex()}')", _identity(value)]
    return f"xxhash64({', '.join(parts)})"
