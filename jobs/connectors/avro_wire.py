"""The form in which Spark is given an Avro schema, so that what its reader takes too loosely can be told afterwards.

Avro's reader on the JVM takes any byte for a boolean, drops what an int has beyond its 32 bits, and Spark drops what a
short decimal has beyond its 64. So a boolean is read as its one byte, an int as a long, such a decimal with more
digits: the bytes are the same. `avro_columns` makes of what was read so values of their types.
"""

from collections.abc import Callable
from typing import Any

Place = tuple[str, str]
"""A record's full name, and a field in it."""
NOWHERE = ("", "")
WIDER = ("long", "float", "double")  # what an int may become in a later version

BOOLEAN = {"type": "fixed", "name": "tidemark.wire.Boolean", "size": 1}
BYTES = {False: "\0", True: "\1"}
# Up to 18 digits Spark takes a decimal for 8 bytes, and looks at no more of them.
SHORT, LONGER = 18, 19


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
    return _Rewrite(Names(schema), as_long).of(schema, NOWHERE)


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
            written["default"] = _default(field["default"])
        return written

    def _boolean(self) -> Any:
        first, self._has_boolean = not self._has_boolean, True
        return BOOLEAN if first else BOOLEAN["name"]


def _default(value: Any) -> Any:
    if isinstance(value, bool):
        return BYTES[value]
    if isinstance(value, list):
        return [_default(item) for item in value]
    return {name: _default(item) for name, item in value.items()} if isinstance(value, dict) else value


def is_short_decimal(declared: dict[str, Any]) -> bool:
    """Whether its bytes may be more than Spark looks at."""
    is_decimal = declared.get("logicalType") == "decimal" and declared["type"] in ("bytes", "fixed")
    return is_decimal and declared["precision"] <= SHORT and declared.get("size", LONGER) > 8
