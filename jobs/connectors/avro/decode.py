"""Decodes Avro in the Confluent framing on the JVM, and checks what came out: is it what the bytes say?

A framed value is a zero byte, the schema id (4 bytes, big-endian) and the Avro binary body. Each id is decoded by its
own writer schema into the reader schema. Spark's `from_avro` stops reading where the schema ends and turns a short body
into nulls, so both schemas get one more field at their end, a sentinel that is appended to each body: where a body is
too long or too short, it is not found in its place, and the record is rejected instead of passing with wrong values.
"""

import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from decimal import Decimal
from functools import lru_cache, reduce
from typing import Any, NamedTuple, cast

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro

from conf.errors import TidemarkError
from jobs.connectors.avro.spark_schema import (
    BYTES,
    END_FIELD,
    HEADER,
    WIDER,
    FieldPath,
    has_int_and_long,
    is_short_decimal,
    move_parts,
    moves,
    promoted_ints,
    wire_schema,
    wire_text,
)
from jobs.connectors.spark_internals import optimization_barrier
from schemas.codec import HEADER_LENGTH, frame
from schemas.registry import RegisteredSchema
from schemas.spark_limits import NamedTypes, event_schema, require_expandable
from schemas.validity import parse_text
from schemas.wire import INT, RANGES, UUID

READ = "tidemark_read"
# Long enough that bytes left over after an event begin with it by chance once in four billion.
SENTINEL = b"\xa5\xc3\x96\xf1"

NO_VALUE = "NO_VALUE"
BAD_FRAMING = "BAD_FRAMING"
UNKNOWN_SCHEMA_ID = "UNKNOWN_SCHEMA_ID"
UNDECODABLE = "UNDECODABLE"


def decode(records: DataFrame, writers: Sequence[RegisteredSchema], reader: str) -> DataFrame:
    """Decode `value` and keep all rows: accepted ones have `event`, rejected ones an `error`.

    Args:
        records: any columns, among them `value` binary.
        writers: the schemas that values may carry, by id: all versions of a subject, oldest first.
        reader: the schema text that events come out in; every writer must be resolvable to it.

    Returns:
        the columns of `records`, then `schema_id` int (null without framing), `event` struct (null where nothing was
        decoded) and `error` string: null, NO_VALUE (a tombstone), BAD_FRAMING, UNKNOWN_SCHEMA_ID or UNDECODABLE.

    Raises:
        TidemarkError: UNKNOWN_SUBJECT, where there is no writer; BAD_SCHEMA, where Spark has no way to read what
            `reader` says, or to read a writer's values as that.
    """
    steps = _steps(tuple(writers), reader)
    judged = records.select("*", steps.read).select(*records.columns, READ, *steps.judged)
    return judged.select(*records.columns, "schema_id", steps.event, "error")


class _Steps(NamedTuple):
    """The columns that `decode` adds to records, one select after the other."""

    read: Column
    judged: tuple[Column, ...]
    event: Column


# A column takes thousands of calls to the JVM; without the cache every micro-batch would wait for them.
@lru_cache(maxsize=256)
def _steps(writers: tuple[RegisteredSchema, ...], reader: str) -> _Steps:
    if not writers:
        raise TidemarkError(
            "UNKNOWN_SUBJECT", "no writer schema is registered for this topic", "run `local/tidemark schemas register`"
        )
    schema = event_schema(reader)
    names = NamedTypes(schema)
    fields = {field["name"]: F.col(READ).getField(field["name"]) for field in schema["fields"]}
    schema_id, known = _schema_id(writers)
    error = (
        F.when(_is_complete([*fields.values()], writers, schema, names), F.lit(None))
        .when(F.col("value").isNull(), NO_VALUE)
        .when(schema_id.isNull(), BAD_FRAMING)
        .when(~known, UNKNOWN_SCHEMA_ID)
        .otherwise(UNDECODABLE)
    )
    restored = restore_types([*fields.values()], schema, names)
    for name, move in moves(schema, writers).items():
        restored[name] = move_parts(restored.get(name, fields[name]), move)
    made = {f"{READ}_{name}": part for name, part in restored.items()}
    # Without the barrier every filter on the result would decode once more.
    judged = (
        schema_id.alias("schema_id"),
        *(optimization_barrier(part).alias(name) for name, part in made.items()),
        optimization_barrier(error.cast("string")).alias("error"),
    )
    # The struct has only columns and is never null itself, so the optimizer sees which of its fields are used.
    event = {name: F.col(f"{READ}_{name}") if f"{READ}_{name}" in made else field for name, field in fields.items()}
    packed = F.struct(*(field.alias(name) for name, field in event.items()))
    return _Steps(_decode_by_id(writers, schema).alias(READ), judged, packed.alias("event"))


def _schema_id(writers: Sequence[RegisteredSchema]) -> tuple[Column, Column]:
    """Return the id in the header (null without framing), and whether it is a writer's."""
    framed = F.col("value").startswith(F.lit(bytearray(b"\0"))) & (F.length("value") >= HEADER_LENGTH)
    # Spark makes a number of bytes by way of text, which is slow: only for unknown ids.
    number = F.conv(F.hex(F.substring("value", 2, 4)), 16, 10).try_cast("bigint")
    other = F.when(framed, F.when(number < 2**31, number).otherwise(number - 2**32).try_cast("int"))
    known = [_has_id(writer.id) for writer in writers]
    chain = reduce(lambda chain, one: chain.when(one[0], one[1].id), zip(known, writers, strict=True), F)
    return chain.otherwise(other), reduce(Column.__or__, known)


def _is_complete(
    fields: Sequence[Column], writers: Sequence[RegisteredSchema], reader: dict[str, Any], names: NamedTypes
) -> Column:
    """Return whether the body ended where it should, and the decoded `fields` are of their types."""
    end = F.lit(struct.unpack("<f", SENTINEL)[0]).cast("float")
    is_complete = (F.col(READ).getField(END_FIELD) == end) & is_valid(fields, reader, names)
    for writer in writers:
        promoted = promoted_ints(parse_text(writer.text), reader).promoted
        if promoted:
            # The numbers in these places were written as ints: they are in the range of one.
            ints = _all_of(_parts(_IntRangeCheck(names, promoted), fields, reader))
            is_complete &= ~_has_id(writer.id) | ints
    return is_complete


def _has_id(id: int, column: str = "value") -> Column:
    return F.col(column).startswith(F.lit(bytearray(frame(id, b""))))


def carries(versions: Sequence[RegisteredSchema], column: str = "value") -> Column:
    """Return whether `value`, or another binary column, names one of `versions`, boolean, never null."""
    named = [_has_id(version.id, column) for version in versions]
    return F.coalesce(reduce(Column.__or__, named, F.lit(False)), F.lit(False))


def _decode_by_id(writers: Sequence[RegisteredSchema], reader: dict[str, Any]) -> Column:
    whole = F.rpad("value", F.length("value") + len(SENTINEL), F.lit(bytearray(SENTINEL)))  # quicker than to concat
    options = {"avroSchema": wire_text(wire_schema(reader)), "mode": "PERMISSIVE"}
    chain: Any = F
    for writer in writers:
        schema = parse_text(writer.text)
        require_expandable(schema)  # Java's reader expands the writer's too
        text = wire_text(wire_schema(schema, promoted_ints(schema, reader).written.__contains__), HEADER)
        chain = chain.when(_has_id(writer.id), from_avro(whole, text, options))
    return cast(Column, chain)


ERA = ("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999")  # what RANGES allows of timestamps
Record = dict[str, Any]


def is_valid(fields: Sequence[Column], schema: Record, names: NamedTypes) -> Column:
    """Return whether `fields`, read by the wire form of the record `schema`, are of its types; never null."""
    return _all_of(_parts(_ValidityCheck(names), fields, schema))


def restore_types(fields: Sequence[Column], schema: Record, names: NamedTypes) -> dict[str, Column]:
    """Return those `fields` of the record `schema`, read by its wire form, that need another type, in it; by name."""
    parts = zip(schema["fields"], _parts(_TypeRestoration(names), fields, schema), strict=True)
    return {kind["name"]: part for kind, part in parts if part is not None}


def _parts(walk: "_Walk", fields: Sequence[Column], schema: Record) -> list[Column | None]:
    kinds = [(field["type"], (schema["name"], field["name"])) for field in schema["fields"]]
    return [walk.of(field, *kind) for field, kind in zip(fields, kinds, strict=True)]


def _all_of(conditions: Iterable[Column | None]) -> Column:
    return reduce(
        Column.__and__, [_is_not_false(condition) for condition in conditions if condition is not None], F.lit(True)
    )


def _is_not_false(condition: Column) -> Column:
    """Return whether a check passes, as it does for a null.
    Never null itself, which is quicker code than `coalesce`."""
    return ~condition.eqNullSafe(False)


class _Walk:
    """Goes over the parts of a value, and makes one column of the columns that a subclass makes for kinds of parts."""

    def __init__(self, names: NamedTypes) -> None:
        self._names = names
        self._is_silent: dict[tuple[int, FieldPath], bool] = {}

    def of(self, value: Column, schema: Any, place: FieldPath) -> Column | None:
        """Make the column for a value that lies in `place`; None where it needs none."""
        branches = self._names.branches(schema)
        if len(branches) == 1:
            return self._one(value, branches[0], place, keep_int=False)
        kinds = {self._names.of(branch)["type"] for branch in branches}
        if not branches or kinds in ({"int", "long"}, {"float", "double"}):
            return None
        keep = has_int_and_long(branches, self._names)
        members = [(f"member{n}", branch) for n, branch in enumerate(branches)]
        return self.struct(
            value, [(name, self._one(value.getField(name), part, place, keep)) for name, part in members]
        )

    def _one(self, value: Column, schema: Any, place: FieldPath, keep_int: bool) -> Column | None:
        declared = self._names.of(schema)
        kind = declared["type"]
        if kind in ("record", "error"):
            fields = [(f["name"], f["type"], (declared["name"], f["name"])) for f in declared["fields"]]
            return self.struct(value, [(name, self.of(value.getField(name), *part)) for name, *part in fields])
        if kind == "array":
            return self.array(value, declared["items"], place)
        if kind == "map":
            return self.map(value, declared["values"], place)
        return None if kind == "int" and keep_int else self.leaf(value, declared, place)

    def item_function(self, schema: Any, place: FieldPath) -> Callable[[Column], Column] | None:
        """Make the function that gives the column for an item; None where no item needs one."""
        # Ask only once: asking again at each level would double the time with each level of arrays in arrays.
        key = id(schema), place
        if key not in self._is_silent:
            self._is_silent[key] = self.of(F.lit(None), schema, place) is None
        if self._is_silent[key]:
            return None
        return lambda item: cast(Column, self.of(item, schema, place))

    def struct(self, value: Column, parts: list[tuple[str, Column | None]]) -> Column | None:
        raise NotImplementedError

    def array(self, value: Column, items: Any, place: FieldPath) -> Column | None:
        raise NotImplementedError

    def map(self, value: Column, values: Any, place: FieldPath) -> Column | None:
        raise NotImplementedError

    def leaf(self, value: Column, declared: dict[str, Any], place: FieldPath) -> Column | None:
        raise NotImplementedError


class _ValidityCheck(_Walk):
    def struct(self, value: Column, parts: list[tuple[str, Column | None]]) -> Column | None:
        return _all_of(part for _, part in parts) if any(part is not None for _, part in parts) else None

    def array(self, value: Column, items: Any, place: FieldPath) -> Column | None:
        is_valid_item = self.item_function(items, place)
        return None if is_valid_item is None else F.forall(value, lambda item: _is_not_false(is_valid_item(item)))

    def map(self, value: Column, values: Any, place: FieldPath) -> Column | None:
        keys = F.forall(F.map_keys(value), lambda key: F.is_valid_utf8(key))
        inner = self.array(F.map_values(value), values, place)
        return keys if inner is None else keys & inner

    def leaf(self, value: Column, declared: dict[str, Any], place: FieldPath) -> Column | None:
        kind, logical = declared["type"], declared.get("logicalType")
        if kind == "string":
            return F.is_valid_utf8(value) & value.rlike(rf"\A{UUID}\z") if logical == "uuid" else F.is_valid_utf8(value)
        if kind == "boolean":
            return value.isin(*(F.lit(bytearray(byte.encode())) for byte in BYTES.values()))
        if kind == "int" or (kind, logical) in RANGES:
            return _in_range(value, kind, str(logical))
        if is_short_decimal(declared):
            return F.abs(value) < F.lit(Decimal(10) ** (declared["precision"] - declared.get("scale", 0)))
        return None


class _IntRangeCheck(_ValidityCheck):
    def __init__(self, names: NamedTypes, promoted: Collection[FieldPath]) -> None:
        super().__init__(names)
        self._promoted = promoted

    def map(self, value: Column, values: Any, place: FieldPath) -> Column | None:
        return self.array(F.map_values(value), values, place)

    def leaf(self, value: Column, declared: dict[str, Any], place: FieldPath) -> Column | None:
        if place not in self._promoted or declared["type"] not in WIDER:
            return None
        # Bounds are values of the field's own type: the largest int is 2147483648 as a float.
        first, last = (F.lit(edge).cast("bigint" if declared["type"] == "long" else declared["type"]) for edge in INT)
        return value.between(first, last)


def _in_range(value: Column, kind: str, logical: str) -> Column:
    if kind == "long" and "timestamp" in logical:
        literal, zone = ("TIMESTAMP_NTZ", "") if logical.startswith("local") else ("TIMESTAMP", "Z")
        return value.between(*(F.expr(f"{literal}'{edge}{zone}'") for edge in ERA))
    if (kind, logical) not in RANGES:
        return F.shiftright(value, 31).isin(0, -1)  # as INT says; the value is looked at once
    return value.between(*RANGES[kind, logical])


class _TypeRestoration(_Walk):
    def struct(self, value: Column, parts: list[tuple[str, Column | None]]) -> Column | None:
        if all(part is None for _, part in parts):
            return None
        columns = [(value.getField(name) if part is None else part).alias(name) for name, part in parts]
        return F.when(value.isNotNull(), F.struct(*columns))

    def array(self, value: Column, items: Any, place: FieldPath) -> Column | None:
        as_plain = self.item_function(items, place)
        return None if as_plain is None else F.transform(value, as_plain)

    def map(self, value: Column, values: Any, place: FieldPath) -> Column | None:
        as_plain = self.item_function(values, place)
        return None if as_plain is None else F.transform_values(value, lambda _, item: as_plain(item))

    def leaf(self, value: Column, declared: dict[str, Any], place: FieldPath) -> Column | None:
        kind, logical = declared["type"], declared.get("logicalType")
        if kind == "boolean":
            return value == F.lit(bytearray(BYTES[True].encode()))
        if kind == "int":
            number = value.try_cast("int")
            return F.date_from_unix_date(number) if logical == "date" else number
        if (kind, logical) == ("string", "uuid"):
            return F.lower(value)
        if is_short_decimal(declared):
            return value.try_cast(f"decimal({declared['precision']},{declared.get('scale', 0)})")
        return None
