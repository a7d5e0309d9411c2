"""Reads a schema's text as JSON that every parser reads alike, and leaves out logical types that mean nothing."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from conf.errors import TidemarkError

# How deep JSON may lie inside each other, and how many digits a number may have: Java's parser reads no more than 1000.
JSON_DEPTH, DIGITS = 500, 1000
# The logical types of Avro 1.12 and what each may annotate.
LOGICAL_TYPES = {
    "decimal": {"bytes", "fixed"},
    "big-decimal": {"bytes"},
    "uuid": {"string", "fixed"},
    "date": {"int"},
    "time-millis": {"int"},
    "time-micros": {"long"},
    "duration": {"fixed"},
    **{
        f"{kind}-{unit}": {"long"}
        for kind in ("timestamp", "local-timestamp")
        for unit in ("millis", "micros", "nanos")
    },
}
LOGICAL_SIZES = {"uuid": 16, "duration": 12}
LARGEST_PRECISION = 2**31 - 1


def invalid_schema(what: str) -> TidemarkError:
    """Return the error INVALID_SCHEMA."""
    return TidemarkError("INVALID_SCHEMA", f"not a valid Avro schema: {what}", "mend the schema's text")


def read_json(text: str) -> Any:
    """Parse a schema's text.

    Raises:
        TidemarkError: INVALID_SCHEMA, where the text is no JSON that every parser reads alike.
    """
    try:
        schema = json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_no_constant)
        text.encode()
    except RecursionError:
        raise invalid_schema(f"JSON lies deeper than {JSON_DEPTH} levels inside each other") from None
    except ValueError as exc:
        raise invalid_schema(f"{type(exc).__name__}: {exc}") from exc
    _check_depth_and_text(schema)
    return schema


def normalized(text: str) -> str:
    """Return `text` as JSON without white space and with sorted attributes: equal for equal schemas, valid or not.

    Raises:
        TidemarkError: INVALID_SCHEMA, as `read_json`.
    """
    return json.dumps(read_json(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def without_ignored_logical_types(schema: Any) -> Any:
    """Return a schema, valid but for them, without the logical types that readers ignore."""
    if isinstance(schema, list):
        return [without_ignored_logical_types(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: value for name, value in schema.items() if name != "logicalType" or _has_meaning(schema)}
    # What a type of another kind has of these names is no type.
    inner = {"array": "items", "map": "values"}.get(kept["type"])
    if inner is not None:
        kept[inner] = without_ignored_logical_types(kept[inner])
    if kept["type"] in ("record", "error"):
        fields = kept["fields"]
        kept["fields"] = [{**field, "type": without_ignored_logical_types(field["type"])} for field in fields]
    return kept


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise invalid_schema(f"the attribute `{repeated}` is there twice")
    return parsed


def _integer(digits: str) -> int:
    if len(digits) >= DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _check_depth_and_text(schema: Any) -> None:
    level, depth = [schema], 0
    while level:
        depth += 1
        if depth > JSON_DEPTH:
            raise invalid_schema(f"JSON lies deeper than {JSON_DEPTH} levels inside each other")
        for value in level:
            if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
                raise invalid_schema("a text holds half of a pair of surrogates, which UTF-8 cannot say")
        level = [inner for value in level for inner in _inside(value)]


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else ()


def _has_meaning(schema: Mapping[str, Any]) -> bool:
    """Return whether the type's `logicalType` is one of Avro's, may stand there,
    and has the parameters that it needs."""
    logical, kind = schema["logicalType"], schema["type"]
    if not isinstance(logical, str) or kind not in LOGICAL_TYPES.get(logical, ()):
        return False
    if logical == "decimal":
        return _is_decimal(schema)
    return kind != "fixed" or bool(schema["size"] == LOGICAL_SIZES[logical])


def _is_decimal(schema: Mapping[str, Any]) -> bool:
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    if type(precision) is not int or type(scale) is not int or not 0 <= scale <= precision or precision == 0:
        return False
    # How many digits so many bytes hold, whichever they are.
    limit = math.floor(math.log10(2) * (8 * schema["size"] - 1)) if schema["type"] == "fixed" else LARGEST_PRECISION
    return precision <= limit
