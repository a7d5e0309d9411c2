"""Says under which names the input has the fields of a record: the field's source, its name, or one of its aliases."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

# Rows of one file have few sets of names, where they are not made up.
KEPT_SETS = 256
Fields = Iterable[Mapping[str, Any]]


def source_name(field: Mapping[str, Any]) -> str:
    """Return the name under which the input has this field, unless it goes by another of its names there."""
    return str(field.get("source", field["name"]))


def source_names(fields: Fields, names: Iterable[str]) -> dict[str, str]:
    """Return, for each of the input's names that a field goes by, that field's source: one name for a field.

    A source comes before the name of a field, and that before its aliases, in their order.
    """
    given = set(names)
    found = {source: source for source in map(source_name, fields) if source in given}
    for field in fields:
        others = (field["name"], *field.get("aliases", ()))
        other = next((name for name in others if name in given and name not in found), None)
        if source_name(field) not in given and other is not None:
            found[other] = source_name(field)
    return found


def placing(fields: Fields) -> Callable[[Mapping[str, Any]], tuple[dict[str, Any], list[str]]]:
    """Return a callable from a record of the input to its values by fields' sources, and the names of the rest."""
    listed = list(fields)

    @lru_cache(KEPT_SETS)
    def places(names: tuple[str, ...]) -> tuple[list[tuple[str, str]], list[str]]:
        found = source_names(listed, names)
        return [*found.items()], [name for name in names if name not in found]

    def placed(record: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        pairs, extra = places(tuple(record))
        return {source: record[name] for name, source in pairs}, extra

    return placed


def left_out(name: str) -> str:
    """Return the note on a field of the input that the schema has no place for."""
    return f"field `{name}` left out (--ignore-extra), for which the schema has none"
