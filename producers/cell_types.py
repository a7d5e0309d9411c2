"""Inference from text cells: the narrowest type that every value of a column reads back from unchanged."""

from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from producers.avro_records import Field
from producers.rows import Input

CHUNK_ROWS = 20_000
# A type that fits less than this share of the values is no candidate any more, not even worth a note.
WORTH_A_NOTE = 0.9
# In order of preference. A leading zero or a plus makes a code, not a number; 18 digits fit a long, and 15 before
# the point a double. What matches and still is none (31 February) is refused when it is published.
PATTERNS = {
    "boolean": r"^(?i:true|false)$",
    "long": r"^(0|-?[1-9][0-9]{0,17})$",
    "double": r"^(-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,17})?([eE][+-]?([0-9]{1,2}|[12][0-9]{2}))?"
    r"|(?i:nan|[+-]?inf(inity)?))$",
    "date": r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$",
    "timestamp": r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[T ][0-2][0-9]:[0-5][0-9]"
    r"(:[0-5][0-9](\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?$",
}
AVRO = {
    "date": {"type": "int", "logicalType": "date"},
    "timestamp": {"type": "long", "logicalType": "timestamp-micros"},
}


@dataclass
class Column:
    """What is known of one column: how many values there were, and, per type, how many did not fit, and the first."""

    count: int = 0
    misfits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PATTERNS, 0))
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, values: pa.Array) -> None:
        """Look at more values, none of them null."""
        self.count += len(values)
        for kind in list(self.misfits) if len(values) else []:
            fits = pc.match_substring_regex(values, PATTERNS[kind])
            bad = len(values) - (pc.sum(fits).as_py() or 0)
            if bad:
                self.examples.setdefault(kind, values.filter(pc.invert(fits))[0].as_py())
            self.misfits[kind] += bad
            if self.misfits[kind] > (1 - WORTH_A_NOTE) * self.count:
                del self.misfits[kind]

    def kind(self) -> str:
        """The column's type."""
        return next((kind for kind, bad in self.misfits.items() if bad == 0 and self.count), "string")

    def note(self, name: str) -> str | None:
        """Why the column is text, where few values make it so."""
        if self.kind() != "string" or not self.misfits or not self.count:
            return None
        kind, bad = min(self.misfits.items(), key=lambda item: item[1])
        return f"`{name}` is string: {bad:,} of {self.count:,} values are no {kind}, as {self.examples[kind]!r}"


class CellTypes:
    """The columns of CSV files, by name."""

    def __init__(self, nulls: frozenset[str]) -> None:
        self._nulls = pa.array(sorted(nulls), pa.string())
        self._columns: dict[str, Column] = {}
        self.count = 0

    def add(self, each: Input) -> None:
        """Look at every row that can be read."""
        for name in each.columns() or []:
            self._columns.setdefault(name, Column())
        rows = (row.values for row in each.rows() if row.values is not None)
        while chunk := list(islice(rows, CHUNK_ROWS)):
            self.count += len(chunk)
            for name in chunk[0]:
                values = pa.array([row[name] for row in chunk], pa.string())
                self._columns[name].add(values.filter(pc.invert(pc.is_in(values, self._nulls))))

    def fields(self, _: str) -> list[Field]:
        """The columns in the order in which they were first seen."""
        kinds: list[tuple[str, Any]] = [(name, column.kind()) for name, column in self._columns.items()]
        return [Field(name, AVRO.get(kind, kind)) for name, kind in kinds]

    def notes(self) -> list[str]:
        """What a reviewer should know."""
        notes = [column.note(name) for name, column in self._columns.items()]
        empty = [name for name, column in self._columns.items() if not column.count]
        found = [note for note in notes if note]
        return found + [f"`{name}` is string: it has no value" for name in empty]
