"""What was read by the wire form of a schema (`avro_wire`): is it a value of its types, and which?"""

from collections.abc import Callable, Collection, Iterable, Sequence
from decimal import Decimal
from functools import reduce
from typing import Any, cast

from pyspark.sql import Column
from pyspark.sql import functions as F

from jobs.connectors.avro_wire import BYTES, WIDER, Names, Place, has_int_and_long, is_short_decimal
from schemas.wire import INT, RANGES, UUID

ERA = ("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999")  # what RANGES allows of timestamps
Record = dict[str, Any]


def sound(fields: Sequence[Column], schema: Record, names: Names) -> Column:
    """Whether `fields`, read by the wire form of the record `schema`, are of its types; never null."""
    return _all_of(_parts(_Sound(names), fields, schema))


def sound_ints(fields: Sequence[Column], schema: Record, names: Names, promoted: Collection[Place]) -> Column:
    """`sound`, of the numbers in the places `promoted`, which were written as ints: are they in the range of one?"""
    return _all_of(_parts(_SoundInts(names, promoted), fields, schema))


def plain_fields(fields: Sequence[Column], schema: Record, names: Names) -> dict[str, Column]:
    """Those of `fields`, read by the wire form of the record `schema`, that are not of its types yet, as values of them
    by name.
    """
    parts = zip(schema["fields"], _parts(_Plain(names), fields, schema), strict=True)
    return {kind["name"]: part for kind, part in parts if part is not None}


def _parts(walk: "_Walk", fields: Sequence[Column], schema: Record) -> list[Column | None]:
    kinds = [(field["type"], (schema["name"], field["name"])) for field in schema["fields"]]
    return [walk.of(field, *kind) for field, kind in zip(fields, kinds, strict=True)]


def _all_of(conditions: Iterable[Column | None]) -> Column:
    return reduce(Column.__and__, [_is_not_false(each) for each in conditions if each is not None], F.lit(True))


def _is_not_false(condition: Column) -> Column:
    """Of a value that is null nothing is wrong. Never null itself, which makes for quicker code than `coalesce`."""
    return ~condition.eqNullSafe(False)


class _Walk:
    """Goes over a value's parts; what is said of each is put together by its subclasses."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def of(self, value: Column, schema: Any, place: Place) -> Column | None:
        """What is said of a value that lies in `place`; None for nothing."""
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

    def _one(self, value: Column, schema: Any, place: Place, keep_int: bool) -> Column | None:
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

    def each(self, schema: Any, place: Place) -> Callable[[Column], Column] | None:
        """What is said of an item; None where there is nothing to say of any."""
        if self.of(F.lit(None), schema, place) is None:
            return None
        return lambda item: cast(Column, self.of(item, schema, place))

    def struct(self, value: Column, parts: list[tuple[str, Column | None]]) -> Column | None:
        raise NotImplementedError

    def array(self, value: Column, items: Any, place: Place) -> Column | None:
        raise NotImplementedError

    def map(self, value: Column, values: Any, place: Place) -> Column | None:
        raise NotImplementedError

    def leaf(self, value: Column, declared: dict[str, Any], place: Place) -> Column | None:
        raise NotImplementedError


class _Sound(_Walk):
    def struct(self, value: Column, parts: list[tuple[str, Column | None]]) -> Column | None:
        return _all_of(part for _, part in parts) if any(part is not None for _, part in parts) else None

    def array(self, value: Column, items: Any, place: Place) -> Column | None:
        is_sound = self.each(items, place)
        return None if is_sound is None else F.forall(value, lambda item: _is_not_false(is_sound(item)))

    def map(self, value: Column, values: Any, place: Place) -> Column | None:
        keys = F.forall(F.map_keys(value), lambda key: F.is_valid_utf8(key))
        inner = self.array(F.map_values(value), values, place)
        return keys if inner is None else keys & inner

    def leaf(self, value: Column, declared: dict[str, Any], place: Place) -> Column | None:
        kind, logical = declared["type"], declared.get("logicalType")
        if kind == "string":
            return F.is_valid_utf8(value) & value.rlike(f"^{UUID}$") if logical == "uuid" else F.is_valid_utf8(value)
        if kind == "boolean":
            return value.isin(*(F.lit(bytearray(byte.encode())) for byte in BYTES.values()))
        if kind == "int" or (kind, logical) in RANGES:
            return _in_range(value, kind, str(logical))
        if is_short_decimal(declared):
            return F.abs(value) < F.lit(Decimal(10) ** (declared["precision"] - declared.get("scale", 0)))
        return None


class _SoundInts(_Sound):
    def __init__(self, names: Names, promoted: Collection[Place]) -> None:
        super().__init__(names)
        self._promoted = promoted

    def map(self, value: Column, values: Any, place: Place) -> Column | None:
        return self.array(F.map_values(value), values, place)

    def leaf(self, value: Column, declared: dict[str, Any], place: Place) -> Column | None:
        if place not in self._promoted or declared["type"] not in WIDER:
            return None
        # As values of the field's own type: the largest int is 2147483648 as a float.
        first, last = (F.lit(edge).cast("bigint" if declared["type"] == "long" else declared["type"]) for edge in INT)
        return value.between(first, last)


def _in_range(value: Column, kind: str, logical: str) -> Column:
    if kind == "long" and "timestamp" in logical:
        literal, zone = ("TIMESTAMP_NTZ", "") if logical.startswith("local") else ("TIMESTAMP", "Z")
        return value.between(*(F.expr(f"{literal}'{edge}{zone}'") for edge in ERA))
    if (kind, logical) not in RANGES:
        return F.shiftright(value, 31).isin(0, -1)  # as INT says; the value is looked at once
    return value.between(*RANGES[kind, logical])


class _Plain(_Walk):
    def struct(self, value: Column, parts: list[tuple[str, Column | None]]) -> Column | None:
        if all(part is None for _, part in parts):
            return None
        columns = [(value.getField(name) if part is None else part).alias(name) for name, part in parts]
        return F.when(value.isNotNull(), F.struct(*columns))

    def array(self, value: Column, items: Any, place: Place) -> Column | None:
        as_plain = self.each(items, place)
        return None if as_plain is None else F.transform(value, as_plain)

    def map(self, value: Column, values: Any, place: Place) -> Column | None:
        as_plain = self.each(values, place)
        return None if as_plain is None else F.transform_values(value, lambda _, item: as_plain(item))

    def leaf(self, value: Column, declared: dict[str, Any], place: Place) -> Column | None:
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
