"""Checks that an Avro schema's text is one that every reader takes, and takes alike.

fastavro accepts much that Java's reader, which Spark uses, refuses when a job is already running: namespaces with a
dash, a union in a union, defaults that their type cannot hold. So the text is checked here by the specification (1.12).
Where the two readers take a text differently, it is refused too. A logical type that makes no sense where it stands is
no error: the specification has readers ignore it, and read what lies below.
"""

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from conf.errors import TidemarkError
from schemas.schema_text import NAMED, PRIMITIVE, full_name, invalid_schema, read_json, without_ignored_logical_types
from schemas.wire import INT, LONG

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FULL_NAME = re.compile(rf"{NAME.pattern}(\.{NAME.pattern})*")
COMPLEX = NAMED | {"array", "map"}
ORDERS = ("ascending", "descending", "ignore")
RANGES = {"int": INT, "long": LONG}
FLOATS = {"float": "<f", "double": "<d"}
LARGEST_FIXED = 2**31 - 9  # the longest array of bytes that Java makes
# Of values that are looked at to see whether defaults are of their types: for a record that is made of nothing but
# defaults, which are made of such again, Java's parser would take longer than anybody waits.
DEFAULT_VALUES = 200_000
# Of types inside each other: measured to run, in the times that docs/decoding.md has.
DEPTH = 32


def load_schema(text: str) -> Any:
    """Return the schema as JSON values, without the logical types that mean nothing where they stand; raises
    TidemarkError INVALID_SCHEMA, with the place and what is wrong there."""
    schema = read_json(text)
    check = _Check()
    check.type(schema, "schema", "", 0)
    check.finish()
    schema = without_ignored_logical_types(schema)
    try:
        parse_schema(schema)
    except (ValueError, SchemaParseException, UnknownType, LookupError, TypeError, AttributeError) as exc:
        raise invalid_schema(f"{type(exc).__name__}: {exc}") from exc
    return schema


def parse_text(text: str) -> Any:
    """Return the schema in fastavro's parsed form; raises TidemarkError INVALID_SCHEMA."""
    return parse_schema(load_schema(text))


def is_valid(text: str) -> bool:
    try:
        load_schema(text)
    except TidemarkError:
        return False
    return True


def without_unfit_defaults(schema: Any) -> list[str]:
    """Take the defaults that are none of their types out of a schema (JSON values); return what was wrong with each.
    Raises TidemarkError INVALID_SCHEMA, where something else is wrong."""
    wrong: list[str] = []
    while True:
        check = _Check()
        check.type(schema, "schema", "", 0)
        unfit = [*check.unfit_defaults()]
        if not unfit:
            return wrong
        for what, field in unfit:
            wrong.append(what)
            del field["default"]


class _Check:
    """Goes over a schema, and raises at the first thing that a reader would refuse."""

    def __init__(self) -> None:
        self._named: dict[str, Mapping[str, Any]] = {}
        self._spaces: dict[int, str] = {}
        self._aliases: list[tuple[str, str]] = []
        self._defaults: list[tuple[str, dict[str, Any], str]] = []
        self._values = 0

    def finish(self) -> None:
        """Say what can be said only once every named type is known."""
        for name, place in self._aliases:
            _require(name not in self._named, place, f"the alias `{name}` is the name of another type")
        for name in self._named:
            twin = next((other for other in self._named if "." not in name and other.endswith(f".{name}")), None)
            _require(twin is None, "schema", f"`{name}`, without a namespace, cannot be told from `{twin}` within it")
        for what, _ in self.unfit_defaults():
            raise invalid_schema(what)

    def unfit_defaults(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each field whose default is none of its type, and what is wrong there."""
        for place, field, namespace in self._defaults:
            schema, value = field["type"], field["default"]
            if self._fits(schema, namespace, value):
                continue
            chosen = self._chosen(schema, value, namespace) if isinstance(schema, list) else schema
            if chosen is None:
                kinds = ", ".join(self._kind(branch, namespace) for branch in schema)
                what = f"is of none of the union's types ({kinds})"
            else:
                more = ", the union's first type that readers take it for" if isinstance(schema, list) else ""
                what = f"is none that {self._kind(chosen, namespace)} can hold{more}"
            yield f"{place}: the default {_shown(value)} {what}", field

    def type(self, schema: Any, place: str, namespace: str, depth: int) -> None:
        _require(depth <= DEPTH, place, f"types lie deeper than {DEPTH} levels inside each other")
        if isinstance(schema, list):
            self._union(schema, place, namespace, depth)
        elif isinstance(schema, str):
            is_type = schema in PRIMITIVE or full_name(schema, namespace) in self._named
            _require(is_type, place, f"there is no type `{schema}`: a name is defined before it is used")
        else:
            _require(isinstance(schema, dict), place, f"{_shown(schema)} is no type")
            self._object(schema, place, namespace, depth)

    def _object(self, schema: Mapping[str, Any], place: str, namespace: str, depth: int) -> None:
        _check_attributes(schema, place)
        kind = schema.get("type")
        _require(isinstance(kind, str), place, f"`type` is {_shown(kind)}, and must be the name of a type")
        if kind in NAMED:
            self._definition(str(kind), schema, place, namespace, depth)
        elif kind in ("array", "map"):
            inner = "items" if kind == "array" else "values"
            _require(inner in schema, place, f"{kind} has no `{inner}`")
            self.type(schema[inner], place, namespace, depth + 1)
        else:
            _require(kind in PRIMITIVE, place, f"there is no type `{kind}` to be described: use a name as it is")

    def _union(self, branches: list[Any], place: str, namespace: str, depth: int) -> None:
        for branch in branches:
            _require(not isinstance(branch, list), place, "a union lies within a union: make it one")
            self.type(branch, place, namespace, depth)
        kinds = [self._kind(branch, namespace) for branch in branches]
        _require(len(set(kinds)) == len(kinds), place, f"a union repeats a type: {', '.join(kinds)}")

    def _definition(self, kind: str, schema: Mapping[str, Any], place: str, namespace: str, depth: int) -> None:
        name, inner_namespace = self._name(schema, place, namespace)
        _require(name not in self._named, place, f"`{name}` is defined twice")
        # Before its fields, which may be of this very type.
        self._named[name] = schema
        self._spaces[id(schema)] = inner_namespace
        for alias in _names(schema, place):
            _require(FULL_NAME.fullmatch(alias), place, f"the alias `{alias}` is no Avro name")
            if full_name(alias, inner_namespace) != name:
                self._aliases.append((full_name(alias, inner_namespace), place))
        if kind == "enum":
            _check_enum(schema, name)
        elif kind == "fixed":
            size = schema.get("size")
            is_size = type(size) is int and 0 <= size <= LARGEST_FIXED
            _require(is_size, place, f"fixed `{name}` has the size {_shown(size)}")
        else:
            self._record(schema, inner_namespace, depth)

    def _name(self, schema: Mapping[str, Any], place: str, namespace: str) -> tuple[str, str]:
        """Return the full name, and the namespace of what lies within."""
        name, space = schema.get("name"), schema.get("namespace", namespace)
        _require(isinstance(name, str), place, f"{schema['type']} has the name {_shown(name)}")
        _require(FULL_NAME.fullmatch(str(name)), place, f"`{name}` is no Avro name")
        if "." in str(name):
            return str(name), str(name).rpartition(".")[0]
        # Java takes null for the namespace around it, fastavro for none.
        _require(isinstance(space, str) or (space is None and not namespace), place, f"namespace is {_shown(space)}")
        is_space = not space or FULL_NAME.fullmatch(space)
        _require(is_space, place, f"namespace `{space}` of `{name}` is no Avro name: letters, digits, _ between dots")
        is_word = name in PRIMITIVE | COMPLEX and not space
        _require(not is_word, place, f"a type may not be named `{name}`, which is one of Avro's own")
        return full_name(str(name), space or ""), space or ""

    def _record(self, record: Mapping[str, Any], namespace: str, depth: int) -> None:
        fields = record.get("fields")
        _require(isinstance(fields, list), f"record `{record['name']}`", "has no list of fields", " ")
        taken: set[str] = set()
        for field in fields or ():
            name: Any = field.get("name") if isinstance(field, dict) else field
            place = f"field `{name}` of `{record['name']}`"
            _require(isinstance(field, dict) and isinstance(name, str), place, "this is no field with a name")
            _require(NAME.fullmatch(name), place, "this is no Avro name")
            _require(name not in taken, place, "is there twice", " ")
            taken.add(name)
            _require("type" in field, place, "has no type", " ")
            # Its default is looked at with its type.
            _check_attributes({key: value for key, value in field.items() if key != "default"}, place)
            self.type(field["type"], place, namespace, depth + 1)
            order = field.get("order", "ascending")
            _require(order in ORDERS, place, f"order is {_shown(order)}, and may be {', '.join(ORDERS)}")
            if "default" in field:
                self._defaults.append((place, field, namespace))
        for field in fields or ():
            place = f"field `{field['name']}` of `{record['name']}`"
            for alias in set(_names(field, place)) - {field["name"]}:
                _require(NAME.fullmatch(alias), place, f"the alias `{alias}` is no Avro name")
                _require(alias not in taken, place, f"the alias `{alias}` is another field's name or alias")
                taken.add(alias)

    def _kind(self, schema: Any, namespace: str) -> str:
        """Return what a union may have once."""
        if isinstance(schema, list):
            return "union"
        if isinstance(schema, str):
            return schema if schema in PRIMITIVE else full_name(schema, namespace)
        space = self._spaces.get(id(schema))
        return str(schema["type"]) if space is None else full_name(schema["name"], space)

    def _fits(self, schema: Any, namespace: str, value: Any, filled: tuple[int, ...] = ()) -> bool:
        """Return whether `value`, a default in JSON, is one of a type; the fields `filled` are being made of theirs."""
        self._values += 1
        what = f"its defaults, and the defaults that those are made of, hold more than {DEFAULT_VALUES:,} values"
        _require(self._values <= DEFAULT_VALUES, "schema", what)
        if isinstance(schema, list):
            chosen = self._chosen(schema, value, namespace)
            return chosen is not None and self._fits(chosen, namespace, value, filled)
        if isinstance(schema, str):
            schema = {"type": schema} if schema in PRIMITIVE else self._named[full_name(schema, namespace)]
        kind, space = schema["type"], self._spaces.get(id(schema), namespace)
        if kind in ("record", "error"):
            return isinstance(value, dict) and self._fits_record(schema, space, value, filled)
        if kind == "array":
            return isinstance(value, list) and all(self._fits(schema["items"], space, item, filled) for item in value)
        if kind == "map":
            is_map = isinstance(value, dict)
            return is_map and all(self._fits(schema["values"], space, item, filled) for item in value.values())
        if kind == "enum":
            return value in schema["symbols"]
        return _fits_plain(kind, schema.get("size"), value)

    def _chosen(self, branches: list[Any], value: Any, namespace: str) -> Any:
        """Return the type of a union that Java's reader takes a default for, though it may not hold that; None where
        there is none."""
        return next((branch for branch in branches if takes_json(self._avro_type(branch, namespace), value)), None)

    def _avro_type(self, schema: Any, namespace: str) -> str:
        if isinstance(schema, str) and schema not in PRIMITIVE:
            schema = self._named[full_name(schema, namespace)]
        return str(schema if isinstance(schema, str) else schema["type"])

    def _fits_record(
        self, record: Mapping[str, Any], space: str, value: dict[str, Any], filled: tuple[int, ...]
    ) -> bool:
        for field in record["fields"]:
            inner = filled
            if field["name"] in value:
                field_value = value[field["name"]]
            elif "default" in field and id(field) not in filled:
                field_value, inner = field["default"], (*filled, id(field))
            else:
                return False
            if not self._fits(field["type"], space, field_value, inner):
                return False
        return True


def _check_attributes(attributes: Mapping[str, Any], place: str) -> None:
    """Refuse whole numbers of more than 64 bits, for which Java's parser knows no attribute."""
    low, high = RANGES["long"]
    for name, value in attributes.items():
        fits = not isinstance(value, int) or low <= value <= high
        _require(fits, place, f"the attribute `{name}` is {_shown(value)}, which is no number of 64 bits")


def _check_enum(enum: Mapping[str, Any], name: str) -> None:
    symbols, place = enum.get("symbols"), f"enum `{name}`"
    _require(isinstance(symbols, list), place, "has no list of symbols", " ")
    for symbol in symbols or ():
        is_name = isinstance(symbol, str) and NAME.fullmatch(symbol)
        _require(is_name, place, f"the symbol {_shown(symbol)} is no Avro name")
    _require(len(set(symbols or ())) == len(symbols or ()), place, "a symbol is there twice")
    if "default" in enum:
        what = f"the default {_shown(enum['default'])} is none of its symbols"
        _require(enum["default"] in (symbols or ()), place, what)


def _fits_plain(kind: str, size: int | None, value: Any) -> bool:
    if kind in RANGES:
        low, high = RANGES[kind]
        return type(value) is int and low <= value <= high
    if kind in FLOATS:
        try:
            struct.pack(FLOATS[kind], value)
        except (OverflowError, struct.error):
            return False
        return type(value) in (int, float) and math.isfinite(value)
    if kind in ("bytes", "fixed"):
        # Each character stands for the byte of its number.
        is_bytes = isinstance(value, str) and all(character <= "\xff" for character in value)
        return is_bytes and (kind == "bytes" or len(value) == size)
    return type(value) is {"null": type(None), "boolean": bool, "string": str}[kind]


JSON_KINDS: dict[type, frozenset[str]] = {
    type(None): frozenset({"null"}),
    bool: frozenset({"boolean"}),
    int: frozenset({"int", "long", "float", "double"}),
    float: frozenset({"int", "long", "float", "double"}),
    str: frozenset({"string", "bytes", "fixed"}),
}
TAKE_ANY = frozenset({"record", "error", "enum", "array", "map"})


def takes_json(kind: str, value: Any) -> bool:
    """Return whether Java's reader takes a default in JSON for one of an Avro type, if no earlier one of a union does:
    it looks at the kind of JSON, and not even at that where the type is no plain one."""
    return kind in TAKE_ANY or kind in JSON_KINDS.get(type(value), ())


def _names(declared: Mapping[str, Any], place: str) -> list[str]:
    aliases = declared.get("aliases", [])
    is_list = isinstance(aliases, list) and all(isinstance(alias, str) for alias in aliases)
    _require(is_list, place, f"aliases are {_shown(aliases)}, and must be a list of names")
    return list(aliases)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _require(holds: object, place: str, what: str, joint: str = ": ") -> None:
    if not holds:
        raise invalid_schema(f"{place}{joint}{what}")
