"""Columns read by their buffers: what Arrow says, of whole columns and of slices."""

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from schemas import arrow_columns

BYTES = st.lists(st.none() | st.binary(max_size=5), max_size=20)
LONGS = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20)


def part(values: list[Any], kind: pa.DataType, data: st.DataObject) -> tuple[list[Any], pa.Array]:
    """A slice of the values, and the same slice of a column of them."""
    first = data.draw(st.integers(0, len(values)))
    end = data.draw(st.integers(first, len(values)))
    return values[first:end], pa.array(values, kind).slice(first, end - first)


@given(values=BYTES, data=st.data())
def test_bytes_are_where_their_edges_say(values: list[bytes | None], data: st.DataObject) -> None:
    expected, column = part(values, pa.binary(), data)
    edges, content = arrow_columns.edges(column), arrow_columns.data_of(column).to_pybytes()
    there = arrow_columns.is_there(column)
    found = [content[a:b] if sound else None for a, b, sound in zip(edges[:-1], edges[1:], there, strict=True)]
    assert found == expected
    assert arrow_columns.lengths(column).tolist() == [len(value or b"") for value in expected]


@given(values=LONGS, data=st.data())
def test_numbers_are_exact_at_any_size_and_nulls_are_told(values: list[int | None], data: st.DataObject) -> None:
    expected, column = part(values, pa.int64(), data)
    assert arrow_columns.is_there(column).tolist() == [value is not None for value in expected]
    found = arrow_columns.numbers(column, np.int64, -1).tolist()
    assert found == [-1 if value is None else value for value in expected]


@given(values=st.lists(BYTES, max_size=6), data=st.data())
def test_lists_have_the_lengths_that_they_have(values: list[list[bytes | None]], data: st.DataObject) -> None:
    expected, column = part(values, pa.list_(pa.binary()), data)
    assert arrow_columns.lengths(column).tolist() == [len(items) for items in expected]
