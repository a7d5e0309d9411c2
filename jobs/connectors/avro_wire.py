"""The form in which Spark is given an Avro schema, so that what its reader takes too loosely can be told afterwards.

Avro's reader on the JVM takes any byte for a boolean, drops what an int has beyond its 32 bits, and Spark drops what a
short decimal has beyond its 64. So a boolean is read as its one byte, an int as a long, such a decimal with more
digits: the bytes are the same. `sound` tells whether a value so read is one of its type, `plain` makes it one.
"""

from collections.abc import Callable
from decimal import Decimal
from functools import reduce
from typing import Any, cast

from pyspark.sql import Column
from pyspark.sql import functions as F

from schemas.wire import INT, RANGES, UUID

Place = tuple[str, str]
"""A record's full name, and a field in it."""

BOOLEAN = {"type": "fixed", "name": "tidemark.wire.Boolean", "size": 1}
BYTES = {False: "\0", True: "\1"}
# Up to 18 digits Spark takes a decimal for 8 bytes, and looks at no more of them.
SHORT, LONGER = 18, 19
ERA = ("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999")  # what RANGES allows of timestamps


class Names:
    """The named types of one schema (in fastavro's parsed form), by full name."""

    def __init__(self, schema: Any) -> None:
        self._types: dict[str, dict[str, Any]] = {}
        self._collect(schema)

    def of(self, schema: Any) -> dict[str, Any]:
        """`schema`, which is no union, as an object with `type`."""
        if isinstance(schema, str):
            return self._types.get(schema) or {"type": schema}
        return self.of(schema["type"]) if isinstance(schema["type"], dict) else dict(schema)

    def branches(self, schema: Any) -> list[Any]:
        """What `schema` may be besides null."""
        listed = schema if isinstance(schema, list) else [schema]
        return [branch for branch in listed if self.of(branch)["type"] != "null"]

    def _collect(self, schema: Any) -> None:
        for part in schema if isinstance(schema, list) else [schema]:
            if isinstance(part, dict):
                if "name" in part:
                    self._types[part["name"]] = part
                for child in (part.get("items"), part.get("values"), *(f["type"] for f in part.get("fields", ()))):
                    self._collect(child)


def has_int_and_long(branches: list[Any], names: Names) -> bool:
    """Whether a union has both: Spark reads them as one, and neither can stand for the other."""
    return {"int", "long"} <= {names.of(branch)["type"] for branch in branches}


def wire_schema(schema: Any, as_long: Callable[[Place], bool] = lambda place: True) -> Any:
    """`schema` in the form that Spark is given.

    Args:
        as_long: whether the ints in a field are read as longs.
    """
    return _Rewrite(Names(schema), as_long).of(schema, ("", ""))


class _Rewrite:
    def __init__(self, names: Names, as_long: Callable[[Place], bool]) -> None:
        self._names, self._as_long = names, as_long
        self._has_boolean = False

    def of(self, schema: Any, place: Place, keep_int: bool = False) -> Any:
        if isinstance(schema, list):
            keep = has_int_and_long(schema, self._names)
            return [self.of(branch, place, keep) for branch in schema]
        kind = schema["type"] if isinstance(schema, dict) else schema
        if kind == "boolean":
            return self._boolean()
        if kind == "int" and not keep_int and self._as_long(place):
            return "long"
        if kind == "long" and isinstance(schema, dict) and schema.get("logicalType") == "time-micros":
            return "long"  # a number of microseconds: Delta tables have no column type for a time of day
        if not isinstance(schema, dict):
            return schema
        return self._complex(schema, place)

    def _complex(self, schema: dict[str, Any], place: Place) -> dict[str, Any]:
        kind = schema["type"]
        if kind in ("record", "error"):
            return {**schema, "fields": [self._field(schema["name"], field) for field in schema["fields"]]}
        if kind in ("array", "map"):
            inner = "items" if kind == "array" else "values"
            return {**schema, inner: self.of(schema[inner], place)}
        return {**schema, "precision": LONGER} if is_short_decimal(schema) else schema

    def _field(self, record: str, field: dict[str, Any]) -> dict[str, Any]:
        written = {**field, "type": self.of(field["type"], (record, field["name"]))}
        if "default" in field:
            written["default"] = self._default(field["default"], field["type"])
        return written

    def _default(self, value: Any, schema: Any) -> Any:
        if isinstance(value, bool):
            return BYTES[value]
        if isinstance(value, list):
            return [self._default(item, None) for item in value]
        return {name: self._default(item, None) for name, item in value.items()} if isinstance(value, dict) else value

    def _boolean(self) -> Any:
        first, self._has_boolean = not self._has_boolean, True
        return BOOLEAN if first else BOOLEAN["name"]


def is_short_decimal(declared: dict[str, Any]) -> bool:
    """Whether its bytes may be more than Spark looks at."""
    is_decimal = declared.get("logicalType") == "decimal" and declared["type"] in ("bytes", "fixed")
    return is_decimal and declared["precision"] <= SHORT and declared.get("size", LONGER) > 8


def sound(value: Column, schema: Any, names: Names) -> Column | None:
    """Whether `value`, read by the wire form of `schema`, is one of its type (null where it is null); None: always."""
    return _Sound(names).of(value, schema)


def plain(value: Column, schema: Any, names: Names) -> Column | None:
    """`value`, read by the wire form of `schema`, as one of its type; None where it is one already."""
    return _Plain(names).of(value, schema)


class _Walk:
    """Goes over a value's parts; what is said of each is put together by its subclasses."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def of(self, value: Column, schema: Any) -> Column | None:
        branches = self._names.branches(schema)
        if len(branches) == 1:
            return self._one(value, branches[0], keep_int=False)
        kinds = {self._names.of(branch)["type"] for branch in branches}
        if not branches or kinds in ({"int", "long"}, {"float", "double"}):
            return None
        keep = has_int_and_long(branches, self._names)
        members = [(f"member{n}", branch) for n, branch in enumerate(branches)]
        return self.struct(value, [(name, self._one(value.getField(name), part, keep)) for name, part in members])

    def _one(self, value: Column, schema: Any, keep_int: bool) -> Column | None:
        declared = self._names.of(schema)
        kind = declared["type"]
        if kind in ("record", "error"):
            parts = [(f["name"], self.of(value.getField(f["name"]), f["type"])) for f in declared["fields"]]
            return self.struct(value, parts)
        if kind == "array":
            return self.array(value, declared["items"])
        if kind == "map":
            return self.map(value, declared["values"])
        return None if kind == "int" and keep_int else self.leaf(value, declared)

    def each(self, schema: Any) -> Callable[[Column], Column] | None:
        """What is said of an item; None where there is nothing to say of any."""
        if self.of(F.lit(None), schema) is None:
            return None
        return lambda item: cast(Column, self.of(item, schema))

    def struct(self, value: Column, parts: list[tuple[str, Column | None]]) -> Column | None:
        raise NotImplementedError

    def array(self, value: Column, items: Any) -> Column | None:
        raise NotImplementedError

    def map(self, value: Column, values: Any) -> Column | None:
        raise NotImplementedError

    def leaf(self, value: Column, declared: dict[str, Any]) -> Column | None:
        raise NotImplementedError


class _Sound(_Walk):
    def struct(self, value: Column, parts: list[tuple[str, Column | None]]) -> Column | None:
        conditions = [part for _, part in parts if part is not None]
        return reduce(Column.__and__, conditions) if conditions else None

    def array(self, value: Column, items: Any) -> Column | None:
        is_sound = self.each(items)
        return None if is_sound is None else F.forall(value, lambda item: F.coalesce(is_sound(item), F.lit(True)))

    def map(self, value: Column, values: Any) -> Column | None:
        keys = F.forall(F.map_keys(value), lambda key: F.is_valid_utf8(key))
        inner = self.array(F.map_values(value), values)
        return keys if inner is None else keys & inner

    def leaf(self, value: Column, declared: dict[str, Any]) -> Column | None:
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


def _in_range(value: Column, kind: str, logical: str) -> Column:
    if kind == "long" and "timestamp" in logical:
        literal, zone = ("TIMESTAMP_NTZ", "") if logical.startswith("local") else ("TIMESTAMP", "Z")
        return value.between(*(F.expr(f"{literal}'{edge}{zone}'") for edge in ERA))
    return value.between(*RANGES.get((kind, logical), INT))


class _Plain(_Walk):
    def struct(self, value: Column, parts: list[tuple[str, Column | None]]) -> Column | None:
        if all(part is None for _, part in parts):
            return None
        columns = [(value.getField(name) if part is None else part).alias(name) for name, part in parts]
        return F.when(value.isNotNull(), F.struct(*columns))

    def array(self, value: Column, items: Any) -> Column | None:
        as_plain = self.each(items)
        return None if as_plain is None else F.transform(value, as_plain)

    def map(self, value: Column, values: Any) -> Column | None:
        as_plain = self.each(values)
        return None if as_plain is None else F.transform_values(value, lambda _, item: as_plain(item))

    def leaf(self, value: Column, declared: dict[str, Any]) -> Column | None:
        kind, logical = declared["type"], declared.get("logicalType")
        if kind == "boolean":
            return value == F.lit(bytearray(BYTES[True].encode()))
        if kind == "int":
            number = value.try_cast("int")
            return F.date_from_unix_date(number) if logical == "date" else number
        if is_short_decimal(declared):
            return value.try_cast(f"decimal({declared['precision']},{declared.get('scale', 0)})")
        return None
