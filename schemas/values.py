"""Strict conversion of records of unknown origin to what an Avro schema holds: exactly, or not at all.

fastavro writes True, 1.5 and 2**40 into an int without complaint. Here each value either fits its type without
loss or is refused with the path of its field.

Beyond Avro's own attributes, a field may have `source` (the name under which the input has it, where that is no
Avro name), and a string type may have `json` (it takes any value, as its JSON text).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Any

from schemas.codec import parsed
from schemas.scalars import Convert, scalar, shown

MISSING = object()


class UnfitError(ValueError):
    """A record that does not fit its schema: why, and the path of names to the field, empty for the record itself."""

    def __init__(self, reason: str, *path: str) -> None:
        super().__init__(f"field `{'.'.join(path)}`: {reason}" if path else reason)
        self.reason = reason
        self.path = path


@dataclass(frozen=True)
class Reading:
    """How to read what a value does not say of itself.

    `zone`: where times without an offset were taken. `from_text`: every field is text, as in the cells of a file;
    lists and records are then JSON. `nulls`: the texts that mean null. `ignore_extra`: whether a record may have
    fields that the schema lacks, which are then left out.
    """

    zone: tzinfo = UTC
    from_text: bool = False
    nulls: frozenset[str] = frozenset({""})
    ignore_extra: bool = False


def record_converter(schema_text: str, reading: Reading) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A callable from a record (source name -> value) to what `Encoder` takes; it raises UnfitError.

    A field that is missing takes its default. Raises TidemarkError INVALID_SCHEMA, ValueError where the schema is
    no record's.
    """
    schema = parsed(schema_text)
    if not isinstance(schema, dict) or schema["type"] != "record":
        raise ValueError("the schema is no record's")
    types = _Types(reading)
    convert = types.record(schema, types.cell if reading.from_text else types.value)

    def checked(record: Mapping[str, Any]) -> dict[str, Any]:
        try:
            converted: dict[str, Any] = convert(record)
        except RecursionError as exc:
            raise UnfitError("it is nested too deeply") from exc
        return converted

    return checked


def source_name(field: Mapping[str, Any]) -> str:
    """The name under which the input has this field."""
    return str(field.get("source", field["name"]))


class _Types:
    """Compiles a type into a callable, once, so that a record costs one call per value."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._named: dict[str, Convert] = {}

    def value(self, schema: Any) -> Convert:
        """The conversion of a value that has a type of its own."""
        if isinstance(schema, list):
            return self._union(schema, self.value)
        declared = schema if isinstance(schema, dict) else {"type": schema}
        if declared.get("json"):
            return _json_text
        convert = scalar(declared, self._reading.zone, from_text=False)
        return convert or self._complex(declared)

    def cell(self, schema: Any) -> Convert:
        """The conversion of a cell of text."""
        if isinstance(schema, list):
            return self._union(schema, self._filled_cell)
        return _required(self._filled_cell(schema), self._reading.nulls)

    def record(self, declared: Mapping[str, Any], compile_field: Callable[[Any], Convert]) -> Convert:
        """The conversion of a record, field by field."""
        fields: list[tuple[str, str, Convert, bool]] = []
        self._named[declared["name"]] = lambda value: convert(value)
        for field in declared["fields"]:
            compiled = compile_field(field["type"])
            fields.append((field["name"], source_name(field), compiled, "default" in field))
        known = {source for _, source, _, _ in fields}
        ignore_extra = self._reading.ignore_extra

        def convert(value: Any) -> dict[str, Any]:
            if not isinstance(value, Mapping):
                raise UnfitError(f"{shown(value)} is no record")
            if not ignore_extra and not value.keys() <= known:
                raise UnfitError(f"the schema has no field `{min(map(str, value.keys() - known))}`")
            return dict(_converted(value, fields))

        return convert

    def _filled_cell(self, schema: Any) -> Convert:
        declared = schema if isinstance(schema, dict) else {"type": schema}
        convert = scalar(declared, self._reading.zone, from_text=True)
        if convert is None and declared["type"] == "enum":
            convert = self._complex(declared)
        return convert or _of_json(self._complex(declared))

    def _complex(self, declared: Mapping[str, Any]) -> Convert:
        kind = declared["type"]
        if kind == "record":
            return self.record(declared, self.value)
        if kind == "array":
            return _array(self.value(declared["items"]))
        if kind == "map":
            return _map(self.value(declared["values"]))
        if kind in ("enum", "fixed"):
            self._named[declared["name"]] = _enum(declared) if kind == "enum" else _fixed(declared)
            return self._named[declared["name"]]
        return lambda value: self._named[kind](value)

    def _union(self, branches: list[Any], compile_branch: Callable[[Any], Convert]) -> Convert:
        nullable = "null" in branches
        nulls = self._reading.nulls if compile_branch == self._filled_cell else frozenset()
        converts = [(branch, compile_branch(branch)) for branch in branches if branch != "null"]
        convert = converts[0][1] if len(converts) == 1 else _first_fit(converts)

        if not nullable:
            return _required(convert, nulls)

        def convert_or_null(value: Any) -> Any:
            return None if value is None or (nulls and value in nulls) else convert(value)

        return convert_or_null


def _required(convert: Convert, nulls: frozenset[str]) -> Convert:
    if not nulls:
        return convert

    def convert_filled(value: Any) -> Any:
        if value in nulls:
            raise ValueError("a value is required")
        return convert(value)

    return convert_filled


def _converted(value: Mapping[str, Any], fields: list[tuple[str, str, Convert, bool]]) -> Any:
    for name, source, convert, has_default in fields:
        given = value.get(source, MISSING)
        if given is MISSING:
            if has_default:
                continue
            raise UnfitError("it is missing", source)
        try:
            yield name, convert(given)
        except UnfitError as exc:
            raise UnfitError(exc.reason, source, *exc.path) from exc
        except ValueError as exc:
            raise UnfitError(str(exc), source) from exc


def _first_fit(converts: list[tuple[Any, Convert]]) -> Convert:
    def convert(value: Any) -> Any:
        for branch, attempt in converts:
            try:
                fitted = attempt(value)
            except ValueError:
                continue
            # fastavro would choose a branch of its own; a pair of name and value tells it which.
            name = branch["name"] if isinstance(branch, dict) and branch["type"] == "record" else branch
            return (name, fitted) if isinstance(name, str) else fitted
        raise ValueError(f"{shown(value)} fits no type of its union")

    return convert


def _array(item: Convert) -> Convert:
    def convert(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{shown(value)} is no array")
        return [item(each) for each in value]

    return convert


def _map(item: Convert) -> Convert:
    def convert(value: Any) -> dict[str, Any]:
        # Arrow gives a map as pairs.
        pairs = list(value.items()) if isinstance(value, Mapping) else value
        if not isinstance(pairs, list) or any(not isinstance(pair, tuple) for pair in pairs):
            raise ValueError(f"{shown(value)} is no map")
        if len({key for key, _ in pairs}) < len(pairs) or any(not isinstance(key, str) for key, _ in pairs):
            raise ValueError(f"{shown(value)} has keys that are no text, or twice there")
        return {key: item(each) for key, each in pairs}

    return convert


def _enum(declared: Mapping[str, Any]) -> Convert:
    symbols = frozenset(declared["symbols"])

    def convert(value: Any) -> str:
        if not isinstance(value, str) or value not in symbols:
            raise ValueError(f"{shown(value)} is none of {', '.join(declared['symbols'])}")
        return value

    return convert


def _fixed(declared: Mapping[str, Any]) -> Convert:
    def convert(value: Any) -> bytes:
        if not isinstance(value, bytes) or len(value) != declared["size"]:
            raise ValueError(f"{shown(value)} is not {declared['size']} bytes")
        return value

    return convert


def _of_json(convert: Convert) -> Convert:
    def convert_json(text: str) -> Any:
        try:
            value = json.loads(text)
        except ValueError as exc:
            raise ValueError(f"{shown(text)} is no JSON") from exc
        return convert(value)

    return convert_json


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=float)
