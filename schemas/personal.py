"""Which fields of an event are personal data, and what becomes of them: the attribute `pii` of a schema's fields.

    {"name": "email", "type": "string", "pii": "hash"}

"hash" gives a keyed hash (the same for the same value, so that it can be joined and counted), "mask" leaves a text's
shape (letters x and X, digits n), "drop" leaves the field out.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from conf.errors import TidemarkError, nearest

Treatment = Literal["hash", "mask", "drop"]
ATTRIBUTE = "pii"


@dataclass(frozen=True)
class Marks:
    """The marked fields of a record, by name: their treatment, or the marks within them."""

    fields: Mapping[str, "Treatment | Marks"] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.fields)

    def hold(self, path: str) -> bool:
        """Whether the field at a dotted `path`, one around it or one in it is marked."""
        name, _, rest = path.partition(".")
        mark = self.fields.get(name)
        return mark.hold(rest) if isinstance(mark, Marks) and rest else mark is not None

    def treatments(self) -> Iterator[Treatment]:
        """Every treatment that is asked for, as often as it is."""
        for mark in self.fields.values():
            if isinstance(mark, Marks):
                yield from mark.treatments()
            else:
                yield mark


def marks_of(text: str) -> Marks:
    """The marks of a schema's text.

    Raises:
        TidemarkError: BAD_SCHEMA, where a field has a treatment that is none, that does not suit its type, or where
            marks lie within a union of several types, whose values cannot be told apart here.
    """
    return _Reader().record(json.loads(text), "")


class _Reader:
    def __init__(self) -> None:
        self._named: dict[str, Any] = {}
        self._open: list[str] = []

    def record(self, schema: Mapping[str, Any], path: str) -> Marks:
        name = schema["name"].rsplit(".", 1)[-1]
        if name in self._open:
            raise _bad(path, f"record {name} holds itself", "give the events a depth that is fixed")
        self._named[name] = schema
        self._open.append(name)
        found: dict[str, Treatment | Marks] = {}
        for each in schema["fields"]:
            here = f"{path}.{each['name']}".lstrip(".")
            mark = _treatment(each, here) if ATTRIBUTE in each else self._within(each["type"], here)
            if mark:
                found[each["name"]] = mark
        self._open.remove(name)
        return Marks(found)

    def _within(self, kind: Any, path: str) -> Marks:
        """The marks of the records in a type, through arrays, maps and unions with null."""
        if isinstance(kind, list):
            branches = [branch for branch in kind if branch != "null"]
            marks = [self._within(branch, path) for branch in branches]
            if len(branches) > 1 and any(marks):
                raise _bad(path, "a union of several types holds fields marked as personal", "make each its own field")
            return marks[0] if marks else Marks()
        if isinstance(kind, str):
            name = kind.rsplit(".", 1)[-1]
            return self.record(self._named[name], path) if name in self._named else Marks()
        if kind["type"] == "record":
            return self.record(kind, path)
        inner = kind.get("items", kind.get("values", kind["type"]))
        return Marks() if isinstance(inner, str) and inner not in self._named else self._within(inner, path)


def _treatment(declared: Mapping[str, Any], path: str) -> Treatment:
    treatment = declared[ATTRIBUTE]
    if treatment not in get_args(Treatment):
        remedy = nearest(str(treatment), list(get_args(Treatment)))
        raise _bad(path, f"`{ATTRIBUTE}` is {json.dumps(treatment)}", remedy)
    kinds = {_name(branch) for branch in _branches(declared["type"])} - {"null"}
    if treatment == "mask" and kinds != {"string"}:
        raise _bad(path, f"only text can be masked, and this is {', '.join(sorted(kinds))}", "use hash or drop")
    if treatment == "hash" and kinds & {"record", "array", "map"} | (kinds if len(kinds) > 1 else set()):
        raise _bad(path, f"only one plain value can be hashed, and this is {', '.join(sorted(kinds))}", "use drop")
    return treatment  # type: ignore[no-any-return]


def _branches(kind: Any) -> list[Any]:
    return kind if isinstance(kind, list) else [kind]


def _name(kind: Any) -> str:
    return str(kind["type"]) if isinstance(kind, dict) else str(kind)


def _bad(path: str, what: str, remedy: str) -> TidemarkError:
    return TidemarkError("BAD_SCHEMA", f"field {path}: {what}", remedy)
