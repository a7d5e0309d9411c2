"""Keeps the types of a union in the members of a struct that they came to, whatever order a newer version has.

Spark calls them member0, member1, … by their order in the schema that it reads into. So the same event would be in
another member once a version with another order has come, in the table that has the earlier ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from schemas.registry import RegisteredSchema
from schemas.silver_columns import Column as SilverColumn
from schemas.silver_columns import column_of, columns_over, places
from schemas.spark_limits import NamedTypes


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


def moved(value: Column, move: Move) -> Column:
    """Return `value` with its parts where they belong."""
    if move.inner:
        inner = move.inner
        if move.kind == "array":
            return F.transform(value, lambda item: moved(item, inner))
        return F.transform_values(value, lambda _, item: moved(item, inner))
    parts = [(value.getField(name), wanted, inner) for name, wanted, inner in move.parts]
    columns = [(part if inner is None else moved(part, inner)).alias(wanted) for part, wanted, inner in parts]
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
