"""Tables with the same rows in whatever order are the same; what differs is named, as often as it is there."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import TidemarkError
from jobs.operations import compare

ROWS = st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.sampled_from([None, 1, 2])), max_size=8)


def table(rows: Sequence[tuple[str | None, int | None]]) -> pa.Table:
    types = pa.schema({"id": pa.string(), "n": pa.int64()})
    return pa.Table.from_pylist([{"id": id, "n": n} for id, n in rows], schema=types)


@settings(deadline=None)
@given(ROWS, ROWS)
def test_tables_are_the_same_where_their_rows_are(
    left: list[tuple[str | None, int | None]], right: list[tuple[str | None, int | None]]
) -> None:
    found = compare.compare(table(left), table(right).select(["n", "id"]))
    missing = [row for row in left if left.count(row) > right.count(row)]
    assert found.same is (sorted(left, key=str) == sorted(right, key=str))
    assert bool(found.only[0]) is bool(missing)
    assert found.rows + len(found.only[0]) == len(left)
    assert found.rows + len(found.only[1]) == len(right)


def test_values_within_values_are_compared_too() -> None:
    types = pa.schema({"id": pa.int64(), "tags": pa.list_(pa.string()), "at": pa.struct({"x": pa.int64()})})
    rows: list[dict[str, Any]] = [{"id": 1, "tags": ["a", None], "at": {"x": 1}}, {"id": 2, "tags": None, "at": None}]
    left, right = (pa.Table.from_pylist(each, schema=types) for each in (rows, [rows[1], {**rows[0], "tags": ["a"]}]))
    assert compare.compare(left, left).same
    assert [len(rows) for rows in compare.compare(left, right).only] == [1, 1]


NESTED = pa.map_(pa.string(), pa.list_(pa.struct({"m": pa.map_(pa.int64(), pa.binary())})))
ENTRIES = st.dictionaries(st.integers(0, 2), st.sampled_from([None, b"", b"a"]), max_size=3)
MAPS = st.none() | st.dictionaries(
    st.sampled_from("ab"),
    st.none() | st.lists(st.none() | st.fixed_dictionaries({"m": st.none() | ENTRIES}), max_size=2),
)


def entries(value: Any, turned: bool) -> Any:
    """A value as pyarrow takes it, with the entries of its maps in their order, or turned."""
    if isinstance(value, dict) and value.keys() == {"m"}:
        return {"m": entries(value["m"], turned)}
    if isinstance(value, dict):
        pairs = [(key, entries(held, turned)) for key, held in value.items()]
        return pairs[::-1] if turned else pairs
    return [entries(held, turned) for held in value] if isinstance(value, list) else value


@settings(deadline=None)
@given(st.lists(MAPS, max_size=4), st.lists(MAPS, max_size=4), st.booleans())
def test_maps_are_the_same_in_whatever_order_their_entries_are(left: list[Any], right: list[Any], again: bool) -> None:
    right = left[::-1] if again else right
    as_rows = (
        pa.table({"m": pa.array([entries(value, turned) for value in rows], NESTED)})
        for rows, turned in ((left, False), (right, True))
    )
    unlike = [value for value in left if left.count(value) > right.count(value)]
    assert compare.compare(*as_rows).same is (len(left) == len(right) and not unlike)


def test_every_nan_counts() -> None:
    other = pa.py_buffer(struct.pack("<3Q", 0x7FF8 << 48, (0x7FF8 << 48) + 1, (0x7FF8 << 48) + 1))
    column = pa.Array.from_buffers(pa.float64(), 3, [None, other])
    found = compare.compare(pa.table({"x": column}), pa.table({"x": column[:1]}))
    assert (found.rows, *map(len, found.only)) == (1, 2, 0)


def test_a_column_that_one_lacks_is_named() -> None:
    with pytest.raises(TidemarkError, match=r"COLUMNS_DIFFER: .*n \(int64, none\)"):
        compare.compare(table([]), table([]).select(["id"]))


def test_the_command_names_the_rows_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(tmp_path / name) for name in ("us", "eu")]
    for path, rows in zip(paths, ([("a", 1), ("b", 2)], [("a", 1), ("c", 3)]), strict=True):
        write_deltalake(path, table(rows))

    assert compare.main([paths[0], paths[0]]) == 0
    assert capsys.readouterr().out == "the same: 2 rows in both\n"
    assert compare.main(paths) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"different: 1 row in both, 1 only in {paths[0]}, 1 only in {paths[1]}",
        f'only in {paths[0]}: {{"id": "b", "n": 2}}',
        f'only in {paths[1]}: {{"id": "c", "n": 3}}',
    ]


def test_a_damaged_table_is_named_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "table"
    write_deltalake(path, table([("a", 1)]))
    [file] = path.glob("*.parquet")
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(TidemarkError, match=f"DATA_FILE_DAMAGED: the data file {file} cannot be read"):
        compare.main([str(path), str(path)])
    (path / "_delta_log" / f"{0:020}.json").write_text("{")
    with pytest.raises(TidemarkError, match=f"TABLE_LOG_DAMAGED: the log of table {path} cannot be read: 0+.json"):
        compare.main([str(path), str(path)])


def test_where_there_is_no_table_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(TidemarkError, match="NO_TABLE"):
        compare.main([str(tmp_path), str(tmp_path)])
