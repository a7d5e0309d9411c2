"""Inference from JSON values: what every value of a field has in common, at every depth."""

import re
from typing import Any

from producers.avro_records import Field, avro_name, record
from producers.cell_types import AVRO, PATTERNS
from producers.rows import Input

LONG_LIMIT = 1 << 63
EXACT_DOUBLE_LIMIT = 1 << 53
DATE = re.compile(PATTERNS["date"])
TIMESTAMP = re.compile(PATTERNS["timestamp"])
# A string that holds any value, as its JSON text: see schemas.values.
JSON_TEXT = {"type": "string", "json": True}


class Shape:
    """Everything that one field was seen to hold."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.has_null = False
        self.fields: dict[str, Shape] = {}
        self.items: Shape | None = None
        self.largest = 0

    def add(self, value: Any) -> None:
        """Look at one more value."""
        if value is None:
            self.has_null = True
        elif isinstance(value, dict):
            self.kinds.add("record")
            for name, child in value.items():
                self.fields.setdefault(name, Shape()).add(child)
        elif isinstance(value, list):
            self.kinds.add("array")
            self.items = self.items or Shape()
            for child in value:
                self.items.add(child)
        else:
            self._add_scalar(value)

    def _add_scalar(self, value: Any) -> None:
        if isinstance(value, bool):
            self.kinds.add("boolean")
        elif isinstance(value, int):
            self.kinds.add("long" if -LONG_LIMIT <= value < LONG_LIMIT else "number of more than 64 bits")
            self.largest = max(self.largest, abs(value))
        elif isinstance(value, str):
            # Once there is other text, what looks like a time is text as well.
            self.kinds.add("string" if "string" in self.kinds else _text_kind(value))
        else:
            self.kinds.add("double")

    def kind(self) -> str:
        """One kind for all values; "mixed" where there is none."""
        kinds = set(self.kinds)
        if {"long", "double"} <= kinds and self.largest <= EXACT_DOUBLE_LIMIT:
            kinds.discard("long")
        if "string" in kinds or {"date", "timestamp"} <= kinds:
            kinds = kinds - {"date", "timestamp"} | {"string"}
        return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "string"

    def avro(self, name: str) -> Any:
        """The type, without null; `name` is that of the record, should it be one."""
        kind = self.kind()
        if kind == "record" and self.fields:
            return record(name, self.record_fields(name))
        if kind == "record":
            return {"type": "map", "values": "string"}
        if kind == "array" and self.items is not None:
            item = self.items.avro(f"{name}_item")
            return {"type": "array", "items": ["null", item] if self.items.has_null else item}
        return JSON_TEXT if kind in ("mixed", "number of more than 64 bits") else AVRO.get(kind, kind)

    def record_fields(self, name: str) -> list[Field]:
        """The fields of an object, in the order in which they were first seen."""
        return [Field(source, shape.avro(f"{name}_{avro_name(source)}")) for source, shape in self.fields.items()]

    def notes(self, path: str = "") -> list[str]:
        """Where a value is published as its JSON text, and why."""
        found = []
        if self.kind() in ("mixed", "number of more than 64 bits"):
            found.append(
                f"`{path}` is string, with other values as their JSON text: {' and '.join(sorted(self.kinds))}"
            )
        for source, shape in self.fields.items():
            found += shape.notes(f"{path}.{source}" if path else source)
        return found + (self.items.notes(f"{path}[]") if self.items else [])


class JsonTypes:
    """The objects of JSON-lines files."""

    def __init__(self) -> None:
        self._shape = Shape()
        self.count = 0

    def add(self, each: Input) -> None:
        """Look at every row that can be read."""
        for row in each.rows():
            if row.values is not None:
                self._shape.add(row.values)
                self.count += 1

    def fields(self, name: str) -> list[Field]:
        """The fields in the order in which they were first seen."""
        return self._shape.record_fields(name)

    def notes(self) -> list[str]:
        """What a reviewer should know."""
        return self._shape.notes()


def _text_kind(text: str) -> str:
    if not text[:1].isdigit():
        return "string"
    return "date" if DATE.match(text) else "timestamp" if TIMESTAMP.match(text) else "string"
