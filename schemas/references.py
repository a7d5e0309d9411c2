"""Puts the types of other schemas that a schema refers to into its text, so that it holds all it needs.

A registry lets a schema refer to others by subject and version, whose named types it then uses without defining them.
Avro itself knows nothing of that: no parser reads such a text alone.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from conf.errors import TidemarkError
from schemas.registry import AVRO
from schemas.schema_text import read_json
from schemas.validity import NAMED, PRIMITIVE, full_name

# How many schemas one may refer to, by way of others too, and how many of these may lie behind each other.
MOST_REFERENCES, REFERENCE_DEPTH = 1000, 32
OTHER = "another than Avro"
Reference = tuple[str, str, int]
"""The name that a schema gives to another one, and that one's subject and version."""


def kind_of(text: str, declared: str) -> str:
    """Return the type of a schema that a registry declares to be of one: some have one type for all versions of a
    subject, whatever these are."""
    if not text.lstrip().startswith(("{", "[", '"')):
        return OTHER if declared == AVRO else declared
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
    stands for both.

    Args:
        find: returns a version of a subject, None where it is not there.

    Raises:
        TidemarkError: BAD_SCHEMA, where one is not there, is no Avro, or there are too many; and what `find` raises.
    """
    return [*_Referenced(find).of(schema, 0).values()]


class _Referenced:
    def __init__(self, find: Callable[[str, int], RawSchema | None]) -> None:
        self._find = find
        self._texts: dict[str, str] = {}
        self._seen: set[str] = set()

    def of(self, schema: RawSchema, depth: int) -> dict[str, str]:
        for name, subject, version in schema.references:
            if name in self._seen:
                continue
            self._seen.add(name)
            if len(self._seen) > MOST_REFERENCES or depth >= REFERENCE_DEPTH:
                what = f"it refers to more than {MOST_REFERENCES:,} schemas, or {REFERENCE_DEPTH} behind each other"
                raise _bad(what, "register a version that refers to fewer, and delete this one")
            found = self._find(subject, version)
            place = f"version {version} of subject {subject}, as `{name}`"
            if found is None:
                what = f"it refers to {place}, which the registry does not have"
                raise _bad(what, "register that there again, or delete the version that refers to it")
            if found.kind != AVRO:
                what = f"it refers to {place}, which is of type {found.kind}"
                raise _bad(what, "refer to Avro schemas alone, and delete the version that does not")
            self.of(found, depth + 1)
            self._texts[name] = found.text
        return self._texts


def _bad(what: str, remedy: str) -> TidemarkError:
    return TidemarkError("BAD_SCHEMA", what, remedy)


def inlined(text: str, referenced: Sequence[str]) -> str:
    """Return the schema `text` with each type that it lacks defined where it is first used; a name that is nowhere
    stays as it is.

    Args:
        referenced: the texts of all that it refers to, and of what those refer to; of two that define the same name,
            the earlier one holds.

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
        for inner in _inner(schema):
            yield from _definitions(inner, namespace)


def _inner(schema: dict[str, Any]) -> list[Any]:
    fields = schema.get("fields")
    listed = [field.get("type") for field in fields if isinstance(field, dict)] if isinstance(fields, list) else []
    return [schema.get("items"), schema.get("values"), *listed]


def _is_definition(schema: dict[str, Any]) -> bool:
    return schema.get("type") in NAMED and isinstance(schema.get("name"), str)


def _name(schema: dict[str, Any], namespace: str) -> str:
    own = schema.get("namespace", namespace)
    return full_name(schema["name"], own if isinstance(own, str) else "")


class _Inliner:
    def __init__(self, lent: dict[str, dict[str, Any]]) -> None:
        self._lent, self._placed = lent, set[str]()

    def of(self, schema: Any, namespace: str) -> Any:
        """Return a type that stands in a namespace."""
        if isinstance(schema, list):
            return [self.of(branch, namespace) for branch in schema]
        if isinstance(schema, str):
            return self._named(schema, namespace)
        if not isinstance(schema, dict):
            return schema
        if _is_definition(schema):
            name = _name(schema, namespace)
            if name in self._lent:
                # It lies within another type that is lent, and may have been used before that.
                return self._lend(name, namespace)
            namespace = name.rpartition(".")[0]
        return self._parts(schema, namespace)

    def _named(self, name: str, namespace: str) -> str | dict[str, Any]:
        # As in Java: what is not there within the namespace may be there without one.
        full = next((each for each in (full_name(name, namespace), name) if each in self._lent), "")
        return name if name in PRIMITIVE or not full else self._lend(full, namespace)

    def _lend(self, name: str, within: str) -> str | dict[str, Any]:
        if name in self._placed:
            if within and "." not in name:
                what = f"it uses `{name}`, which has no namespace, from within {within} again, which no text can say"
                raise _bad(what, f"give `{name}` a namespace in a new version of both, and delete this one")
            return name
        self._placed.add(name)
        schema = self._lent[name]
        own, _, short = name.rpartition(".")
        # Spelt out: what it is put into may stand in another namespace than the text that it comes from.
        return self._parts(schema, own) | {"name": short, "namespace": own}

    def _parts(self, schema: dict[str, Any], namespace: str) -> dict[str, Any]:
        made = {**schema}
        for part in ("items", "values"):
            if part in schema:
                made[part] = self.of(schema[part], namespace)
        if isinstance(schema.get("fields"), list):
            made["fields"] = [
                {**field, "type": self.of(field["type"], namespace)}
                if isinstance(field, dict) and "type" in field
                else field
                for field in schema["fields"]
            ]
        return made
