"""What an Avro schema's text must be to be registered: one that the Java readers accept too.

fastavro accepts names with blanks, records without fields, a field named twice, a union that repeats a type,
and a default that fits only a later branch of its union; Java refuses each, when a job is already running.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from conf.errors import TidemarkError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FULL_NAME = re.compile(rf"{NAME.pattern}(\.{NAME.pattern})*")


def load_schema(text: str) -> Any:
    """The schema as JSON values.

    Raises:
        TidemarkError: INVALID_SCHEMA, with the place and what is wrong there.
    """
    try:
        schema = json.loads(text)
        parse_schema(schema)
        problem = next(_problems(schema, "schema"), None)
    except (ValueError, SchemaParseException, UnknownType, LookupError, TypeError, AttributeError) as exc:
        raise _invalid(f"{type(exc).__name__}: {exc}") from exc
    if problem:
        raise _invalid(problem)
    return schema


def normalized(text: str) -> str:
    """`text` as JSON without white space and with sorted attributes: equal for equal schemas."""
    return json.dumps(load_schema(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _problems(schema: Any, place: str) -> Iterator[str]:
    if isinstance(schema, list):
        yield from _union_problems(schema, place)
    elif isinstance(schema, dict):
        if "name" in schema and not FULL_NAME.fullmatch(schema["name"]):
            yield f"{place}: `{schema['name']}` is no Avro name"
        if schema["type"] in ("record", "error"):
            yield from _record_problems(schema)
        for child in ("items", "values", "type"):
            yield from _problems(schema.get(child), place)


def _union_problems(branches: list[Any], place: str) -> Iterator[str]:
    kinds = [_kind(branch) for branch in branches]
    if len(set(kinds)) < len(kinds):
        yield f"{place}: a union repeats a type: {', '.join(kinds)}"
    for branch in branches:
        yield from _problems(branch, place)


def _record_problems(record: dict[str, Any]) -> Iterator[str]:
    if not isinstance(record.get("fields"), list):
        yield f"record `{record['name']}` has no list of fields"
        return
    names = [field["name"] for field in record["fields"]]
    for field in record["fields"]:
        place = f"field `{field['name']}` of `{record['name']}`"
        if not NAME.fullmatch(field["name"]):
            yield f"{place}: this is no Avro name"
        if names.count(field["name"]) > 1:
            yield f"{place} is there twice"
        if "default" in field and isinstance(field["type"], list):
            first = _kind(field["type"][0])
            if (first == "null") != (field["default"] is None):
                yield f"{place}: the default must be of the union's first type, {first}"
        yield from _problems(field["type"], place)


def _kind(branch: Any) -> str:
    if isinstance(branch, dict):
        return str(branch["name"] if "name" in branch else branch["type"])
    return str(branch)


def _invalid(what: str) -> TidemarkError:
    return TidemarkError("INVALID_SCHEMA", f"not a valid Avro schema: {what}", "mend the schema's text")
