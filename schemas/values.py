"""Converts records of unknown origin to what an Avro schema holds: exactly, or not at all.

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
from schemas.scalars import Convert, bare, scalar, shown
from schemas.timestamps import Ambiguous, WallClock

MISSING = object()
# Of the numbers of a union, the first that holds a value exactly is written: whole ones before double before float.
NUMBERS = ("int", "long", "double", "float")
# By the type of a value: the branches of a union that are of its own kind.
OWN_KIND = {
    **{str: ("string", "enum"), int: ("int", "long"), float: ("double", "float"), bytes: ("bytes",)},
    list: ("array",),  # an empty one would be a map too, which Arrow gives as a list of pairs
}


class UnfitError(ValueError):
    """A record does not fit its schema: why, and the path of names to the field, empty for the record itself."""

    def __init__(self, reason: str, *path: str) -> None:
        super().__init__(f"field `{'.'.join(path)}`: {reason}" if path else reason)
        self.reason = reason
        self.path = path


@dataclass(frozen=True)
class Reading:
    """How to read what a value does not say of itself.

    `zone`: where times without an offset were taken; `ambiguous`: which of the two is meant where its clocks showed a
    time twice. `from_text`: every field is text, as in the cells of a file;
    lists and records are then JSON. `nulls`: the texts that mean null. `ignore_extra`: whether a record may have
    fields that the schema lacks, which are then left out.
    """

    zone: tzinfo = UTC
    from_text: bool = False
    nulls: frozenset[str] = frozenset({""})
    ignore_extra: bool = False
    ambiguous: Ambiguous = "earlier"


def record_converter(
    schema_text: str, reading: Reading, notes: list[str] | None = None
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return a callable from a record (source name -> value) to what `Encoder` takes; it raises UnfitError.

    A field that is missing takes its default. `notes` takes a line for each value of which more than one reading was
    possible.

    Raises:
        TidemarkError: INVALID_SCHEMA.
        ValueError: where the schema is no record's.
    """
    schema = parsed(schema_text)
    if not isinstance(schema, dict) or schema["type"] != "record":
        raise ValueError("the schema is no record's")
    types = _Types(reading, [] if notes is None else notes)
    convert = types.record(schema, types.cell if reading.from_text else types.value)

    def checked(record: Mapping[str, Any]) -> dict[str, Any]:
        try:
            converted: dict[str, Any] = convert(record)
        except RecursionError as exc:
            raise UnfitError("it is nested too deeply") from exc
        return converted

    return checked


def branches(avro_type: Any) -> list[Any]:
    """Return the types that a value may have beside null: those of a union, or the one that it is."""
    return [branch for branch in avro_type if branch != "null"] if isinstance(avro_type, list) else [avro_type]


def source_name(field: Mapping[str, Any]) -> str:
    """Return the name under which the input has this field."""
    return str(field.get("source", field["name"]))


class _Types:
    """Compiles a type into a callable, once, so that a record costs one call per value."""

    def __init__(self, reading: Reading, notes: list[str]) -> None:
        self._reading = reading
        self._clock = WallClock(reading.zone, reading.ambiguous, notes)
        self._named: dict[str, Convert] = {}
        self._records: set[str] = set()

    def value(self, schema: Any) -> Convert:
        """Return the conversion of a value that has a type of its own."""
        if isinstance(schema, list):
            return self._union(schema, self.value)
        declared = schema if isinstance(schema, dict) else {"type": schema}
        return self._scalar(declared, from_text=False) or self._complex(declared)

    def cell(self, schema: Any) -> Convert:
        """Return the conversion of a cell of text."""
        if isinstance(schema, list):
            return self._union(schema, self._filled_cell)
        return _required(self._filled_cell(schema), self._reading.nulls)

    def record(self, declared: Mapping[str, Any], compile_field: Callable[[Any], Convert]) -> Convert:
        """Return the conversion of a record, field by field."""
        fields: list[tuple[str, str, Convert, bool]] = []
        self._named[declared["name"]] = lambda value: convert(value)
        self._records.add(declared["name"])
        for field in declared["fields"]:
            compiled = compile_field(field["type"])
            fields.append((field["name"], source_name(field), compiled, "default" in field))
        sources = {source for _, source, _, _ in fields}
        ignore_extra = self._reading.ignore_extra

        def convert(value: Any) -> dict[str, Any]:
            value = bare(value)
            if not isinstance(value, Mapping):
                raise UnfitError(f"{shown(value)} is no record")
            if not ignore_extra and not value.keys() <= sources:
                raise UnfitError(f"the schema has no field `{min(map(str, value.keys() - sources))}`")
            return dict(_converted(value, fields))

        return convert

    def _filled_cell(self, schema: Any) -> Convert:
        declared = schema if isinstance(schema, dict) else {"type": schema}
        return self._scalar(declared, from_text=True) or _of_json(self._complex(declared))

    def _scalar(self, declared: Mapping[str, Any], from_text: bool) -> Convert | None:
        convert = scalar(declared, self._clock, from_text)
        if convert and declared["type"] in ("enum", "fixed"):
            self._named[declared["name"]] = convert
        return convert

    def _complex(self, declared: Mapping[str, Any]) -> Convert:
        kind = declared["type"]
        if kind == "record":
            return self.record(declared, self.value)
        if kind == "array":
            return _array(self.value(declared["items"]))
        if kind == "map":
            return _map(self.value(declared["values"]))
        return lambda value: self._named[kind](value)

    def _is_nested(self, branch: Any) -> bool:
        kind = branch["type"] if isinstance(branch, dict) else branch
        return kind in ("record", "array", "map") or kind in self._records

    def _union(self, branches: list[Any], compile_branch: Callable[[Any], Convert]) -> Convert:
        nullable = "null" in branches
        from_text = compile_branch == self._filled_cell
        nulls = self._reading.nulls if from_text else frozenset()
        converts = _exact_first([(branch, compile_branch(branch)) for branch in branches if branch != "null"])
        # With the name of its branch, where fastavro would look through all that a value holds to find it, and err.
        is_nested = any(self._is_nested(branch) for branch, _ in converts)
        convert = converts[0][1] if len(converts) == 1 and not is_nested else _first_fit(converts, from_text)
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
        source_value = value.get(source, MISSING)
        if source_value is MISSING:
            if has_default:
                continue
            raise UnfitError("it is missing", source)
        try:
            yield name, convert(source_value)
        except UnfitError as exc:
            raise UnfitError(exc.reason, source, *exc.path) from exc
        except ValueError as exc:
            raise UnfitError(str(exc), source) from exc


def _exact_first(converts: list[tuple[Any, Convert]]) -> list[tuple[Any, Convert]]:
    places = [place for place, (branch, _) in enumerate(converts) if branch in NUMBERS]
    ordered = list(converts)
    numbers = sorted((converts[place] for place in places), key=lambda number: NUMBERS.index(number[0]))
    for place, number in zip(places, numbers, strict=True):
        ordered[place] = number
    return ordered


def _first_fit(converts: list[tuple[Any, Convert]], from_text: bool) -> Convert:
    named = [(_branch_name(branch), convert) for branch, convert in converts]
    by_name = dict(named)
    only = named[0] if len(named) == 1 else None
    bases = [branch["type"] if isinstance(branch, dict) else branch for branch, _ in converts]
    # A branch of the value's own kind comes first: a number does not become a decimal, nor a text a time.
    ordered = {
        kind: [named[place] for place in sorted(range(len(named)), key=lambda place: bases[place] not in kinds)]
        for kind, kinds in ({} if from_text else OWN_KIND).items()
    }

    def convert(value: Any) -> Any:
        if only:
            return only[0], only[1](value)
        if isinstance(value, tuple) and value[0] in by_name:
            return value[0], by_name[value[0]](value[1])
        for name, attempt in ordered.get(type(value), named):
            try:
                # fastavro would choose a branch of its own; a pair of name and value tells it which.
                return name, attempt(value)
            except ValueError:
                continue
        raise ValueError(f"{shown(bare(value))} fits no type of its union")

    return convert


def _branch_name(branch: Any) -> str:
    """Return what fastavro calls a branch of a union: the full name of a named type, the type of any other."""
    if isinstance(branch, dict):
        return str(branch.get("name", branch["type"]))
    return str(branch)


def _array(item: Convert) -> Convert:
    def convert(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{shown(value)} is no array")
        return [item(element) for element in value]

    return convert


def _map(item: Convert) -> Convert:
    def convert(value: Any) -> dict[str, Any]:
        # Arrow gives a map as pairs.
        pairs = list(value.items()) if isinstance(value, Mapping) else value
        if not isinstance(pairs, list) or any(not isinstance(pair, tuple) for pair in pairs):
            raise ValueError(f"{shown(value)} is no map")
        if len({key for key, _ in pairs}) < len(pairs) or any(not isinstance(key, str) for key, _ in pairs):
            raise ValueError(f"{shown(value)} has keys that are no text, or twice there")
        return {key: item(element) for key, element in pairs}

    return convert


def _of_json(convert: Convert) -> Convert:
    def convert_json(text: str) -> Any:
        try:
            value = json.loads(text)
        except ValueError as exc:
            raise ValueError(f"{shown(text)} is no JSON") from exc
        return convert(value)

    return convert_json
