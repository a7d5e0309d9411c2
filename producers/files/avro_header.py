"""Makes of the schema in an Avro file's header one for a topic: what other readers pass over in it is left out."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from schemas.validity import without_unfit_defaults

# What this project understands by attributes that are nobody else's; of a file, they are its author's own.
OF_FIELDS, OF_TYPES = "source", "json"


def topic_schema(header: Any) -> tuple[Any, list[str]]:
    """Return the schema of the records of a file, and a note on each thing of its header that is not in it.

    Raises:
        TidemarkError: INVALID_SCHEMA.
    """
    schema = copy.deepcopy(header)
    notes = [*_without_own_attributes(schema)]
    return schema, notes + [f"{what}: it is left out" for what in without_unfit_defaults(schema)]


def _without_own_attributes(schema: Any) -> Iterator[str]:
    for part in schema if isinstance(schema, list) else [schema]:
        if not isinstance(part, dict):
            continue
        if OF_TYPES in part:
            yield _left_out(part, OF_TYPES, f"type {part.get('type')}")
        for inner in (part.get("items"), part.get("values")):
            yield from _without_own_attributes(inner)
        fields = part.get("fields")
        for field in fields if isinstance(fields, list) else ():
            if isinstance(field, dict) and OF_FIELDS in field:
                yield _left_out(field, OF_FIELDS, f"field `{field.get('name')}`")
            yield from _without_own_attributes(field.get("type") if isinstance(field, dict) else None)


def _left_out(declared: dict[str, Any], attribute: str, of: str) -> str:
    value = json.dumps(declared.pop(attribute), ensure_ascii=False)
    return f"{of}: the file's own attribute `{attribute}`, {value}, has another meaning here: it is left out"
