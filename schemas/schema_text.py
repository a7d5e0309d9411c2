"""Reads a schema's text as JSON that every parser reads alike, and puts into it what it refers to.

A registry lets a schema refer to others by subject and version, whose named types it then uses without defining them.
Avro itself knows nothing of that: no parser reads such a text alone. Logical types that mean nothing are left out.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from conf.errors import TidemarkError

AVRO = "AVRO"  # the type of a schema, as registries call it
NON_AVRO = "another than Avro"
PRIMITIVE = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NAMED = frozenset({"record", "error", "enum", "fixed"})
# How many schemas one may refer to, by way of others too, and how many of these may lie behind each other.
MOST_REFERENCES, REFERENCE_DEPTH = 1000, 32
Reference = tuple[str, str, int]
"""The name that a schema gives to another one, and that one's subject and version."""

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


def full_name(name: str, namespace: str) -> str:
    """Return the name of a type, as it is known in a namespace."""
    return f"{namespace}.{name}" if namespace and "." not in name else name


def invalid_schema(what: str) -> TidemarkError:
    return TidemarkError("INVALID_SCHEMA", f"not a valid Avro schema: {what}", "mend the schema's text")


def read_json(text: str) -> Any:
    """Parse a schema's text; raises TidemarkError INVALID_SCHEMA, where the text is no JSON that every parser reads
    alike."""
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
    """Return `text` as JSON without white space and with sorted attributes: equal for equal schemas, valid or not;
    raises TidemarkError INVALID_SCHEMA, as `read_json`."""
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
        objects = [value for value in level if isinstance(value, dict)]
        inner: list[Iterable[Any]] = [value for value in level if isinstance(value, list)]
        level = [*chain(*inner, *objects, *(value.values() for value in objects))]


def _has_meaning(schema: Mapping[str, Any]) -> bool:
    """Return whether the type's `logicalType` is Avro's, may stand there, and has the parameters that it needs."""
    logical, kind = schema["logicalType"], schema["type"]
    if not isinstance(logical, str) or kind not in LOGICAL_TYPES.get(logical, ()):
        return False
    if logical != "decimal":
        return kind != "fixed" or bool(schema["size"] == LOGICAL_SIZES[logical])
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    if type(precision) is not int or type(scale) is not int or not 0 <= scale <= precision or precision == 0:
        return False
    # How many digits so many bytes hold, whichever they are.
    return precision <= (math.floor(math.log10(2) * (8 * schema["size"] - 1)) if kind == "fixed" else 2**31 - 1)


def kind_of(text: str, declared: str) -> str:
    """Return the type of a schema that a registry declares to be of one: some have one type for all versions of a
    subject, whatever these are."""
    if not text.lstrip().startswith(("{", "[", '"')):
        return NON_AVRO if declared == AVRO else declared
    try:
        schema = read_json(text) if declared != AVRO else None
    except TidemarkError:
        return declared
    # None of the other types has a text in which that stands so.
    return AVRO if isinstance(schema, dict) and _is_definition(schema) else declared


class RawSchema(NamedTuple):
    """A schema as a registry has it: its text, its type, and what it refers to."""

    text: str
    kind: str = AVRO
    references: tuple[Reference, ...] = ()


def referenced_texts(schema: RawSchema, find: Callable[[str, int], RawSchema | None]) -> list[str]:
    """Return the texts that `schema` refers to, and those that these refer to, each behind what it refers to itself.

    As in Confluent's registry, of two schemas that are referred to by the same name, the one that is come to first
    stands for both. `find` returns a version of a subject, None where it is not there.

    Raises:
        TidemarkError: BAD_SCHEMA, where one is not there, is no Avro, or there are too many; and what `find` raises.
    """
    texts, seen = dict[str, str](), set[str]()

    def add(schema: RawSchema, depth: int) -> None:
        for name, subject, version in schema.references:
            if name in seen:
                continue
            seen.add(name)
            if len(seen) > MOST_REFERENCES or depth >= REFERENCE_DEPTH:
                what = f"it refers to more than {MOST_REFERENCES:,} schemas, or {REFERENCE_DEPTH} behind each other"
                raise _bad(what, "register a version that refers to fewer, and delete this one")
            referred = find(subject, version)
            place = f"version {version} of subject {subject}, as `{name}`"
            if referred is None:
                what = f"it refers to {place}, which the registry does not have"
                raise _bad(what, "register that there again, or delete the version that refers to it")
            if referred.kind != AVRO:
                what = f"it refers to {place}, which is of type {referred.kind}"
                raise _bad(what, "refer to Avro schemas alone, and delete the version that does not")
            add(referred, depth + 1)
            texts[name] = referred.text

    add(schema, 0)
    return [*texts.values()]


def _bad(what: str, remedy: str) -> TidemarkError:
    return TidemarkError("BAD_SCHEMA", what, remedy)


def inlined(text: str, referenced: Sequence[str]) -> str:
    """Return the schema `text` with each type that it lacks defined where it is first used; a name that is nowhere
    stays as it is. Of two in `referenced`, all that it refers to, that define the same name, the earlier one holds.

    Raises:
        TidemarkError: INVALID_SCHEMA, where one of the texts is no JSON; BAD_SCHEMA, where one text cannot say it all.
    """
    schema, lent = read_json(text), dict[str, dict[str, Any]]()
    for other in referenced:
        for name, definition in _definitions(read_json(other), ""):
            lent.setdefault(name, definition)
    for name, _ in _definitions(schema, ""):
        lent.pop(name, None)
    return json.dumps(_Inliner(lent).of(schema, ""))


def _definitions(schema: Any, namespace: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, list):
        for branch in schema:
            yield from _definitions(branch, namespace)
    elif isinstance(schema, dict):
        if _is_definition(schema):
            name = _name(schema, namespace)
            yield name, schema
            namespace = name.rpartition(".")[0]
        fields = schema.get("fields")
        types = [field.get("type") for field in fields if isinstance(field, dict)] if isinstance(fields, list) else []
        for inner in (schema.get("items"), schema.get("values"), *types):
            yield from _definitions(inner, namespace)


def _is_definition(schema: dict[str, Any]) -> bool:
    return schema.get("type") in NAMED and isinstance(schema.get("name"), str)


def _name(schema: dict[str, Any], namespace: str) -> str:
    declared = schema.get("namespace", namespace)
    return full_name(schema["name"], declared if isinstance(declared, str) else "")


class _Inliner:
    def __init__(self, lent: dict[str, dict[str, Any]]) -> None:
        self._lent, self._placed = lent, set[str]()

    def of(self, schema: Any, namespace: str) -> Any:
        if isinstance(schema, list):
            return [self.of(branch, namespace) for branch in schema]
        if isinstance(schema, str):
            # As in Java: what is not there within the namespace may be there without one.
            full = next((known for known in (full_name(schema, namespace), schema) if known in self._lent), "")
            return schema if schema in PRIMITIVE or not full else self._lend(full, namespace)
        if not isinstance(schema, dict):
            return schema
        if _is_definition(schema):
            name = _name(schema, namespace)
            if name in self._lent:
                # It lies within another type that is lent, and may have been used before that.
                return self._lend(name, namespace)
            namespace = name.rpartition(".")[0]
        return self._parts(schema, namespace)

    def _lend(self, name: str, within: str) -> str | dict[str, Any]:
        if name in self._placed:
            if within and "." not in name:
                what = f"it uses `{name}`, which has no namespace, from within {within} again, which no text can say"
                raise _bad(what, f"give `{name}` a namespace in a new version of both, and delete this one")
            return name
        self._placed.add(name)
        schema = self._lent[name]
        namespace, _, short = name.rpartition(".")
        # Spelt out: what it is put into may stand in another namespace than the text that it comes from.
        return self._parts(schema, namespace) | {"name": short, "namespace": namespace}

    def _parts(self, schema: dict[str, Any], namespace: str) -> dict[str, Any]:
        copied = {**schema}
        for part in ("items", "values"):
            if part in schema:
                copied[part] = self.of(schema[part], namespace)
        if isinstance(schema.get("fields"), list):
            copied["fields"] = [
                {**field, "type": self.of(field["type"], namespace)}
                if isinstance(field, dict) and "type" in field
                else field
                for field in schema["fields"]
            ]
        return copied
