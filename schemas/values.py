"""Converts records of unknown origin to what an Avro schema holds: exactly, or not at all.

fastavro writes True, 1.5 and 2**40 into an int without complaint. Here each value either fits its type without
loss or is refused with the path of its field.

Beyond Avro's own attributes, a field may have `source` (the name under which the input has it, where that is no
Avro name), and a string type may have `json` (it takes any value, as its JSON text).
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as default
from datetime import UTC, tzinfo
from functools import lru_cache
from typing import Any

from schemas.conversions import LEFT_OUT, MISFITS, WHOLE_NUMBERS, Branch, Losses, bare, scalar, to_branch, with_point
from schemas.numbers import Convert, ExactDecoder, shown
from schemas.timestamps import Ambiguous, WallClock
from schemas.validity import parse_text

# Rows of one file have few sets of names, where they are not made up.
KEPT_SETS = 256
Fields = Iterable[Mapping[str, Any]]
MISSING = object()


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
    time twice. `from_text`: every field is text, as in the cells of a file; lists and records are then JSON. `nulls`:
    the texts that mean null; `empty_is_text`: the empty one does not, in a field that is text. `ignore_extra`: whether
    a record may have fields that the schema lacks, which are then left out. `from_json`: every field is a value of
    JSON, in which bytes are text, a character each. `number_ns`: by the names of fields that are times, nanoseconds in
    the unit of numbers.
    """

    zone: tzinfo = UTC
    from_text: bool = False
    nulls: frozenset[str] = frozenset({""})
    ignore_extra: bool = False
    ambiguous: Ambiguous = "earlier"
    empty_is_text: bool = False
    from_json: bool = False
    number_ns: Mapping[str, int] = default(default_factory=dict)

    def nulls_of(self, avro_type: Any) -> frozenset[str]:
        """Return the cells that mean null in a field of this type."""
        is_text = self.empty_is_text and branches(avro_type) in (["string"], [{"type": "string"}])
        return self.nulls - {""} if is_text else self.nulls


def record_converter(
    schema_text: str, reading: Reading, notes: list[str] | None = None
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return a callable from a record (source name -> value) to what `Encoder` takes; it raises UnfitError.

    A field that is missing takes its default. `notes` takes a line for each value of which more than one reading was
    possible. Raises TidemarkError INVALID_SCHEMA, ValueError where the schema is no record's.
    """
    schema = parse_text(schema_text)
    if not isinstance(schema, dict) or schema["type"] != "record":
        raise ValueError("the schema is no record's")
    decoder = ExactDecoder(decimals='"decimal"' in schema_text)
    types = _Types(reading, [] if notes is None else notes, decoder)
    convert = types.record(schema, types.field)

    def convert_or_refuse(record: Mapping[str, Any]) -> dict[str, Any]:
        try:
            converted: dict[str, Any] = convert(record)
            return converted
        except (RecursionError, *MISFITS) as exc:
            if isinstance(exc, UnfitError):
                raise
            raise UnfitError(_reason(exc)) from exc

    return convert_or_refuse


def branches(avro_type: Any) -> list[Any]:
    """Return the types that a value may have beside null: those of a union, or the one that it is."""
    return [branch for branch in avro_type if branch != "null"] if isinstance(avro_type, list) else [avro_type]


def source_name(field: Mapping[str, Any]) -> str:
    """Return the name under which the input has this field, unless it goes by another of its names there."""
    return str(field.get("source", field["name"]))


def source_names(fields: Fields, names: Iterable[str]) -> dict[str, str]:
    """Return, for each of the input's names that a field goes by, that field's source: one name for a field.

    A source comes before the name of a field, and that before its aliases, in their order.
    """
    given = set(names)
    known = {source: source for source in map(source_name, fields) if source in given}
    for field in fields:
        others = (field["name"], *field.get("aliases", ()))
        other = next((name for name in others if name in given and name not in known), None)
        if source_name(field) not in given and other is not None:
            known[other] = source_name(field)
    return known


def _placing(fields: Fields) -> Callable[[Mapping[str, Any]], tuple[dict[str, Any], list[str]]]:
    """Return a callable from a record of the input to its values by fields' sources, and the names of the rest."""
    listed = list(fields)

    @lru_cache(KEPT_SETS)
    def places(names: tuple[str, ...]) -> tuple[list[tuple[str, str]], list[str]]:
        sources = source_names(listed, names)
        return [*sources.items()], [name for name in names if name not in sources]

    def place(record: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        pairs, extra = places(tuple(record))
        return {source: record[name] for name, source in pairs}, extra

    return place


def left_out(name: str) -> str:
    """Return the note on a field of the input that the schema has no place for."""
    return f"field `{name}` left out (--ignore-extra), for which the schema has none"


class _Types:
    """Compiles a type into a callable, once, so that a record costs one call per value."""

    def __init__(self, reading: Reading, notes: list[str], decoder: ExactDecoder) -> None:
        self._reading, self._decoder = reading, decoder
        self._losses = Losses(notes)
        self._clock = WallClock(reading.zone, reading.ambiguous, notes)
        self._named: dict[str, Convert] = {}
        self._records: set[str] = set()

    def field(self, field: Mapping[str, Any]) -> Convert:
        """Return the conversion of a field of the record that a row is."""
        types = copy.copy(self)
        types._clock = replace(self._clock, number_ns=self._reading.number_ns.get(field["name"]))
        return types.cell(field["type"]) if self._reading.from_text else types.value(field["type"])

    def value(self, schema: Any) -> Convert:
        if isinstance(schema, list):
            return self._union(schema, self.value)
        declared = schema if isinstance(schema, dict) else {"type": schema}
        return self._scalar(declared, from_text=False) or self._complex(declared)

    def cell(self, schema: Any) -> Convert:
        if isinstance(schema, list):
            return self._union(schema, self._filled_cell)
        return _required(self._filled_cell(schema), self._reading.nulls_of(schema))

    def record(self, declared: Mapping[str, Any], compile_field: Callable[[Mapping[str, Any]], Convert]) -> Convert:
        fields: list[tuple[str, str, Convert, bool]] = []
        self._named[declared["name"]] = lambda value: convert(value)
        self._records.add(declared["name"])
        for field in declared["fields"]:
            compiled = compile_field(field)
            fields.append((field["name"], source_name(field), compiled, "default" in field))
        sources = {source for _, source, _, _ in fields}
        ignore_extra, place = self._reading.ignore_extra, _placing(declared["fields"])
        losses = self._losses

        def convert(value: Any) -> dict[str, Any]:
            value = bare(value)
            if not isinstance(value, Mapping):
                raise UnfitError(f"{shown(value)} is no record")
            if not value.keys() <= sources:
                value, extra = place(value)
                if extra and not ignore_extra:
                    raise UnfitError(f"the schema has no field `{min(extra)}`")
                losses.notes.extend(map(left_out, extra))
                losses.weight += LEFT_OUT * len(extra)
            return dict(_converted(value, fields))

        return convert

    def _filled_cell(self, schema: Any) -> Convert:
        declared = schema if isinstance(schema, dict) else {"type": schema}
        return self._scalar(declared, from_text=True) or self._of_json(self._complex(declared))

    def _scalar(self, declared: Mapping[str, Any], from_text: bool) -> Convert | None:
        from_json = self._reading.from_json or self._reading.from_text
        convert = scalar(declared, self._clock, from_text, from_json)
        if convert in WHOLE_NUMBERS and convert is not None:
            return with_point(convert, self._losses)
        if convert and declared["type"] in ("enum", "fixed"):
            self._named[declared["name"]] = convert
        return convert

    def _complex(self, declared: Mapping[str, Any]) -> Convert:
        kind = declared["type"]
        if kind == "record":
            return self.record(declared, lambda field: self.value(field["type"]))
        if kind == "array":
            return _array(self.value(declared["items"]))
        if kind == "map":
            return _map(self.value(declared["values"]))
        return lambda value: self._named[kind](value)

    def _of_json(self, convert: Convert) -> Convert:
        def convert_json(text: str) -> Any:
            try:
                value = self._decoder.decode_whole(text)
            except ValueError as exc:
                raise ValueError(f"{shown(text)} is no JSON: {exc}") from exc
            return convert(value)

        return convert_json

    def _is_nested(self, branch: Any) -> bool:
        kind = branch["type"] if isinstance(branch, dict) else branch
        return kind in ("record", "array", "map") or kind in self._records

    def _union(self, branches: list[Any], compile_branch: Callable[[Any], Convert]) -> Convert:
        nullable = "null" in branches
        from_text = compile_branch == self._filled_cell
        nulls = self._reading.nulls_of(branches) if from_text else frozenset()
        others = [Branch(branch, compile_branch(branch)) for branch in branches if branch != "null"]
        # With the name of its branch, where fastavro would look through all that a value holds to find it, and err.
        is_nested = any(self._is_nested(branch.declared) for branch in others)
        is_alone = len(others) == 1 and not is_nested
        convert = others[0].convert if is_alone else to_branch(others, from_text, self._losses)
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
        except MISFITS as exc:
            raise UnfitError(_reason(exc), source) from exc


def _reason(exc: Exception) -> str:
    if isinstance(exc, RecursionError):
        return "it is nested too deeply"
    # What libraries say of a value that nobody foresaw helps nobody.
    return str(exc) if isinstance(exc, ValueError) else f"its value cannot be converted ({type(exc).__name__})"


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
