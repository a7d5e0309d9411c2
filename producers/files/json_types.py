"""Infers types from JSON values: what every value of a field has in common, at every depth."""

from decimal import Decimal
from typing import Any

from producers.files.avro_fields import Field, avro_name, record
from producers.files.rows import Input, is_utf8, readable
from producers.files.text_types import AVRO, TIMES, is_time
from schemas.validity import DEPTH

LONG_LIMIT = 1 << 63
EXACT_DOUBLE_LIMIT = 1 << 53
TOO_LARGE, TOO_LONG = "number of more than 64 bits", "number of more digits than a double holds"
TOO_DEEP = f"values that go on below {DEPTH} levels"
# What no type holds is published as its JSON text.
AS_JSON = ("mixed", TOO_LARGE, TOO_LONG, TOO_DEEP)
# A string that holds any value, as its JSON text: see schemas.values.
JSON_TEXT = {"type": "string", "json": True}


class Shape:
    """Everything that one field was seen to hold, so many levels deep; below the last one a schema has no types."""

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self.kinds: set[str] = set()
        self.has_null = False
        self.fields: dict[str, Shape] = {}
        self.items: Shape | None = None
        self.largest = 0
        self.lost_names = False

    def add(self, value: Any) -> None:
        """Look at one more value."""
        if value is None:
            self.has_null = True
        elif isinstance(value, dict | list) and self._depth == DEPTH:
            self.kinds.add(TOO_DEEP)
        elif isinstance(value, dict):
            self.kinds.add("record")
            for name, child in value.items():
                if name not in self.fields and is_utf8(name):
                    self.fields[name] = Shape(self._depth + 1)
                if name in self.fields:
                    self.fields[name].add(child)
                else:
                    self.lost_names = True
        elif isinstance(value, list):
            self.kinds.add("array")
            self.items = self.items or Shape(self._depth + 1)
            for child in value:
                self.items.add(child)
        else:
            self._add_scalar(value)

    def _add_scalar(self, value: Any) -> None:
        if isinstance(value, bool):
            self.kinds.add("boolean")
        elif isinstance(value, int):
            self.kinds.add("long" if -LONG_LIMIT <= value < LONG_LIMIT else TOO_LARGE)
            self.largest = max(self.largest, abs(value))
        elif isinstance(value, str):
            # Once there is other text, what looks like a time is text as well.
            is_maybe_time = "string" not in self.kinds and value[:1].isdigit()
            self.kinds.add(next((kind for kind in TIMES if is_maybe_time and is_time(kind, value)), "string"))
        else:
            self.kinds.add(TOO_LONG if isinstance(value, Decimal) else "double")

    def kind(self) -> str:
        """Return one kind for all values; "mixed" where there is none."""
        kinds = set(self.kinds)
        if {"long", "double"} <= kinds and self.largest <= EXACT_DOUBLE_LIMIT:
            kinds.discard("long")
        if "string" in kinds or {"date", "timestamp"} <= kinds:
            kinds = kinds - {"date", "timestamp"} | {"string"}
        return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "string"

    def avro(self, name: str) -> Any:
        """Return the type, without null; `name` is that of the record, should it be one."""
        kind = self.kind()
        if kind == "record" and self.fields:
            return record(name, self.record_fields(name))
        if kind == "record":
            return {"type": "map", "values": "string"}
        if kind == "array" and self.items is not None:
            item = self.items.avro(f"{name}_item")
            return {"type": "array", "items": ["null", item] if self.items.has_null else item}
        return JSON_TEXT if kind in AS_JSON else AVRO.get(kind, kind)

    def record_fields(self, name: str) -> list[Field]:
        """Return the fields of an object, in the order in which they were first seen."""
        return [Field(source, shape.avro(f"{name}_{avro_name(source)}")) for source, shape in self.fields.items()]

    def notes(self, path: str = "") -> list[str]:
        """Return where a value is published as its JSON text, and why."""
        notes = []
        if self.lost_names:
            where = f"`{path}` has" if path else "there are"
            notes.append(f"{where} names with half of a surrogate pair, which are no text: their rows will be rejected")
        if self.kind() in AS_JSON:
            notes.append(
                f"`{path}` is string, with other values as their JSON text: {' and '.join(sorted(self.kinds))}"
            )
        for source, shape in self.fields.items():
            notes += shape.notes(f"{path}.{source}" if path else source)
        return notes + (self.items.notes(f"{path}[]") if self.items else [])


class JsonTypes:
    """The objects of JSON-lines files."""

    def __init__(self) -> None:
        self._shape = Shape()
        self.count = 0
        self.problems: list[str] = []

    def add(self, file: Input) -> None:
        for values in readable(file, self.problems):
            self._shape.add(values)
            self.count += 1

    def fields(self, name: str) -> list[Field]:
        return self._shape.record_fields(name)

    def notes(self) -> list[str]:
        return self._shape.notes()
