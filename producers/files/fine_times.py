"""Finds the rows of an Arrow column in which a time is finer than microseconds, which is all that a table holds.

Python's times hold no more either: Arrow cuts what it gives as one, without a word.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from producers.files.avro_fields import LISTS
from schemas.arrow_columns import is_there

Mask = npt.NDArray[np.bool_]
FINE = pa.time64("ns")


def finer_than_micros(column: pa.Array, exact: pa.Array) -> Mask:
    """Return for each row whether a time of day in it, at any depth, is finer than microseconds, or a time was cut.

    Args:
        exact: the same column, in which the times that were cut to microseconds (those of 12 bytes) have nanoseconds.

    Raises:
        pa.ArrowNotImplementedError: where such a time lies in a type that is not known here.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return finer_than_micros(column.storage, exact.storage)
    if kind == exact.type and str(FINE) not in str(kind):
        return np.zeros(len(column), np.bool_)
    if kind == FINE:
        return np.asarray(_numbers(column) % 1000 != 0)
    if pa.types.is_timestamp(kind):
        # Beyond the years that nanoseconds hold, both sides wrap around alike.
        return np.asarray(_numbers(column) * 1000 != _numbers(exact))
    if pa.types.is_dictionary(kind):
        is_finer = np.append(finer_than_micros(column.dictionary, exact.dictionary), False)
        places = column.indices.fill_null(len(column.dictionary)).to_numpy(zero_copy_only=False)
        return np.asarray(is_finer[places])
    if pa.types.is_struct(kind):
        fields = zip(column.flatten(), exact.flatten(), strict=True)
        return np.asarray(np.logical_or.reduce([finer_than_micros(*field) for field in fields]) & is_there(column))
    if pa.types.is_map(kind):
        return finer_than_micros(_entries(column), _entries(exact))
    if any(matches(kind) for matches in LISTS):
        counts = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(len(column)), counts)
        is_finer = np.zeros(len(column), np.bool_)
        is_finer[rows[finer_than_micros(column.flatten(), exact.flatten())]] = True
        return is_finer
    raise pa.ArrowNotImplementedError(f"times in {kind} are not read here")


def _numbers(column: pa.Array) -> npt.NDArray[np.int64]:
    return np.asarray(column.view(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))


def _entries(column: pa.Array) -> Any:
    kind = column.type
    return column.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
