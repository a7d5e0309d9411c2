"""Rewrites Avro schemas for Spark's reader, so that what it takes too loosely can be checked afterwards.

Where types of a union have other places in an earlier version, it says how they come back to those: Spark calls the
members of a union member0, member1, … by their order in the schema that it reads into. So the same event would be in
another member once a version with another order has come, in the table that has the earlier ones.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from schemas.codec import HEADER_LENGTH
from schemas.registry import RegisteredSchema
from schemas.resolution import PROMOTIONS
from schemas.schema_text import full_name
from schemas.silver_columns import Column as SilverColumn
from schemas.silver_columns import column_of, columns_over, places
from schemas.spark_limits import NamedTypes

FieldPath = tuple[str, str]
"""A record's full name, and a field in it."""
NOWHERE = ("", "")
WIDER = ("long", "float", "double")  # what an int may become in a later version

BOOLEAN = {"type": "fixed", "name": "tidemark.wire.Boolean", "size": 1}
BYTES = {False: "\0", True: "\1"}
# Spark takes a decimal of up to 18 digits for 8 bytes, and looks at no more bytes.
SHORT, LONGER = 18, 19

END_FIELD = "tidemark_end"
# The sentinel is read as a number, since Avro and Spark make no arrays for one.
END = {"name": END_FIELD, "type": "float"}
# The reader has no such field: Avro skips the header, which is quicker than to cut it off.
HEADER = {"name": "tidemark_header", "type": {"type": "fixed", "name": "tidemark.wire.Header", "size": HEADER_LENGTH}}


def has_int_and_long(branches: list[Any], names: NamedTypes) -> bool:
    """Return whether a union has both: Spark reads them as one, and neither can stand for the other."""
    return {"int", "long"} <= {names.of(branch)["type"] for branch in branches}


def wire_schema(schema: Any, as_long: Callable[[FieldPath], bool] = lambda place: True) -> Any:
    """Rewrite `schema` into the form that Spark is given.

    Args:
        as_long: whether the ints in a field are read as longs.
    """
    return _Rewrite(NamedTypes(schema), as_long).of(schema, NOWHERE)


def wire_text(schema: dict[str, Any], *first: dict[str, Any]) -> str:
    """Return the text of the record `schema`, a `wire_schema`, with the fields `first` before its own,
    and END behind them."""
    attributes = {key: value for key, value in schema.items() if not key.startswith("__")}  # not fastavro's notes
    return json.dumps({**attributes, "fields": [*first, *schema["fields"], END]})


class _Rewrite:
    def __init__(self, names: NamedTypes, as_long: Callable[[FieldPath], bool]) -> None:
        self._names, self._as_long = names, as_long
        self._has_boolean = False

    def of(self, schema: Any, place: FieldPath, keep_int: bool = False) -> Any:
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

    def _complex(self, schema: dict[str, Any], place: FieldPath) -> dict[str, Any]:
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
    """Return whether its bytes may be more than Spark looks at."""
    is_decimal = declared.get("logicalType") == "decimal" and declared["type"] in ("bytes", "fixed")
    return is_decimal and declared["precision"] <= SHORT and declared.get("size", LONGER) > 8


Leaf = dict[str, Any]
Places = tuple[FieldPath, FieldPath]
"""Where a type lies in the writer, and where in the reader."""
MEANING = ("logicalType", "precision", "scale")


@dataclass(frozen=True)
class Ints:
    """The ints of one writer: in which of its fields, and in which fields of the reader they are of a wider type."""

    written: frozenset[FieldPath]
    promoted: frozenset[FieldPath]


def promoted_ints(writer: Any, reader: Any) -> Ints:
    """Find the writer's ints that the reader has too, as ints or as a wider type.

    Args:
        writer, reader: schemas in fastavro's parsed form.

    Raises:
        TidemarkError: BAD_SCHEMA, where the same bytes mean something else to the reader: other logical types (Spark
            would read milliseconds as microseconds, and decimals by the wrong scale), or a long as an int.
    """
    pairs = list(_Pairs(NamedTypes(writer), NamedTypes(reader)).of(writer, reader, (NOWHERE, NOWHERE)))
    for (place, _), old, new, _ in pairs:
        _check(place, old, new)
    alike = [(places, new) for places, old, new, is_alike in pairs if is_alike and old["type"] == "int"]
    ints = [(places, new) for places, new in alike if new["type"] in ("int", *WIDER)]
    promoted = frozenset(place for (_, place), new in ints if new["type"] != "int")
    return Ints(frozenset(place for (place, _), _ in ints), promoted)


def _check(place: FieldPath, old: Leaf, new: Leaf) -> None:
    narrowed = (old["type"], new["type"]) == ("long", "int")
    both = "logicalType" in old and "logicalType" in new
    if narrowed or (both and any(old.get(part, 0) != new.get(part, 0) for part in MEANING)):
        what = f"field `{place[1]}` of `{place[0]}` was {_shown(old)} in an earlier version, and is {_shown(new)} now"
        remedy = "give the field a new name, and keep the old one with its type"
        raise TidemarkError("BAD_SCHEMA", what, remedy)


def _shown(leaf: Leaf) -> str:
    return " ".join(str(leaf[part]) for part in ("type", *MEANING) if part in leaf)


Pair = tuple[Places, Leaf, Leaf, bool]
"""Two types that hold no others, where they lie, and whether that is in the same way: in unions of the same types."""


class _Pairs:
    """Goes over both schemas by Avro's resolution, as Java's reader does it: each type of the writer with the one that
    its values are read as."""

    def __init__(self, writers: NamedTypes, readers: NamedTypes) -> None:
        self._writers, self._readers = writers, readers
        # By names, each of which may be used any number of times, with the same places within.
        self._seen: set[tuple[str, str]] = set()

    def of(self, writer: Any, reader: Any, places: Places, is_alike: bool = True) -> Iterator[Pair]:
        """Pair the types that hold no others, with the fields in which they lie."""
        old, new = (
            [names.of(branch) for branch in names.branches(schema)]
            for names, schema in ((self._writers, writer), (self._readers, reader))
        )
        self._require_apart(old, new, places)
        if len(old) == len(new) == 1:
            yield from self._one(old[0], new[0], places, is_alike)
            return
        pairs = [(branch, found) for branch in old if (found := _read_as(branch, new)) is not None]
        is_alike &= len(pairs) == len(old) == len(new)
        is_alike = is_alike and all(
            found is in_place and branch["type"] == found["type"]
            for (branch, found), in_place in zip(pairs, new, strict=True)
        )
        for branch, found in pairs:
            yield from self._one(branch, found, places, is_alike)

    def _require_apart(self, old: list[Leaf], new: list[Leaf], places: Places) -> None:
        for branch in new:
            one = [other["name"] for other in old if "name" in other and _is_named(branch, other["name"])]
            if len(one) > 1:
                place = places[1]
                what = f"field `{place[1]}` of `{place[0]}` has `{branch['name']}` by an alias for both `{one[0]}` and "
                what += f"`{one[1]}`, which one union had in an earlier version"
                raise TidemarkError("BAD_SCHEMA", what, "register a version without the alias, that has both types")

    def _one(self, old: Leaf, new: Leaf, places: Places, is_alike: bool) -> Iterator[Pair]:
        kinds = old["type"], new["type"]
        if kinds == ("record", "record"):
            if (old["name"], new["name"]) in self._seen:
                return
            self._seen.add((old["name"], new["name"]))
            before = {field["name"]: field for field in old["fields"]}
            for field in new["fields"]:
                written = _written(before, field, new["name"])
                if written:
                    inside = (old["name"], written["name"]), (new["name"], field["name"])
                    yield from self.of(written["type"], field["type"], inside)
        elif kinds == ("array", "array"):
            yield from self.of(old["items"], new["items"], places, is_alike)
        elif kinds == ("map", "map"):
            yield from self.of(old["values"], new["values"], places, is_alike)
        else:
            yield places, old, new, is_alike


def _written(before: dict[str, Any], field: dict[str, Any], record: str) -> dict[str, Any] | None:
    """Return which of the writer's fields is read as `field`."""
    found = [before[name] for name in dict.fromkeys((field["name"], *field.get("aliases", ()))) if name in before]
    if len(found) > 1:
        own, other = (each["name"] for each in found[:2])
        what = f"field `{field['name']}` of `{record}` is by an alias both `{own}` and `{other}` of an earlier version"
        remedy = (
            "register a version without that alias, in which the field has a default; or one with both, and defaults"
        )
        raise TidemarkError("BAD_SCHEMA", what, remedy)
    return found[0] if found else None


def _is_named(declared: Leaf, name: str) -> bool:
    """Return whether a reader's type has a full name, or had it."""
    own = str(declared.get("name", ""))
    return name in (own, *(full_name(alias, own.rpartition(".")[0]) for alias in declared.get("aliases", ())))


def _read_as(old: Leaf, new: list[Leaf]) -> Leaf | None:
    """Return the type of a union, or of a plain field, that values of `old` are read as."""
    same = [branch for branch in new if branch["type"] == old["type"]]
    if "name" in old:
        short = old["name"].rpartition(".")[2]
        exact = [branch for branch in same if _is_named(branch, old["name"])]
        return next(iter([*exact, *(branch for branch in same if branch["name"].rpartition(".")[2] == short)]), None)
    promoted = (branch for branch in new if branch["type"] in PROMOTIONS.get(old["type"], ()))
    return next(iter(same), None) or next(promoted, None)


@dataclass(frozen=True)
class Move:
    """What becomes of a value some of whose parts have another place.

    Args:
        parts: of a struct: what each is called, what it is to be called, and what becomes of it.
        inner: of an array or a map: what becomes of each item.
    """

    kind: str
    parts: tuple[tuple[str, str, "Move | None"], ...] = ()
    inner: "Move | None" = None


def moves(reader: dict[str, Any], versions: Sequence[RegisteredSchema]) -> dict[str, Move]:
    """Return the moves of those fields of an event, by name, that have types of a union in another place than theirs.

    Args:
        reader: in fastavro's parsed form.
        versions: all of the subject's, oldest first.
    """
    there = columns_over([version.text for version in versions])
    if there is None:
        return {}
    found = _moved(reader, there, NamedTypes(reader))
    return {name: move for name, _, move in found.parts if move} if found else {}


def move_parts(value: Column, move: Move) -> Column:
    """Return `value` with its parts where they belong."""
    if move.inner:
        inner = move.inner
        if move.kind == "array":
            return F.transform(value, lambda item: move_parts(item, inner))
        return F.transform_values(value, lambda _, item: move_parts(item, inner))
    parts = [(value.getField(name), wanted, inner) for name, wanted, inner in move.parts]
    columns = [(part if inner is None else move_parts(part, inner)).alias(wanted) for part, wanted, inner in parts]
    return F.when(value.isNotNull(), F.struct(*columns))


def _moved(schema: Any, there: SilverColumn, names: NamedTypes) -> Move | None:
    branches = names.branches(schema)
    if len(branches) > 1:
        return _moved_members(branches, schema, there, names)
    declared: dict[str, Any] = names.of(branches[0]) if branches else {"type": "null"}
    if declared["type"] in ("record", "error") and there.type == "struct":
        known = [(field, there.fields.get(field["name"].lower())) for field in declared["fields"]]
        return _struct(
            [(field["name"], field["name"], _moved(field["type"], at[1], names) if at else None) for field, at in known]
        )
    if declared["type"] in ("array", "map") and there.inner and declared["type"] == there.type:
        inner = _moved(declared["items" if there.type == "array" else "values"], there.inner, names)
        return Move(there.type, inner=inner) if inner else None
    return None


def _moved_members(branches: list[Any], schema: Any, there: SilverColumn, names: NamedTypes) -> Move | None:
    if there.type != "members":
        return None
    at = places(there.members, column_of(schema, names, 0).members)
    known = {place: member.column for place, member in enumerate(there.members)}
    parts = [
        (f"member{n}", f"member{place}", _moved(branch, known[place], names) if place in known else None)
        for n, (branch, place) in enumerate(zip(branches, at, strict=True))
    ]
    return _struct([parts[n] for n in sorted(range(len(at)), key=at.__getitem__)])


def _struct(parts: list[tuple[str, str, Move | None]]) -> Move | None:
    is_moved = any(name != wanted or inner for name, wanted, inner in parts)
    return Move("struct", tuple(parts)) if is_moved else None
