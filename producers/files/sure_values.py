"""Keeps the values of a column that are sure, and those that stay within bounds: what every fit is made of.

See `fitting` for what a fit is.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.arrow_columns import data_of, edges, is_there

Mask = npt.NDArray[np.bool_]
# The values, and a mask of those that are sure.
Fitted = tuple[pa.Array, Mask]
Fit = Callable[[pa.Array], Fitted]


def all_sure(column: pa.Array) -> Mask:
    """Return the mask of a column of which every value is sure."""
    return np.ones(len(column), dtype=np.bool_)


def kept(column: pa.Array, sure: Mask) -> pa.Array:
    """Return the column with null for what is not sure."""
    return column if sure.all() else pc.if_else(pa.array(sure), column, None)


def chosen(column: pa.Array, is_chosen: pa.Array) -> Fitted:
    """Return the values that are chosen; a null is sure."""
    sure = is_chosen.fill_null(False).to_numpy(zero_copy_only=False)
    return kept(column, sure), sure | ~is_there(column)


def whole_numbers(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return the numbers of a column of them, or of times; 0 for null."""
    width = pa.int32() if column.type.bit_width == 32 else pa.int64()
    whole = column if pa.types.is_integer(column.type) else column.view(width)
    return np.asarray(whole.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))


def made(numbers: npt.NDArray[np.int64], sure: Mask, column: pa.Array, target: pa.DataType) -> Fitted:
    """Return numbers as a column of the type, null where they are not sure or `column` is null."""
    width = np.int32 if target.bit_width == 32 else np.int64
    present = is_there(column)
    values = pa.array(np.where(sure, numbers, 0).astype(width), mask=~(sure & present))
    return values.view(target), sure | ~present


def bounded(column: pa.Array, low: int, high: int, target: pa.DataType) -> Fitted:
    """Return the numbers that are no less than `low` and no more than `high`."""
    numbers = whole_numbers(column)
    if column.type == target and numbers.min(initial=low) >= low and numbers.max(initial=high) <= high:
        return column, all_sure(column)
    return made(numbers, (numbers >= low) & (numbers <= high), column, target)


def scaled(column: pa.Array, from_ns: int, to_ns: int, low: int, high: int, target: pa.DataType) -> Fitted:
    """Return numbers in another unit of time, between `low` and `high` in that; finer ones only if nothing is lost."""
    if from_ns == to_ns:
        # `target` may have a zone, in which a time is the same number.
        return bounded(column if pa.types.is_integer(column.type) else column.view(target), low, high, target)
    numbers = whole_numbers(column)
    if from_ns > to_ns:
        factor = from_ns // to_ns
        sure = (numbers >= -(-low // factor)) & (numbers <= high // factor)
        return made(np.where(sure, numbers, 0) * factor, sure, column, target)
    whole, rest = np.divmod(numbers, to_ns // from_ns)
    return made(whole, (rest == 0) & (whole >= low) & (whole <= high), column, target)


def characters(column: pa.Array) -> npt.NDArray[np.uint8]:
    """Return all bytes of a column of text, and maybe others."""
    places = edges(column)
    return np.frombuffer(data_of(column), dtype=np.uint8)[places[0] : places[-1]]


def has_other_characters(column: pa.Array) -> bool:
    """Return whether a text may have any character that a number without an exponent has not."""
    found = characters(column)
    return bool((found > ord("9")).any() or (found < ord("+")).any())
