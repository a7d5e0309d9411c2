"""What is in quarantine, counted by topic, error and rule: how much, since when, and how much was sent again."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from producers.quarantine.records import OF
from producers.quarantine.register import Register
from producers.quarantine.selection import Selection
from producers.quarantine.table import Quarantine

COLUMNS = ("topic", "partition", "offset", "error", "rule", "headers", "quarantined_at", "timestamp")
GROUPED = ["topic", "error", "rule"]
HEADINGS = ("topic", "error", "rule", "records", "redriven", "open", "came back", "first", "last")


@dataclass
class Count:
    """Rejected records of one topic, error and rule.

    Args:
        redriven: of which were sent again; None where no broker could be asked.
        came_back: of which are records that were sent again and rejected once more.
        first, last: when they were put into quarantine; the records' own times in an older table.
    """

    topic: str
    error: str
    rule: str
    records: int = 0
    redriven: int | None = 0
    came_back: int = 0
    first: str = ""
    last: str = ""

    def add(self, rows: pa.Table, redriven: npt.NDArray[np.bool_] | None) -> None:
        """Count `rows`, of which those that `redriven` marks were sent again."""
        self.records += rows.num_rows
        self.redriven = None if redriven is None else (self.redriven or 0) + int(redriven.sum())
        self.came_back += int(rows["came_back"].to_numpy().sum())
        span = pc.min_max(rows["at"]).as_py()
        if span["min"] is not None:
            first, last = (f"{span[edge]:%Y-%m-%dT%H:%M:%SZ}" for edge in ("min", "max"))
            self.first, self.last = min(self.first or first, first), max(self.last, last)

    def to_json(self) -> dict[str, Any]:
        """By the headings, `came_back` with an underscore."""
        unredriven = None if self.redriven is None else self.records - self.redriven
        shown = (self.topic, self.error, self.rule, self.records, self.redriven, unredriven, self.came_back)
        return dict(zip((name.replace(" ", "_") for name in HEADINGS), (*shown, self.first, self.last), strict=True))


def count(table: Quarantine, selection: Selection, redriven: Register | None) -> list[Count]:
    """The selected records, counted, in the order of topic, error and rule.

    Raises:
        TidemarkError: NO_SUCH_COLUMN.
    """
    counted: dict[tuple[str, ...], Count] = {}
    for batch in table.batches(selection, COLUMNS):
        rows = _counted_columns(batch)
        for key in rows.group_by(GROUPED).aggregate([]).to_pylist():
            same = (pc.equal(rows[name], value) for name, value in key.items())
            own = rows.filter(reduce(pc.and_, same))
            found = counted.setdefault(tuple(key.values()), Count(**key))
            found.add(own, redriven.among_rows(own) if redriven else None)
    return [counted[key] for key in sorted(counted)]


def lines(counts: Iterable[Count]) -> list[str]:
    """The counts as a table for people."""
    rows = [HEADINGS, *(tuple(map(_shown, each.to_json().values())) for each in counts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    numbers = range(3, 7)
    return [
        "  ".join(
            text.rjust(width) if column in numbers else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _shown(value: Any) -> str:
    return "?" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _counted_columns(batch: pa.RecordBatch) -> pa.Table:
    rule = pc.fill_null(batch["rule"].cast(pa.string()), "")
    columns = {name: batch[name].cast(pa.string()) for name in ("topic", "error")}
    at = pc.coalesce(batch["quarantined_at"], batch["timestamp"])
    places = {name: batch[name] for name in ("partition", "offset")}
    return pa.table({**columns, "rule": rule, **places, "came_back": _with_header(batch["headers"], OF), "at": at})


def _with_header(headers: pa.Array, name: str) -> npt.NDArray[np.bool_]:
    """Which rows have that header."""
    found = np.zeros(len(headers), dtype=bool)
    names = pc.struct_field(pc.list_flatten(headers), "key").cast(pa.string())
    owners = pc.list_parent_indices(headers)
    found[owners.filter(pc.fill_null(pc.equal(names, name), False)).to_numpy()] = True
    return found
