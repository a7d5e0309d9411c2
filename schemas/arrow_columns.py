"""Reads Arrow columns as numpy arrays, by their buffers.

Arrow's own ways from and to values of Python's or numpy's load pandas first, which takes a worker half a second.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Number = TypeVar("Number", bound=np.generic)
EMPTY = pa.py_buffer(b"\0")


def is_there(column: pa.Array) -> npt.NDArray[np.bool_]:
    """Return for each row whether it has a value."""
    if pa.types.is_null(column.type):
        return np.zeros(len(column), bool)
    valid = column.buffers()[0]
    if valid is None or not column.null_count:
        return np.ones(len(column), bool)
    bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")
    return bits[column.offset : column.offset + len(column)].astype(bool)


def numbers(column: pa.Array, kind: type[Number], null: int = 0) -> npt.NDArray[Number]:
    """Return the values of a column of numbers of that kind, with `null` where there is none."""
    data = column.buffers()[1]
    if data is None or not len(column):
        return np.full(len(column), null, kind)
    found = np.frombuffer(data, kind)[column.offset : column.offset + len(column)]
    return np.where(is_there(column), found, np.array(null, kind)) if column.null_count else found


def edges(column: pa.Array) -> npt.NDArray[np.int32]:
    """Return where each row of a binary, string, list or map column begins, and last where its last row ends."""
    offsets = column.buffers()[1]
    if offsets is None or not len(column):
        return np.zeros(1, np.int32)
    return np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]


def lengths(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return how many bytes, or items, each row of a binary, string, list or map column has; 0 of a null."""
    return np.where(is_there(column), np.diff(edges(column)), 0).astype(np.int64)


def data_of(column: pa.Array) -> pa.Buffer:
    """Return the bytes that `edges` of a binary or string column point into; never of no size."""
    data = column.buffers()[2]
    return EMPTY if data is None or not data.size else data
