"""Is a schema one whose values Spark can hold?"""

from typing import Any

from conf.errors import TidemarkError
from jobs.connectors.avro_wire import Names
from schemas.codec import parsed


def event_schema(text: str) -> dict[str, Any]:
    """The schema of an event, in fastavro's parsed form.

    Raises:
        TidemarkError: BAD_SCHEMA, with the part that Spark cannot read as what it is, and what to do.
    """
    schema = parsed(text)
    if not isinstance(schema, dict) or schema["type"] != "record":
        raise _bad(f"an event must be a record, not {text[:60]}", "wrap the type into a record with one field")
    _check(schema, Names(schema), ())
    return schema


def _check(schema: Any, names: Names, inside: tuple[str, ...]) -> None:
    if isinstance(schema, list):
        for branch in schema:
            _check(branch, names, inside)
        return
    declared = names.of(schema)
    kind = declared["type"]
    if kind in ("record", "error"):
        _check_record(declared, names, inside)
    elif kind in ("array", "map"):
        items = declared["items" if kind == "array" else "values"]
        if kind == "array" and _is_nothing(items, names, inside):
            raise _bad("an array has items that take no bytes", "say how many there are in a field of type long")
        _check(items, names, inside)


def _check_record(declared: dict[str, Any], names: Names, inside: tuple[str, ...]) -> None:
    name = declared["name"]
    if name in inside:
        raise _bad(
            f"record `{name}` holds itself, for which Spark has no type", "hold the inner one as JSON in a string"
        )
    fields = [field["name"].lower() for field in declared["fields"]]
    twice = next((field for field in fields if fields.count(field) > 1), None)
    if twice:
        raise _bad(f"`{name}` has two fields `{twice}` that differ in case alone", "give one of them another name")
    for field in declared["fields"]:
        _check(field["type"], names, (*inside, name))


def _is_nothing(schema: Any, names: Names, inside: tuple[str, ...]) -> bool:
    if isinstance(schema, list):
        return False
    declared = names.of(schema)
    if declared["type"] == "record" and declared["name"] not in inside:
        inner = (*inside, declared["name"])
        return all(_is_nothing(field["type"], names, inner) for field in declared["fields"])
    return declared["type"] == "null" or declared.get("size") == 0


def _bad(what: str, remedy: str) -> TidemarkError:
    return TidemarkError("BAD_SCHEMA", what, remedy)
