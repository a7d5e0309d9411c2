"""Reads which parts of an event are personal data, and how they are treated: the attribute `pii` of a schema.

    {"name": "email", "type": "string", "pii": "hash"}

"hash" gives a keyed hash (the same for the same value, so that it can be joined and counted), "mask" leaves a text's
shape (letters x and X, digits n), "drop" leaves the field out. A mark stands on a field or on a type; one on a type
that has a name holds wherever the name is used. A mark that nothing would treat is an error, never ignored.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from conf.errors import TidemarkError, nearest
from schemas.schema_text import NAMED, PRIMITIVE, full_name
from schemas.spark_limits import types_within
from schemas.validity import load_schema

Treatment = Literal["hash", "mask", "drop"]
ATTRIBUTE = "pii"
# The attribute that holds the types within a type.
WALKED = {"record": ("fields",), "error": ("fields",), "array": ("items",), "map": ("values",)}


@dataclass(frozen=True)
class PiiFields:
    """The marked fields of a record, by name: their treatment, or the marks within them.

    A treatment holds for each item of an array or map, however deep; so do marks within.
    """

    fields: Mapping[str, "Treatment | PiiFields"] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.fields)

    def covers(self, path: str) -> bool:
        """Return whether the field at a dotted `path`, one around it or one in it is marked."""
        name, _, rest = path.partition(".")
        mark = self.fields.get(name)
        return mark.covers(rest) if isinstance(mark, PiiFields) and rest else mark is not None

    def treatments(self) -> Iterator[Treatment]:
        # A record that many fields are of has its marks once.
        left, seen = [self], {id(self)}
        while left:
            for mark in left.pop().fields.values():
                if not isinstance(mark, PiiFields):
                    yield mark
                elif id(mark) not in seen:
                    seen.add(id(mark))
                    left.append(mark)


def pii_fields_of(text: str) -> PiiFields:
    """Return the fields that a schema's text marks.

    Raises:
        TidemarkError: INVALID_SCHEMA; BAD_SCHEMA, where a mark has a treatment that is none or does not suit its type,
            contradicts another, stands where nothing is treated, or lies within a union of several types, whose values
            cannot be told apart here.
    """
    schema = load_schema(text)
    if not isinstance(schema, dict) or schema["type"] not in ("record", "error"):
        _refuse_strays(schema, "")
        return PiiFields()
    _refuse_strays(schema, "", "fields", is_type=True)
    reader = _Reader(dict(_named_types(schema, "")))
    marks = reader.record(schema, "", "")
    if reader.is_gone(schema, marks):
        raise _bad("", "every field is dropped, and nothing would be left", "drop fewer fields")
    return marks


def seems_marked(schema: Any) -> bool:
    """Return whether there is anything in a schema, as JSON values, that is spelt like a mark, sensible or not."""
    left = [schema]
    while left:
        for key, value in _attributes(left.pop()):
            if _is_mark(key):
                return True
            left.append(value)
    return False


Mark = Treatment | PiiFields | None
Named = Mapping[str, tuple[Mapping[str, Any], str]]
"""The named types of a schema, by full name, each with the namespace around it."""


def _named_types(kind: Any, namespace: str) -> Iterator[tuple[str, tuple[Mapping[str, Any], str]]]:
    for part in kind if isinstance(kind, list) else [kind]:
        if not isinstance(part, dict):
            continue
        within = namespace
        if part["type"] in NAMED:
            name = full_name(part["name"], part.get("namespace", namespace) or "")
            within = name.rpartition(".")[0]
            yield name, (part, namespace)
        for inner in types_within(part):
            yield from _named_types(inner, within)


class _Reader:
    def __init__(self, named: Named) -> None:
        self._named = named
        self._open: list[str] = []
        self._read: dict[str, PiiFields] = {}  # by names, each of which may be used any number of times

    def record(self, schema: Mapping[str, Any], path: str, namespace: str) -> PiiFields:
        name = full_name(schema["name"], schema.get("namespace", namespace) or "")
        if name in self._read:
            return self._read[name]
        if name in self._open:
            raise _bad(path, f"record {name} holds itself", "give the events a depth that is fixed")
        self._open.append(name)
        marks: dict[str, Treatment | PiiFields] = {}
        for declared in schema["fields"]:
            mark = self._field(declared, f"{path}.{declared['name']}".lstrip("."), name.rpartition(".")[0])
            if mark:
                marks[declared["name"]] = mark
        self._open.remove(name)
        self._read[name] = PiiFields(marks)
        return self._read[name]

    def is_gone(self, record: Mapping[str, Any], marks: PiiFields) -> bool:
        """Return whether no field is left of a record that has some: a table has no column for that."""
        return bool(marks) and all(marks.fields.get(declared["name"]) == "drop" for declared in record["fields"])

    def _field(self, declared: Mapping[str, Any], path: str, namespace: str) -> Mark:
        _refuse_strays(declared, path, "type", "default", is_type=True)
        outer = _treatment(declared, path)
        # What lies within a dropped field goes too; where its types are used again, they are looked at.
        inner = None if outer == "drop" else self._type(declared["type"], path, namespace)
        return self._both(outer, inner, declared["type"], path, namespace)

    def _type(self, kind: Any, path: str, namespace: str) -> Mark:
        """Return the marks on a type and within it, through arrays, maps and unions with null."""
        if isinstance(kind, list):
            return self._union(kind, path, namespace)
        if isinstance(kind, str):
            named = self._named.get(full_name(kind, namespace))
            return self._type(named[0], path, named[1]) if named and kind not in PRIMITIVE else None
        _refuse_strays(kind, path, *WALKED.get(kind["type"], ()), is_type=True)
        outer = _treatment(kind, path)
        inner: Mark = None
        if outer != "drop" and kind["type"] in ("record", "error"):
            marks = self.record(kind, path, namespace)
            inner = "drop" if self.is_gone(kind, marks) else marks or None
        elif outer != "drop" and kind["type"] in ("array", "map"):
            (items,) = types_within(kind)
            inner = self._type(items, path, namespace)
            if inner == "drop" and not self._kinds(items, namespace) & {"record", "error"}:
                raise _bad(path, f"what an {kind['type']} holds cannot be dropped from it", "drop the field")
        return self._both(outer, inner, kind, path, namespace)

    def _union(self, branches: list[Any], path: str, namespace: str) -> Mark:
        marked = [(self._kinds(branch, namespace), self._type(branch, path, namespace)) for branch in branches]
        marks = [mark for _, mark in marked if mark]
        if any(mark and "null" in kinds for kinds, mark in marked):
            raise _bad(path, "null is marked as personal", "mark the type beside it")
        if marks and len([kinds for kinds, _ in marked if "null" not in kinds]) > 1:
            raise _bad(path, "a union of several types holds what is marked as personal", "make each its own field")
        return marks[0] if marks else None

    def _both(self, outer: Treatment | None, inner: Mark, kind: Any, path: str, namespace: str) -> Mark:
        """Return what a mark on a field or type comes to, with those within it."""
        if outer is None or outer == "drop":
            return outer or inner
        if inner and inner != outer:
            raise _bad(path, f"it is marked {outer}, and its type otherwise", "take one of the marks out")
        kinds = self._kinds(kind, namespace) - {"null"}
        shown = ", ".join(sorted(kinds)) or "null"
        if outer == "mask" and kinds != {"string"}:
            raise _bad(path, f"only text can be masked, and this is {shown}", "use hash or drop")
        if outer == "hash" and (len(kinds) != 1 or kinds & {"record", "error", "array", "map"}):
            raise _bad(path, f"only one plain value can be hashed, and this is {shown}", "use drop")
        return outer

    def _kinds(self, kind: Any, namespace: str) -> set[str]:
        if isinstance(kind, list):
            return {name for branch in kind for name in self._kinds(branch, namespace)}
        if isinstance(kind, str) and kind not in PRIMITIVE:
            return {str(self._named[full_name(kind, namespace)][0]["type"])}
        return {kind if isinstance(kind, str) else str(kind["type"])}


def _treatment(declared: Mapping[str, Any], path: str) -> Treatment | None:
    if ATTRIBUTE not in declared:
        return None
    treatment = declared[ATTRIBUTE]
    if treatment not in get_args(Treatment):
        remedy = nearest(str(treatment), list(get_args(Treatment)))
        raise _bad(path, f"`{ATTRIBUTE}` is {json.dumps(treatment)}", remedy)
    return treatment  # type: ignore[no-any-return]


def _refuse_strays(declared: Any, path: str, *walked: str, is_type: bool = False) -> None:
    """Raise BAD_SCHEMA where a mark is misspelt, or lies in an attribute in which no marks are looked for.

    The attributes `walked` are looked at otherwise, or hold data. On a field or a type, `is_type`, a mark may stand.
    """
    for key, value in _attributes(declared):
        if _is_mark(key) and not (is_type and path and key == ATTRIBUTE):
            raise _bad(path, f"nothing treats the mark `{key}` there", f"mark fields, or their types: `{ATTRIBUTE}`")
        if key not in walked:
            _refuse_strays(value, path)


def _is_mark(key: str) -> bool:
    """Return whether an attribute is a mark, whichever way it is spelt: `PII`, `pii ` and `p-i-i` too."""
    return "".join(filter(str.isalnum, key)).lower() == ATTRIBUTE


def _attributes(declared: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of an object, or of the objects in a list, however deep."""
    if isinstance(declared, dict):
        yield from declared.items()
    elif isinstance(declared, list):
        for value in declared:
            yield from _attributes(value)


def _bad(path: str, what: str, remedy: str) -> TidemarkError:
    return TidemarkError("BAD_SCHEMA", f"{f'field {path}' if path else 'the event'}: {what}", remedy)
