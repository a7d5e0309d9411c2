"""Lets a Delta table take the types of what is written, where it can, and names what it refuses; keeps our CHECKs."""

import hashlib
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from delta.exceptions import DeltaConcurrentModificationException
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import AnalysisException, PySparkException
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
    NullType,
    ShortType,
    StructType,
    TimestampNTZType,
)

from conf.errors import TidemarkError
from jobs.connectors.causes import Cause, causes
from jobs.connectors.delta.commit import Table
from jobs.connectors.delta.log import snapshot

WIDENING = "delta.enableTypeWidening"
# Of the types that Spark has, Delta lets no write bring this one into a table that is there.
LOCAL_TIMES = "delta.feature.timestampNtz"
# Whole numbers from the narrowest, with the decimal digits that each may have.
DIGITS: dict[type[DataType], int] = {ByteType: 3, ShortType: 5, IntegerType: 10, LongType: 20}
ATTEMPTS = 3
SHOWN = 5  # changes that a message lists
# What a column's path has behind a field: items, keys, values, branches of a union.
INNER = re.compile(r"(?:\[\]| keys| values|\.member\d+)+$")


@dataclass(frozen=True)
class TypeChange:
    """A column whose type is `old` in the table and `new` in what is written.

    Args:
        column: its path with dots, `[]` for items, by the names in what is written.
        there: the same by the names in the table, which may be written in other cases.
    """

    column: str
    old: DataType
    new: DataType
    there: str = ""

    @property
    def field(self) -> str:
        """Return the path of the innermost field, as it is written, that holds the change and has a name of its own."""
        return INNER.sub("", self.column)

    def __str__(self) -> str:
        column = f"{self.column} (there {self.there})" if self.there not in ("", self.column) else self.column
        return f"column {column} is {self.old.simpleString()} there and {self.new.simpleString()} in what is written"


REMEDY = (
    "cast the column to the type that the table has, or give it another name (it becomes a column of its own), or "
    "write into a table of another name"
)


def admit_types(frame: DataFrame, table: Table) -> None:
    """Let `table` take the columns of `frame`; one line on stderr for each that its readers must be able to read.

    Delta widens no column that a CHECK constraint refers to: ours are dropped then, for `add_missing` to add again.

    Raises:
        TidemarkError: TYPE_CHANGED, where a type is neither the table's nor a wider one.
    """
    spark = frame.sparkSession
    current = snapshot(spark, table.path)
    there = current.schema()
    if refused := refused_changes(there, frame.schema):
        more = f", and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
        what = ", ".join(map(str, refused[:SHOWN]))
        raise TidemarkError("TYPE_CHANGED", f"table {table.path}: {what}{more}", REMEDY)
    changes = list(type_changes(there, frame.schema))
    widened = [change for change in changes if not isinstance(change.old, NullType)]
    wanted = {WIDENING: "true"} if widened else {}
    # A table that has such a column has the feature.
    brings_local_times = _has_local_times(frame.schema) and not _has_local_times(there)
    wanted |= {LOCAL_TIMES: "supported"} if brings_local_times else {}
    if wanted.items() - current.properties().items():
        _set(spark, table.path, wanted)
    if changes:
        drop_outdated(spark, table.path, {})
    for change in widened:
        _tell(f"table {table.name}: {change}; it is widened, and its readers need Delta's type widening from now on")
    if brings_local_times:
        what = "it gets its first column of local times (timestamp_ntz)"
        _tell(f"table {table.name}: {what}, and its readers need Delta's feature timestampNtz from now on")


def refused_changes(old: DataType, new: DataType) -> list[TypeChange]:
    """Return the changes that a table with columns `old` does not take."""
    return [change for change in type_changes(old, new) if not is_widening(change.old, change.new)]


def type_changes(old: DataType, new: DataType, column: str = "", there: str = "") -> Iterator[TypeChange]:
    """List where `new` has another type than `old`; fields that one of them lacks are no change."""
    if isinstance(old, StructType) and isinstance(new, StructType):
        fields = {field.name.lower(): field for field in old.fields}
        for field in new.fields:
            if known := fields.get(field.name.lower()):
                names = (f"{path}.{name}".lstrip(".") for path, name in ((column, field.name), (there, known.name)))
                yield from type_changes(known.dataType, field.dataType, *names)
    elif isinstance(old, ArrayType) and isinstance(new, ArrayType):
        yield from type_changes(old.elementType, new.elementType, f"{column}[]", f"{there}[]")
    elif isinstance(old, MapType) and isinstance(new, MapType):
        yield from type_changes(old.keyType, new.keyType, f"{column} keys", f"{there} keys")
        yield from type_changes(old.valueType, new.valueType, f"{column} values", f"{there} values")
    elif old != new:
        yield TypeChange(column, old, new, there)


def is_widening(old: DataType, new: DataType) -> bool:
    """Return whether every value of `old` is one of `new`, and Delta can widen a column so."""
    if isinstance(old, NullType):
        return True
    digits = DIGITS.get(type(old))
    if isinstance(new, DecimalType) and isinstance(old, DecimalType):
        return new.scale >= old.scale and new.precision - new.scale >= old.precision - old.scale
    if isinstance(new, DecimalType):
        return digits is not None and new.precision - new.scale >= digits
    if isinstance(new, DoubleType):
        return isinstance(old, FloatType) or (digits is not None and not isinstance(old, LongType))
    return digits is not None and DIGITS.get(type(new), 0) > digits


def _has_local_times(kind: DataType) -> bool:
    if isinstance(kind, StructType):
        return any(_has_local_times(field.dataType) for field in kind.fields)
    if isinstance(kind, ArrayType):
        return _has_local_times(kind.elementType)
    if isinstance(kind, MapType):
        return _has_local_times(kind.keyType) or _has_local_times(kind.valueType)
    return isinstance(kind, TimestampNTZType)


def _set(spark: SparkSession, path: str, wanted: Mapping[str, str]) -> None:
    properties = ", ".join(f"'{name}' = '{value}'" for name, value in wanted.items())
    for attempt in range(1, ATTEMPTS + 1):
        try:
            spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ({properties})")
            return
        except DeltaConcurrentModificationException:
            # Another query that writes to this table may do the same at the same moment.
            if attempt == ATTEMPTS:
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


# What a write raises; Delta's own classes of conflicts are none of these.
RAISED = (PySparkException, Py4JJavaError)
# Delta's names of errors: of what people have set on a table, none of which is ours.
SET_BY_OTHERS = (
    *("DELTA_CONSTRAINT_", "DELTA_VIOLATE_CONSTRAINT_WITH_VALUES", "DELTA_NOT_NULL_CONSTRAINT_VIOLATED"),
    *("DELTA_GENERATED_COLUMNS_", "DELTA_IDENTITY_COLUMNS_", "DELTA_EXCEED_CHAR_VARCHAR_LIMIT"),
    *("DELTA_CANNOT_MODIFY_APPEND_ONLY", "RESERVED_CDC_COLUMNS_ON_WRITE", "DELTA_TABLE_ALREADY_CONTAINS_CDC_COLUMNS"),
    *("DELTA_UNSUPPORTED_FEATURES_FOR_WRITE", "DELTA_BLOCK_COLUMN_MAPPING_AND_CDC_OPERATION"),
)
# Of columns that Delta cannot hold.
UNHOLDABLE = (
    *("DELTA_UNSUPPORTED_DATA_TYPES", "UNSUPPORTED_TIME_TYPE", "DELTA_COMPLEX_TYPE_COLUMN_CONTAINS_NULL_TYPE"),
    *("DELTA_INVALID_CHARACTERS_IN_COLUMN_NAME", "DELTA_DUPLICATE_COLUMNS_FOUND", "DELTA_CANNOT_WRITE_EMPTY_SCHEMA"),
    "DELTA_FEATURES_REQUIRE_MANUAL_ENABLEMENT",
)
# What Delta says of the cause, by the names of its parameters; others may hold what rows hold.
SAID = (
    *("constraintName", "expression", "columnName", "columnType", "dataType", "constraints", "generatedColumns"),
    *("columnList", "config", "unsupported", "dataTypeList", "invalidColumnNames", "duplicateCols", "colName"),
    *("columName", "unsupportedFeatures", "expr", "generatedExprs"),
)
LONGEST = 400  # characters that a message quotes: Spark chokes on a failure's text when it is long


def refusal(path: str, failure: BaseException) -> TidemarkError | None:
    """Return the TABLE_REFUSES that a failed write to the table at `path` means; None where it is none."""
    for cause in causes(failure):
        if cause.condition.startswith(SET_BY_OTHERS):
            take_back = f"ALTER TABLE delta.`{path}` DROP CONSTRAINT ..., ALTER COLUMN ... DROP NOT NULL"
            remedy = (
                f"somebody has set this on the table, Tidemark did not: take it back ({take_back} or UNSET "
                "TBLPROPERTIES), then start the job again: it goes on where it was"
            )
            return TidemarkError("TABLE_REFUSES", f"table {path}: {_said(cause)}", remedy)
        if cause.condition.startswith(UNHOLDABLE):
            remedy = "let the job cast that column to a type that Delta has, or give it another name"
            return TidemarkError("TABLE_REFUSES", f"table {path}: {_said(cause)}", remedy)
    return None


def _said(cause: Cause) -> str:
    named = (f"{name} {' '.join(cause.parameters[name].split())}" for name in SAID if cause.parameters.get(name))
    return f"{cause.condition} ({', '.join(named)})"[:LONGEST].replace("; ", ", ")
