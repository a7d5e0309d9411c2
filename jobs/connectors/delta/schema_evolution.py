"""Widens the types of a Delta table's columns where that is allowed, and keeps its CHECK constraints."""

import hashlib
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from delta.exceptions import DeltaConcurrentModificationException
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import (
    ArrayType,
    ByteType,
    DataType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    ShortType,
    StructType,
)

from conf.errors import TidemarkError
from jobs.connectors.delta.commit import Table
from jobs.connectors.delta.log import snapshot
from jobs.connectors.spark_internals import DeltaSnapshot

WIDENING = "delta.enableTypeWidening"
# Whole numbers from the narrowest, with the decimal digits that each may have.
DIGITS: dict[type[DataType], int] = {ByteType: 3, ShortType: 5, IntegerType: 10, LongType: 20}


@dataclass(frozen=True)
class TypeChange:
    """A column (path with dots, `[]` for items) whose type is `old` in the table and `new` in what is written."""

    column: str
    old: DataType
    new: DataType

    def __str__(self) -> str:
        return (
            f"column {self.column} is {self.old.simpleString()} there and {self.new.simpleString()} in what is written"
        )


def admit_types(frame: DataFrame, table: Table) -> None:
    """Let `table` take the types of `frame`; where a column must be widened for it, one line on stderr says so.

    Raises:
        TidemarkError: TYPE_CHANGED, where a type is neither the table's nor a wider one.
    """
    current = snapshot(frame.sparkSession, table.path)
    changes = list(type_changes(current.schema(), frame.schema))
    for change in changes:
        if not is_widening(change.old, change.new):
            remedy = "write to a new table, or cast the column to the type that the table has"
            raise TidemarkError("TYPE_CHANGED", f"table {table.path}: {change}", remedy)
    if changes and not _may_widen(current):
        _allow_widening(frame, table)
    for change in changes:
        _tell(f"table {table.name}: {change}; it is widened, and its readers need Delta's type widening from now on")


def type_changes(old: DataType, new: DataType, column: str = "") -> Iterator[TypeChange]:
    """List where `new` has another type than `old`; fields that one of them lacks are no change."""
    if isinstance(old, StructType) and isinstance(new, StructType):
        fields = {field.name.lower(): field for field in old.fields}
        for field in new.fields:
            if known := fields.get(field.name.lower()):
                yield from type_changes(known.dataType, field.dataType, f"{column}.{field.name}".lstrip("."))
    elif isinstance(old, ArrayType) and isinstance(new, ArrayType):
        yield from type_changes(old.elementType, new.elementType, f"{column}[]")
    elif isinstance(old, MapType) and isinstance(new, MapType):
        yield from type_changes(old.keyType, new.keyType, f"{column} keys")
        yield from type_changes(old.valueType, new.valueType, f"{column} values")
    elif old != new:
        yield TypeChange(column, old, new)


def is_widening(old: DataType, new: DataType) -> bool:
    """Return whether every value of `old` is one of `new`, and Delta can widen a column so."""
    digits = DIGITS.get(type(old))
    if isinstance(new, DecimalType) and isinstance(old, DecimalType):
        return new.scale >= old.scale and new.precision - new.scale >= old.precision - old.scale
    if isinstance(new, DecimalType):
        return digits is not None and new.precision - new.scale >= digits
    if isinstance(new, DoubleType):
        return isinstance(old, FloatType) or (digits is not None and not isinstance(old, LongType))
    return digits is not None and DIGITS.get(type(new), 0) > digits


def _may_widen(snapshot_now: DeltaSnapshot) -> bool:
    return snapshot_now.properties().get(WIDENING) == "true"


def _allow_widening(frame: DataFrame, table: Table) -> None:
    try:
        frame.sparkSession.sql(f"ALTER TABLE delta.`{table.path}` SET TBLPROPERTIES ('{WIDENING}' = 'true')")
    except DeltaConcurrentModificationException:
        # Another query that writes to this table may have done the same at the same moment.
        if not _may_widen(snapshot(frame.sparkSession, table.path)):
            raise


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
    logging.getLogger(__name__).warning(line)


PREFIX = "rule_"  # begins the names of ours; others are left alone
PROPERTY = "delta.constraints."
VIOLATED = "DELTA_NEW_CHECK_CONSTRAINT_VIOLATION"


def drop_outdated(spark: SparkSession, path: str, wanted: Mapping[str, str]) -> None:
    """Drop our constraints of the table at `path` that are not among `wanted` (conditions by name) any more."""
    for name in _there(spark, path) - {_full(*constraint) for constraint in wanted.items()}:
        spark.sql(f"ALTER TABLE delta.`{path}` DROP CONSTRAINT IF EXISTS {name}")


def add_missing(spark: SparkSession, path: str, wanted: Mapping[str, str]) -> list[str]:
    """Add those of `wanted` that the table lacks; the names of those that rows in it violate, which are not added."""
    present, violated = _there(spark, path), []
    for name, condition in wanted.items():
        if _full(name, condition) in present:
            continue
        try:
            spark.sql(f"ALTER TABLE delta.`{path}` ADD CONSTRAINT {_full(name, condition)} CHECK ({condition})")
        except AnalysisException as exc:
            if VIOLATED not in str(exc):
                raise
            violated.append(name)
    return violated


def _there(spark: SparkSession, path: str) -> set[str]:
    properties = snapshot(spark, path).properties()
    names = {key.removeprefix(PROPERTY) for key in properties if key.startswith(PROPERTY)}
    return {name for name in names if name.startswith(PREFIX)}


def _full(name: str, condition: str) -> str:
    return f"{PREFIX}{name}_{hashlib.sha256(condition.encode()).hexdigest()[:8]}"
