"""Makes of the schema in an Avro file's header the one by which its bytes are read: as they are stored.

A logical type is read as what it is stored as (a timestamp as an integer), which loses nothing; what it stands for is
kept beside. Of a union of several types, a value comes as a pair of its branch's name and itself: fastavro gives such
pairs for types that have a name, and calls for others what is registered here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from fastavro.read import LOGICAL_READERS
from fastavro.schema import parse_schema

from schemas.schema_text import without_ignored_logical_types
from schemas.validity import PRIMITIVE

BRANCH = "tidemark-branch"
STANDS_FOR = "tidemark-stands-for"
TAGGED = (PRIMITIVE - {"null"}) | {"array", "map"}


def _tagger(name: str) -> Callable[..., tuple[str, Any]]:
    return lambda value, *schemas: (name, value)


LOGICAL_READERS.update({f"{name}-{BRANCH}": _tagger(name) for name in TAGGED})


def stored_schema(schema: Any) -> Any:
    """Return the schema, in fastavro's parsed form, to read with.

    Raises what fastavro and Python raise for a text that is no schema.
    """
    return parse_schema(_stored(without_ignored_logical_types(schema), is_choice=False))


def stands_for(declared: Mapping[str, Any]) -> str:
    """Return the logical type of one type of a schema to read with; empty where it has none."""
    return str(declared.get(STANDS_FOR, ""))


def _stored(schema: Any, is_choice: bool) -> Any:
    """Return one type; `is_choice`: whether it is a branch beside others."""
    if isinstance(schema, list):
        others = [branch for branch in schema if branch not in ("null", {"type": "null"})]
        return [_stored(branch, len(others) > 1) for branch in schema]
    if not isinstance(schema, dict):
        return {"type": schema, "logicalType": BRANCH} if is_choice and schema in TAGGED else schema
    kept = {name: value for name, value in schema.items() if name not in ("logicalType", STANDS_FOR)}
    if "logicalType" in schema:
        kept[STANDS_FOR] = schema["logicalType"]
    if is_choice and schema["type"] in TAGGED:
        kept["logicalType"] = BRANCH
    for inner in ("items", "values"):
        if schema["type"] in ("array", "map") and inner in schema:
            kept[inner] = _stored(schema[inner], is_choice=False)
    if schema["type"] in ("record", "error"):
        kept["fields"] = [_field(field) for field in schema["fields"]]
    return kept


def _field(field: Mapping[str, Any]) -> dict[str, Any]:
    # No default is needed to read what was written, and many that are written are none.
    kept = {name: value for name, value in field.items() if name != "default"}
    return {**kept, "type": _stored(field["type"], is_choice=False)}
