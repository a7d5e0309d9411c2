"""Finds defaults that Spark's reader would take for another type of their union.

In Java's reader the default of a union is of the first type that `takes_json`. The form that Spark is given has a
fixed of one byte for each boolean, so that booleans and text are of one kind there.
"""

from collections.abc import Callable
from typing import Any

from schemas.validity import takes_json


def misread_type(schema: Any, default: Any, declared_of: Callable[[Any], dict[str, Any]]) -> str | None:
    """Return the type of a union, anywhere within `schema`, that a part of `default` is of and not read as; None for
    none.

    Args:
        schema: in fastavro's parsed form.
        default: in JSON, valid.
        declared_of: gives the declaration of a type that is no union.
    """
    if isinstance(schema, list):
        kinds = [declared_of(branch)["type"] for branch in schema]
        chosen = next(n for n, kind in enumerate(kinds) if takes_json(kind, default))
        as_read = "" if isinstance(default, bool) else default
        read = next(n for n, kind in enumerate(kinds) if takes_json("fixed" if kind == "boolean" else kind, as_read))
        return misread_type(schema[chosen], default, declared_of) if chosen == read else str(kinds[chosen])
    declared = declared_of(schema)
    parts: list[tuple[Any, Any]] = []
    if declared["type"] in ("record", "error"):
        parts = [(part["type"], default[part["name"]]) for part in declared["fields"] if part["name"] in default]
    elif declared["type"] == "array":
        parts = [(declared["items"], item) for item in default]
    elif declared["type"] == "map":
        parts = [(declared["values"], item) for item in default.values()]
    return next((found for kind, value in parts if (found := misread_type(kind, value, declared_of))), None)
