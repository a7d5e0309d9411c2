"""Refuses schemas whose events Spark cannot read as what they are, or a table cannot hold."""

from collections.abc import Mapping
from typing import Any

from conf.errors import TidemarkError
from schemas.validity import DEPTH, parse_text, takes_json

DIGITS = 38  # of Spark's longest decimal
# Of the types of an event, each as often as it is referred to: Spark has no named types, and what Java's reader makes
# of a schema, the writer's too, has none either. No event that people work with comes near.
EXPANDED = 10_000
# What tables have beside the fields of an event, and what decoding adds while it works.
COLUMNS = frozenset({"_topic", "_partition", "_offset", "_timestamp", "_schema_id", "_deleted"})
# What Spark's reader of Parquet, and Delta's, fill in where a table has such columns, whatever was written.
READER_COLUMNS = frozenset({"_tmp_metadata_row_index", "__delta_internal_row_index", "__delta_internal_is_row_deleted"})
RESERVED_PREFIX, RESERVED_NAMESPACE = "tidemark_", "tidemark.wire."


class NamedTypes:
    """The named types of one schema (in fastavro's parsed form), by full name."""

    def __init__(self, schema: Any) -> None:
        self._types: dict[str, dict[str, Any]] = {}
        self._collect(schema)

    def of(self, schema: Any) -> dict[str, Any]:
        """Return `schema`, which is no union, as an object with `type`."""
        if isinstance(schema, str):
            return self._types.get(schema) or {"type": schema}
        return self.of(schema["type"]) if isinstance(schema["type"], dict) else dict(schema)

    def branches(self, schema: Any) -> list[Any]:
        """Return what `schema` may be besides null."""
        branches = schema if isinstance(schema, list) else [schema]
        return [branch for branch in branches if self.of(branch)["type"] != "null"]

    def _collect(self, schema: Any) -> None:
        for part in schema if isinstance(schema, list) else [schema]:
            if isinstance(part, dict):
                if "name" in part:
                    self._types[part["name"]] = part
                for inner in types_within(part):
                    self._collect(inner)


def types_within(declared: Mapping[str, Any]) -> list[Any]:
    """Return the types that an object directly holds: a record's fields', an array's or a map's one."""
    if declared["type"] in ("record", "error"):
        return [field["type"] for field in declared["fields"]]
    inner = {"array": "items", "map": "values"}.get(str(declared["type"]))
    return [declared[inner]] if inner else []


def is_reserved(name: str) -> bool:
    """Return whether no field of an event may be called so, whatever the case."""
    return name.lower() in COLUMNS | READER_COLUMNS or name.lower().startswith(RESERVED_PREFIX)


def event_schema(text: str) -> dict[str, Any]:
    """Return the schema of an event, in fastavro's parsed form.

    Raises:
        TidemarkError: INVALID_SCHEMA; BAD_SCHEMA, with the field that Spark cannot read as what it is or a table cannot
            hold, and what to do; see `require_expandable`, too.
    """
    schema = parse_text(text)
    require_expandable(schema)
    if not isinstance(schema, dict) or schema["type"] != "record":
        raise _bad("", f"an event must be a record, not {text[:60]}", "wrap the type into a record with one field")
    for field in schema["fields"]:
        name = field["name"].lower()
        if is_reserved(name):
            owner = "Spark's reader of tables" if name in READER_COLUMNS else "silver"
            what = f"{owner} has a column `{name}` of its own, whatever the case"
            raise _bad(field["name"], what, "give the field another name, with the old one among its aliases")
    _Check(NamedTypes(schema)).type(schema, "", ())
    return schema


def require_storable(text: str) -> None:
    """Raise TidemarkError BAD_SCHEMA, with the field, where a Delta table has no column for the events of a schema."""
    schema = event_schema(text)
    names = NamedTypes(schema)
    for field in schema["fields"]:
        _require_storable(field["type"], field["name"], False, names)


def require_expandable(schema: Any) -> None:
    """Raise TidemarkError BAD_SCHEMA where a schema has too many types, or too deep ones, once each name in it is
    replaced by what it stands for; `schema`, its own or a writer's, is in fastavro's parsed form."""
    size, depth = _Expanded(NamedTypes(schema)).of(schema)
    if size > EXPANDED:
        what = f"its types, each as often as it is referred to, are {size:,}, and {EXPANDED:,} are the most"
        raise _bad("", what, "refer to its records less often, or hold inner ones as JSON in a string")
    if depth > DEPTH:
        what = f"its types lie {depth} levels inside each other, referred to by name, and {DEPTH} are the most"
        raise _bad("", what, "hold inner ones as JSON in a string")


def require_finite(schema: Any) -> None:
    """Raise TidemarkError BAD_SCHEMA, with the field, where a few bytes may claim to be any number of values of
    `schema`, in fastavro's parsed form."""
    _Finite(NamedTypes(schema)).type(schema, "", ())


class _Expanded:
    """Counts types and levels without expanding them: what a name stands for is counted once."""

    def __init__(self, names: NamedTypes) -> None:
        self._names = names
        self._named: dict[str, tuple[int, int]] = {}

    def of(self, schema: Any) -> tuple[int, int]:
        """Return how many types there are, and how many levels of them below the uppermost."""
        if isinstance(schema, list):
            branches = [self.of(branch) for branch in schema]
            return 1 + sum(size for size, _ in branches), max((depth for _, depth in branches), default=0)
        declared = self._names.of(schema)
        name = declared.get("name")
        if name in self._named:
            return self._named[name]
        if name is not None:
            self._named[name] = 1, 0  # within itself
        inner = [self.of(part) for part in types_within(declared)]
        counted = 1 + sum(size for size, _ in inner), max((depth + 1 for _, depth in inner), default=0)
        if name is not None:
            self._named[name] = counted
        return counted


def _require_storable(schema: Any, path: str, in_list: bool, names: NamedTypes) -> None:
    """Delta stores no struct without fields, where one of type null is none, and nothing of type null in a list."""
    branches = names.branches(schema)
    if not branches and (isinstance(schema, list) or in_list):
        raise _bad(path, "nothing but null can be there, for which a table has no column", "leave it out")
    for branch in branches:
        declared = names.of(branch)
        if declared["type"] in ("array", "map"):
            _require_storable(types_within(declared)[0], path, True, names)
        elif declared["type"] in ("record", "error"):
            fields = declared["fields"]
            if not any(names.branches(field["type"]) for field in fields):
                what = f"record `{declared['name']}` has no fields that hold anything, and a table no column for it"
                raise _bad(path, what, "give it a field, or leave it out")
            for field in fields:
                _require_storable(field["type"], f"{path}.{field['name']}", in_list, names)


class _Check:
    def __init__(self, names: NamedTypes) -> None:
        self._names = names
        self._nothing: dict[str, bool] = {}  # by names, each of which may be used any number of times

    def type(self, schema: Any, path: str, outer: tuple[str, ...]) -> None:
        if isinstance(schema, list):
            for branch in schema:
                self.type(branch, path, outer)
            return
        declared = self._names.of(schema)
        kind = declared["type"]
        if str(declared.get("name", "")).startswith(RESERVED_NAMESPACE):
            raise _bad(path, f"`{declared['name']}` is in a namespace of this project's own", "take another")
        if kind in ("record", "error"):
            self._record(declared, path, outer)
        elif kind in ("array", "map"):
            (items,) = types_within(declared)
            if kind == "array":
                self._require_items(items, path, outer)
            self.type(items, path, outer)
        elif declared.get("logicalType") == "decimal" and declared["precision"] > DIGITS:
            what = f"a decimal of {declared['precision']} digits, and Spark's have {DIGITS}"
            raise _bad(path, what, "write it as text, or with fewer digits")

    def _record(self, declared: dict[str, Any], path: str, outer: tuple[str, ...]) -> None:
        name = declared["name"]
        self._require_no_loop(declared, path, outer)
        fields = [field["name"].lower() for field in declared["fields"]]
        twice = next((field for field in fields if fields.count(field) > 1), None)
        if twice:
            what = f"`{name}` has two fields `{twice}` that differ in case alone"
            raise _bad(path, what, "give one of them another name")
        for field in declared["fields"]:
            place = f"{path}.{field['name']}".lstrip(".")
            misread = "default" in field and _misread_type(field["type"], field["default"], self._names)
            if misread:
                what = f"its default is a {misread} of a union that has another type before it which Spark takes it for"
                raise _bad(place, what, f"put {misread} before the other types, or take another default")
            self.type(field["type"], place, (*outer, name))

    def _require_no_loop(self, declared: dict[str, Any], path: str, outer: tuple[str, ...]) -> None:
        if declared["name"] in outer:
            what = f"record `{declared['name']}` holds itself, for which Spark has no type"
            raise _bad(path, what, "hold the inner one as JSON in a string")

    def _require_items(self, items: Any, path: str, outer: tuple[str, ...]) -> None:
        if self._is_nothing(items, outer):
            raise _bad(path, "array of items that take no bytes", "say how many there are in a field of type long")

    def _is_nothing(self, schema: Any, outer: tuple[str, ...]) -> bool:
        if isinstance(schema, list):
            return False
        declared = self._names.of(schema)
        if declared["type"] == "record" and declared["name"] not in outer:
            name, inner = declared["name"], (*outer, declared["name"])
            if name not in self._nothing:
                self._nothing[name] = all(self._is_nothing(field["type"], inner) for field in declared["fields"])
            return self._nothing[name]
        return declared["type"] == "null" or declared.get("size") == 0


class _Finite(_Check):
    """Makes only the checks without which a few bytes may claim any number of values, or any depth."""

    def __init__(self, names: NamedTypes) -> None:
        super().__init__(names)
        # Records that hold others twice, and those others again, would take forever.
        self._seen: set[str] = set()
        self._free: dict[str, int] = {}

    def type(self, schema: Any, path: str, outer: tuple[str, ...]) -> None:
        for branch in schema if isinstance(schema, list) else [schema]:
            declared = self._names.of(branch)
            if declared["type"] in ("record", "error"):
                self._require_no_loop(declared, path, outer)
                fields = declared["fields"] if declared["name"] not in self._seen else ()
                free = sum(self._without_bytes(field["type"]) for field in fields)
                if free > EXPANDED:
                    what = f"record `{declared['name']}` holds {free:,} values that take no bytes"
                    raise _bad(path, f"{what}, and {EXPANDED:,} are the most", "leave them out")
                for field in fields:
                    self.type(field["type"], f"{path}.{field['name']}".lstrip("."), (*outer, declared["name"]))
                self._seen.add(declared["name"])
            elif declared["type"] in ("array", "map"):
                (items,) = types_within(declared)
                if declared["type"] == "array":
                    self._require_items(items, path, outer)
                self.type(items, path, outer)

    def _without_bytes(self, schema: Any) -> int:
        """Return how many values one of a type is, itself among them, where it takes no bytes; else 0."""
        if not self._is_nothing(schema, ()):
            return 0
        declared = self._names.of(schema)
        if declared["type"] != "record":
            return 1
        if declared["name"] not in self._free:
            inner = sum(self._without_bytes(field["type"]) for field in declared["fields"])
            self._free[declared["name"]] = 1 + inner
        return self._free[declared["name"]]


def _bad(path: str, what: str, remedy: str) -> TidemarkError:
    return TidemarkError("BAD_SCHEMA", f"field {path}: {what}" if path else what, remedy)


def _misread_type(schema: Any, default: Any, names: NamedTypes) -> str | None:
    """Return the type of a union, anywhere within `schema`, that a part of `default` is of, and that Spark's reader
    would take for another; None for none.

    In Java's reader the default of a union is of the first type that `takes_json`. The form that Spark is given has a
    fixed of one byte for each boolean, so that booleans and text are of one kind there.
    """
    if isinstance(schema, list):
        kinds = [names.of(branch)["type"] for branch in schema]
        chosen = next(n for n, kind in enumerate(kinds) if takes_json(kind, default))
        as_read = "" if isinstance(default, bool) else default
        read = next(n for n, kind in enumerate(kinds) if takes_json("fixed" if kind == "boolean" else kind, as_read))
        return _misread_type(schema[chosen], default, names) if chosen == read else str(kinds[chosen])
    declared = names.of(schema)
    parts: list[tuple[Any, Any]] = []
    if declared["type"] in ("record", "error"):
        parts = [(part["type"], default[part["name"]]) for part in declared["fields"] if part["name"] in default]
    elif declared["type"] == "array":
        parts = [(declared["items"], item) for item in default]
    elif declared["type"] == "map":
        parts = [(declared["values"], item) for item in default.values()]
    return next((found for kind, value in parts if (found := _misread_type(kind, value, names))), None)
