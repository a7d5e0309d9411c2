"""Schemas of 40 records, each of which holds the one before twice: expanded, they fill any memory."""

import json
from collections.abc import Callable
from typing import Any

from tests.schemas.hostile_schemas import array

LEVELS = 40


def as_it_is(kind: Any) -> Any:
    return kind


def named(name: str, *fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def doubling(
    *leaf: dict[str, Any], wrap: Callable[[Any], Any] = as_it_is, levels: int = LEVELS, **more: Any
) -> dict[str, Any]:
    """R0 with the fields `leaf`, R1 with two R0, R2 with two R1 ..., each declared in a field of its own.

    Args:
        wrap: makes what the fields are of a name.
    """
    fields = [field("f0", named("R0", *leaf))]
    for level in range(1, levels + 1):
        kind = wrap(f"R{level - 1}")
        fields.append(field(f"f{level}", named(f"R{level}", field("a", kind, **more), field("b", kind, **more))))
    return named("Top", field("id", "string"), *fields)


def in_array(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, the uppermost record in an array."""
    *others, last = schema["fields"]
    return {**schema, "fields": [*others, {**last, "type": array(last["type"])}]}


NUMBER = field("n", "int")
KINDS: dict[str, str] = {
    name: json.dumps(schema)
    for name, schema in {
        "numbers": doubling(NUMBER),
        "nothing": doubling(),
        "nulls": doubling(field("n", "null")),
        "nullable": doubling(NUMBER, wrap=lambda kind: ["null", kind]),
        "in arrays": doubling(NUMBER, wrap=array),
        "in maps": doubling(NUMBER, wrap=lambda kind: {"type": "map", "values": kind}),
        "nothing in an array": in_array(doubling()),
        "marked": doubling(field("n", "string", pii="mask")),
        "defaults": doubling(field("n", "int", default=1), default={}),
        "holding itself": doubling(field("up", ["null", "Top"])),
    }.items()
}
