"""Fits Arrow columns to one Avro type each: numbers, times, texts, bytes, and text that is to be read as one of those.

What a fit is, and the fits of records, arrays and maps: see `columns`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from producers.files.request import NUMBER_UNIT_NS
from schemas.arrow_columns import data_of, edges, is_there, lengths
from schemas.columnar import column_type, unscaled_numbers
from schemas.timestamps import DAY_NS, DAYS, UNIT_NS
from schemas.wire import DAY, FIRST, INT, LAST, LONG

# Within 2 days of the first or last time, a zone's offset may lead beyond it.
MARGIN_MS = 2 * DAY
WHOLE = {pa.int32(): INT, pa.int64(): LONG}
# Below, every whole number is one of these types.
EXACT_INTEGERS = {pa.float64(): 1 << 53, pa.float32(): 1 << 24}
EXACT_CHARACTERS = 15  # of a number, which a double keeps
LONGEST_INTEGER = 64  # characters: so many leading zeros are nobody's number
INTEGER = r"^[+-]?[0-9]{1,18}(\.0*)?$"
DOUBLE = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)$"
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
# So many digits before the point and, where they are scaled up, 18 behind it are still a number of 128 bits.
DECIMAL_CHARACTERS = 20
DECIMAL = r"^[+-]?([0-9]{1,20}(\.[0-9]{0,18})?|\.[0-9]{1,18})$"
UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"

Mask = npt.NDArray[np.bool_]
# The values, and a mask of those that are sure.
Fitted = tuple[pa.Array, Mask]
Fit = Callable[[pa.Array], Fitted]


def scalar_fit(
    declared: Mapping[str, Any], arrow: pa.DataType, is_utc: bool, number_ns: int | None = None, is_cells: bool = False
) -> Fit | None:
    """Return the fit of a type that holds no others to columns of the type `arrow`; None where there is none.

    Args:
        is_utc: whether a time that names no zone is in UTC.
        number_ns: nanoseconds in the unit of numbers that stand for times; None: they are in the unit of the type.
        is_cells: whether the column is text that is to be read by its type, as the cells of a file.
    """
    kind = column_type(dict(declared))
    if kind is None or kind.arrow.num_fields:
        return None
    target, avro, logical = kind.arrow, declared["type"], str(declared.get("logicalType", ""))
    if is_cells and "logicalType" not in declared and not declared.get("json") and (fit := _cells(avro, target)):
        return fit
    base, _, unit = logical.rpartition("-")
    if pa.types.is_null(arrow):
        return lambda column: _as_it_is(pa.nulls(len(column), target))
    if base in ("timestamp", "local-timestamp"):
        return _instants(base, unit, arrow, target, is_utc, number_ns)
    if base == "time":
        return _times(UNIT_NS[unit], arrow, target)
    if logical == "date":
        return _dates(arrow, number_ns)
    if logical == "decimal":
        return _decimals(arrow, target)
    if target in WHOLE and arrow in EXACT_INTEGERS:
        return _whole_floats(arrow, target)
    if target in WHOLE and pa.types.is_integer(arrow):
        return lambda column: _as_it_is(column) if column.type == target else _bounded(column, *WHOLE[target], target)
    if target in EXACT_INTEGERS:
        return _floating(arrow, target)
    if pa.types.is_string(arrow):
        return _texts(declared)
    if pa.types.is_fixed_size_binary(arrow) or pa.types.is_binary(arrow):
        return _bytes(target) if avro in ("bytes", "fixed") else None
    return _as_it_is if arrow == target == pa.bool_() else None


def _cells(avro: str, target: pa.DataType) -> Fit | None:
    """Return the fit of cells, where it is not that of other text."""
    if target in WHOLE:
        return _integers_of_text(target)
    if avro in ("bytes", "fixed"):
        return _bytes(target)
    return {"double": _doubles_of_text, "boolean": _booleans_of_text}.get(avro)


def _integers_of_text(target: pa.DataType) -> Fit:
    def fit(column: pa.Array) -> Fitted:
        has_point = bool((_characters(column) == ord(".")).any())
        # Arrow takes 0x10, too.
        if has_point or _has_other_characters(column) or lengths(column).max(initial=0) >= LONGEST_INTEGER:
            column, sure = _matching(column, INTEGER)
            column = pc.replace_substring_regex(column, r"\.0*$", "") if has_point else column
        else:
            column, sure = _as_it_is(column)
        values, in_range = _bounded(column.cast(pa.int64()), *WHOLE[target], target)
        return values, in_range & sure

    return fit


def _doubles_of_text(column: pa.Array) -> Fitted:
    column, sure = _matching(column, DOUBLE) if _has_other_characters(column) else _as_it_is(column)
    values = column.cast(pa.float64())
    is_short = lengths(column) <= EXACT_CHARACTERS
    if not is_short.all():
        # Printed by Arrow, a double has as few digits as tell it from all others.
        printed = pc.equal(values.cast(pa.string()), column).fill_null(True).to_numpy(zero_copy_only=False)
        sure = sure & (is_short | printed)
    return values, sure


def _booleans_of_text(column: pa.Array) -> Fitted:
    known, sure = _where(column, pc.is_in(column, pa.array([*TRUE, *FALSE])))
    return pc.if_else(known.is_null(), None, pc.is_in(known, pa.array(TRUE))), sure


def _decimals(arrow: pa.DataType, target: pa.DataType) -> Fit | None:
    def of_text(column: pa.Array) -> Fitted:
        # Arrow does not notice where a number needs more than its 128 bits, and looks powers of ten up beyond the end
        # of its table for 5e-324: it has to be given no such text.
        is_doubtful = _has_other_characters(column) or lengths(column).max(initial=0) > DECIMAL_CHARACTERS
        column, sure = _matching(column, DECIMAL) if is_doubtful else _as_it_is(column)
        values, are_held = of_decimals(column)
        return values, are_held & sure

    def of_decimals(column: pa.Array) -> Fitted:
        # Arrow does not look for more digits than the type has, wherever it scales them up.
        values = column.cast(target)
        _, sure = unscaled_numbers(values)
        return _null_unless(values, sure), sure

    if pa.types.is_string(arrow):
        return of_text
    return of_decimals if pa.types.is_decimal(arrow) else None


def _whole_floats(arrow: pa.DataType, target: pa.DataType) -> Fit:
    """Return the fit of whole numbers that have a point, as pandas writes those of a column with gaps."""
    low, high = WHOLE[target]
    low, high = max(low, -EXACT_INTEGERS[arrow]), min(high, EXACT_INTEGERS[arrow])

    def fit(column: pa.Array) -> Fitted:
        numbers = column.fill_null(0.0).to_numpy(zero_copy_only=False)
        sure = (numbers >= low) & (numbers <= high) & (np.trunc(numbers) == numbers)
        return _column_of(np.where(sure, numbers, 0).astype(np.int64), sure, column, target)

    return fit


def _floating(arrow: pa.DataType, target: pa.DataType) -> Fit | None:
    def of_integers(column: pa.Array) -> Fitted:
        values, sure = _bounded(column, -EXACT_INTEGERS[target], EXACT_INTEGERS[target], pa.int64())
        return values.cast(target), sure

    def of_floats(column: pa.Array) -> Fitted:
        numbers = column.fill_null(0.0).to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore", invalid="ignore"):
            sure = numbers.astype(np.float32) == numbers  # a NaN is in doubt
            values = numbers.astype(np.float64 if target == pa.float64() else np.float32)
        present = is_there(column)
        return pa.array(values, mask=~(sure & present)), sure | ~present

    if pa.types.is_integer(arrow):
        return of_integers
    if arrow == target == pa.float64():
        return _as_it_is
    return of_floats if arrow in EXACT_INTEGERS else None


def _instants(
    base: str, unit: str, arrow: pa.DataType, target: pa.DataType, is_utc: bool, number_ns: int | None
) -> Fit | None:
    to_ns = UNIT_NS[unit]
    low = max((FIRST + MARGIN_MS) * 10**6 // to_ns, LONG[0])
    high = min((LAST - MARGIN_MS) * 10**6 // to_ns, LONG[1])
    if pa.types.is_integer(arrow):
        return lambda column: _scaled(column, number_ns or to_ns, to_ns, low, high, target)
    if pa.types.is_timestamp(arrow) and (arrow.tz is not None or is_utc or base == "local-timestamp"):
        if base == "local-timestamp" and arrow.tz is not None:
            return None
        return lambda column: _scaled(column, NUMBER_UNIT_NS[arrow.unit], to_ns, low, high, target)
    if not pa.types.is_string(arrow):
        return None

    def of_text(column: pa.Array) -> Fitted:
        # Arrow accepts times without seconds; a text of this length has seconds, or an offset.
        sure = lengths(column) >= len("2013-01-31T13:45:00")
        texts = _null_unless(column, sure)
        try:
            times = texts.cast(target)
        except pa.ArrowInvalid:
            if base == "local-timestamp" or not is_utc:
                raise
            times = texts.cast(pa.timestamp(target.unit)).view(target)
        values, in_range = _bounded(times, low, high, target)
        return values, in_range & (sure | ~is_there(column))

    def of_numbers_too(column: pa.Array) -> Fitted:
        # A time has a colon, which no number has.
        if number_ns is None or _has_other_characters(column):
            return of_text(column)
        numbers, are_numbers = _integers_of_text(pa.int64())(column)
        values, in_range = _scaled(numbers, number_ns, to_ns, low, high, target)
        return values, are_numbers & in_range

    return of_numbers_too


def _times(to_ns: int, arrow: pa.DataType, target: pa.DataType) -> Fit | None:
    last = DAY_NS // to_ns - 1
    if pa.types.is_integer(arrow):
        return lambda column: _bounded(column, 0, last, target)
    if pa.types.is_time(arrow):
        return lambda column: _scaled(column, NUMBER_UNIT_NS[arrow.unit], to_ns, 0, last, target)
    return None


def _dates(arrow: pa.DataType, number_ns: int | None) -> Fit | None:
    first, last = DAYS[0], DAYS[-1]
    if pa.types.is_integer(arrow) and number_ns:
        return lambda column: _scaled(column, number_ns, DAY_NS, first, last, pa.date32())
    if pa.types.is_integer(arrow) or pa.types.is_date32(arrow):
        return lambda column: _bounded(column, first, last, pa.date32())
    if pa.types.is_string(arrow):
        return lambda column: _bounded(column.cast(pa.date32()), first, last, pa.date32())
    return None


def _texts(declared: Mapping[str, Any]) -> Fit | None:
    if declared["type"] == "enum":
        symbols = pa.array(declared["symbols"], pa.string())
        return lambda column: _where(column, pc.is_in(column, symbols))
    if declared["type"] != "string":
        return None
    return (lambda column: _matching(column, UUID)) if declared.get("logicalType") == "uuid" else _as_it_is


def _bytes(target: pa.DataType) -> Fit:
    """Return the fit of bytes, or of text as its UTF-8, to bytes of any size or of one."""
    if target == pa.binary():
        return lambda column: _as_it_is(column.cast(target))

    def fit(column: pa.Array) -> Fitted:
        of_size, sure = _where(column.cast(pa.binary()), pc.equal(pc.binary_length(column), target.byte_width))
        return of_size.cast(target), sure

    return fit


def _as_it_is(column: pa.Array) -> Fitted:
    return column, np.ones(len(column), dtype=np.bool_)


def _null_unless(column: pa.Array, sure: Mask) -> pa.Array:
    return column if sure.all() else pc.if_else(pa.array(sure), column, None)


def _where(column: pa.Array, condition: pa.Array) -> Fitted:
    """Return the values for which the condition holds; a null is sure."""
    sure = condition.fill_null(False).to_numpy(zero_copy_only=False)
    return _null_unless(column, sure), sure | ~is_there(column)


def _matching(column: pa.Array, pattern: str) -> Fitted:
    return _where(column, pc.match_substring_regex(column, pattern))


def _column_of(numbers: npt.NDArray[np.int64], sure: Mask, column: pa.Array, target: pa.DataType) -> Fitted:
    """Return numbers as a column of the type, null where they are not sure or `column` is null."""
    width = np.int32 if target.bit_width == 32 else np.int64
    present = is_there(column)
    values = pa.array(np.where(sure, numbers, 0).astype(width), mask=~(sure & present))
    return values.view(target), sure | ~present


def _bounded(column: pa.Array, low: int, high: int, target: pa.DataType) -> Fitted:
    """Return the numbers that are no less than `low` and no more than `high`."""
    numbers = _whole_numbers(column)
    if column.type == target and numbers.min(initial=low) >= low and numbers.max(initial=high) <= high:
        return _as_it_is(column)
    return _column_of(numbers, (numbers >= low) & (numbers <= high), column, target)


def _scaled(column: pa.Array, from_ns: int, to_ns: int, low: int, high: int, target: pa.DataType) -> Fitted:
    """Return numbers in another unit of time, between `low` and `high` in that; finer ones only if nothing is lost."""
    if from_ns == to_ns:
        # `target` may have a zone, in which a time is the same number.
        return _bounded(column if pa.types.is_integer(column.type) else column.view(target), low, high, target)
    numbers = _whole_numbers(column)
    if from_ns > to_ns:
        factor = from_ns // to_ns
        sure = (numbers >= -(-low // factor)) & (numbers <= high // factor)
        return _column_of(np.where(sure, numbers, 0) * factor, sure, column, target)
    whole, rest = np.divmod(numbers, to_ns // from_ns)
    return _column_of(whole, (rest == 0) & (whole >= low) & (whole <= high), column, target)


def _whole_numbers(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return the numbers of a column of them, or of times; 0 for null."""
    width = pa.int32() if column.type.bit_width == 32 else pa.int64()
    whole = column if pa.types.is_integer(column.type) else column.view(width)
    return np.asarray(whole.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))


def _characters(column: pa.Array) -> npt.NDArray[np.uint8]:
    """Return all bytes of a column of text, and maybe others."""
    places = edges(column)
    return np.frombuffer(data_of(column), dtype=np.uint8)[places[0] : places[-1]]


def _has_other_characters(column: pa.Array) -> bool:
    """Return whether a text may have any character that a number without an exponent has not."""
    characters = _characters(column)
    return bool((characters > ord("9")).any() or (characters < ord("+")).any())
