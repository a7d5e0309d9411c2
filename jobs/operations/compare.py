"""Runs `local/tidemark compare`: whether two Delta tables hold the same rows, and which rows only one of them has.

Needs no JVM. A row counts as often as it is there; the order of rows and of columns does not matter.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from conf import command_line
from conf.errors import TidemarkError
from jobs.connectors.delta.reading import StoredTable

SHOWN = 20


@dataclass(frozen=True)
class Comparison:
    """How many rows both tables have, and those that one has more often than the other, as a JSON object each."""

    rows: int
    only: tuple[list[str], list[str]]

    @property
    def same(self) -> bool:
        """Return whether no table has a row that the other lacks."""
        return not any(self.only)


def compare(left: pa.Table, right: pa.Table) -> Comparison:
    """Compare the rows of two tables.

    Raises:
        TidemarkError: COLUMNS_DIFFER, where one has a column that the other lacks, or has in another type.
    """
    types = [{field.name: field.type for field in table.schema} for table in (left, right)]
    differing = sorted(name for name in types[0].keys() | types[1].keys() if types[0].get(name) != types[1].get(name))
    if differing:
        texts = ", ".join(f"{name} ({types[0].get(name, 'none')}, {types[1].get(name, 'none')})" for name in differing)
        raise TidemarkError("COLUMNS_DIFFER", f"the tables differ in columns: {texts}", "compare tables of one job")
    names = sorted(types[0])
    counts = [_counted(table.select(names)) for table in (left, right)]
    only = tuple(
        sorted(row for row, count in mine.items() for _ in range(count - other.get(row, 0)))
        for mine, other in (counts, counts[::-1])
    )
    return Comparison(left.num_rows - len(only[0]), (only[0], only[1]))


def _counted(table: pa.Table) -> dict[str, int]:
    """Return how often each row is there, as JSON with the columns in the table's order."""
    if not table.num_rows:
        return {}
    flat = pa.table({name: _hashable(column) for name, column in zip(table.column_names, table.columns, strict=True)})
    grouped = flat.group_by(flat.column_names).aggregate([([], "count_all")])
    counts: Counter[str] = Counter()
    # Arrow tells one NaN from another.
    for row, count in zip(grouped.select(flat.column_names).to_pylist(), grouped["count_all"].to_pylist(), strict=True):
        counts[json.dumps(row, default=str, ensure_ascii=False)] += count
    return counts


def _hashable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column itself, or, where its values hold others, as which Arrow cannot group, their JSON text."""
    if not pa.types.is_nested(column.type):
        return column
    values = (_in_order(value, column.type) for value in column.to_pylist())
    texts = [None if value is None else json.dumps(value, default=str, sort_keys=True) for value in values]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _in_order(value: Any, kind: pa.DataType) -> Any:
    """Return the value with the entries of maps, which are in no order of their own, in that of their texts."""
    if value is None:
        return None
    if pa.types.is_map(kind):
        entries = ([_in_order(key, kind.key_type), _in_order(held, kind.item_type)] for key, held in value)
        return sorted(entries, key=lambda entry: json.dumps(entry, default=str, sort_keys=True))
    if pa.types.is_struct(kind):
        return {field.name: _in_order(value[field.name], field.type) for field in kind}
    if pa.types.is_nested(kind) and kind.num_fields == 1:
        return [_in_order(held, kind.value_type) for held in value]
    return value


def report(comparison: Comparison, names: Sequence[str], shown: int = SHOWN) -> list[str]:
    """Return the lines of the report; at most `shown` rows of each table, of those that the other lacks."""
    if comparison.same:
        return [f"the same: {_rows(comparison.rows)} in both"]
    counts = ", ".join(f"{len(rows):,} only in {name}" for name, rows in zip(names, comparison.only, strict=True))
    lines = [f"different: {_rows(comparison.rows)} in both, {counts}"]
    for name, rows in zip(names, comparison.only, strict=True):
        lines += [f"only in {name}: {row}" for row in rows[:shown]]
        lines += [f"only in {name}: {len(rows) - shown:,} more"] if len(rows) > shown else []
    return lines


def _rows(count: int) -> str:
    return f"{count:,} row{'s' if count != 1 else ''}"


def run(tables: Sequence[str], names: Sequence[str], shown: int = SHOWN) -> int:
    """Compare the tables at two places, print what `report` says, and return the exit code."""
    comparison = compare(*(StoredTable(path).rows() for path in tables))
    print(*report(comparison, names, shown), sep="\n")
    return 0 if comparison.same else 1


def main(argv: Sequence[str]) -> int:
    """Compare two tables; exit code 0 where they hold the same rows, 1 where not."""
    parser = argparse.ArgumentParser(prog="local/tidemark compare", description=__doc__)
    parser.add_argument("tables", nargs=2, metavar="TABLE", help="a Delta table's folder or URI")
    tables: list[str] = command_line.parse(parser, argv).tables
    return run(tables, tables)
