"""Fits Arrow columns to one Avro type each: numbers, times, texts and bytes, and the text of cells to be read as those.

`fitting` makes the fits of fields, records, arrays and maps of them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from producers.files import record_parts
from schemas.arrow_columns import data_of, edges, is_there, lengths
from schemas.columnar import column_type, unscaled_numbers
from schemas.timestamps import DAY_NS, DAYS, UNIT_NS
from schemas.wire import DAY, FIRST, INT, LAST, LONG

Mask = npt.NDArray[np.bool_]
# The values, and a mask of those that are sure (see `fitting`).
Fitted = tuple[pa.Array, Mask]
Fit = Callable[[pa.Array], Fitted]
# Within 2 days of the first or last time, a zone's offset may lead beyond it.
MARGIN_MS = 2 * DAY
EXACT_INTEGERS = {"double": 1 << 53, "float": 1 << 24}
EXACT_CHARACTERS = 15  # of a number, which a double keeps
LONGEST_INTEGER = 64  # characters: so many leading zeros are nobody's number
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


def scalar_fit(declared: Mapping[str, Any], arrow: pa.DataType, is_utc: bool) -> Fit | None:
    """Return the fit of a type that holds no others to columns of the type `arrow`; None where there is none.

    Args:
        is_utc: whether a time that names no zone is in UTC.
    """
    kind = column_type(dict(declared))
    if kind is None or kind.arrow.num_fields:
        return None
    target, avro, logical = kind.arrow, declared["type"], str(declared.get("logicalType", ""))
    base, _, unit = logical.rpartition("-")
    if pa.types.is_null(arrow):
        return lambda column: (pa.nulls(len(column), target), np.ones(len(column), np.bool_))
    if base in ("timestamp", "local-timestamp"):
        return _instants(base, unit, arrow, target, is_utc)
    if base == "time":
        return _times(unit, arrow, target)
    if logical == "date":
        return _dates(arrow)
    if logical == "decimal":
        return (lambda column: _decimals(column.cast(target))) if _is_decimal(arrow) else None
    if avro in ("int", "long") and pa.types.is_integer(arrow):
        low, high = INT if avro == "int" else LONG
        return lambda column: (column, _all(column)) if column.type == target else _bounded(column, low, high, target)
    if avro in ("double", "float"):
        return _floating(avro, arrow)
    if pa.types.is_string(arrow):
        return _texts(declared)
    if pa.types.is_fixed_size_binary(arrow) or pa.types.is_binary(arrow):
        return _bytes(target) if avro in ("bytes", "fixed") else None
    return (lambda column: (column, _all(column))) if arrow == target == pa.bool_() else None


def text_fit(declared: Mapping[str, Any]) -> Fit | None:
    """Return the fit of a type to the text of a file's cells, where it is not that of other text; None elsewhere."""
    kind = declared["type"]
    if "logicalType" in declared or declared.get("json"):
        return None
    if kind in ("int", "long"):
        return _integers_of_text(kind)
    if kind == "double":
        return _doubles_of_text
    if kind == "boolean":
        return _booleans_of_text
    return _bytes_of_text if kind == "bytes" else None


def _is_decimal(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(arrow) or pa.types.is_string(arrow))


def _all(column: pa.Array) -> Mask:
    return np.ones(len(column), dtype=np.bool_)


def _decimals(column: pa.Array) -> Fitted:
    """Decimals, those in doubt that have too many digits, which Arrow does not look for wherever it scales them up."""
    unscaled = unscaled_numbers(column)
    sure = np.abs(unscaled) < 10**column.type.precision
    return _kept(column, sure), sure


def _numbers(column: pa.Array) -> npt.NDArray[np.int64]:
    width = pa.int32() if column.type.bit_width == 32 else pa.int64()
    whole = column if pa.types.is_integer(column.type) else column.view(width)
    return np.asarray(whole.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))


def _made(numbers: npt.NDArray[np.int64], sure: Mask, column: pa.Array, target: pa.DataType) -> Fitted:
    width = np.int32 if target.bit_width == 32 else np.int64
    present = is_there(column)
    values = pa.array(np.where(sure, numbers, 0).astype(width), mask=~(sure & present))
    return values.view(target), sure | ~present


def _bounded(column: pa.Array, low: int, high: int, target: pa.DataType) -> Fitted:
    numbers = _numbers(column)
    if column.type == target and numbers.min(initial=low) >= low and numbers.max(initial=high) <= high:
        return column, _all(column)
    return _made(numbers, (numbers >= low) & (numbers <= high), column, target)


def _scaled(column: pa.Array, from_ns: int, to_ns: int, low: int, high: int, target: pa.DataType) -> Fitted:
    """Numbers in another unit of time, between `low` and `high` in that; a finer one only where nothing is lost."""
    if from_ns == to_ns:
        # `target` may have a zone, in which a time is the same number.
        return _bounded(column.view(target), low, high, target)
    numbers = _numbers(column)
    if from_ns > to_ns:
        factor = from_ns // to_ns
        sure = (numbers >= -(-low // factor)) & (numbers <= high // factor)
        return _made(np.where(sure, numbers, 0) * factor, sure, column, target)
    whole, rest = np.divmod(numbers, to_ns // from_ns)
    return _made(whole, (rest == 0) & (whole >= low) & (whole <= high), column, target)


def _instants(base: str, unit: str, arrow: pa.DataType, target: pa.DataType, is_utc: bool) -> Fit | None:
    to_ns = UNIT_NS[unit]
    low = max((FIRST + MARGIN_MS) * 10**6 // to_ns, LONG[0])
    high = min((LAST - MARGIN_MS) * 10**6 // to_ns, LONG[1])
    if pa.types.is_integer(arrow):
        return lambda column: _bounded(column, low, high, target)
    if pa.types.is_timestamp(arrow) and (arrow.tz is not None or is_utc or base == "local-timestamp"):
        if base == "local-timestamp" and arrow.tz is not None:
            return None
        return lambda column: _scaled(column, record_parts.UNIT_NS[arrow.unit], to_ns, low, high, target)
    if not pa.types.is_string(arrow):
        return None

    def of_text(column: pa.Array) -> Fitted:
        # Arrow accepts times without seconds; a text of this length has seconds, or an offset.
        sure = lengths(column) >= len("2013-01-31T13:45:00")
        kept = _kept(column, sure)
        if base == "timestamp":
            try:
                times = kept.cast(target)
            except pa.ArrowInvalid:
                if not is_utc:
                    raise
                times = kept.cast(pa.timestamp(target.unit)).view(target)
        else:
            times = kept.cast(target)
        values, in_range = _bounded(times, low, high, target)
        return values, in_range & (sure | ~is_there(column))

    return of_text


def _times(unit: str, arrow: pa.DataType, target: pa.DataType) -> Fit | None:
    to_ns = UNIT_NS[unit]
    last = DAY_NS // to_ns - 1
    if pa.types.is_integer(arrow):
        return lambda column: _bounded(column, 0, last, target)
    if pa.types.is_time(arrow):
        return lambda column: _scaled(column, record_parts.UNIT_NS[arrow.unit], to_ns, 0, last, target)
    return None


def _dates(arrow: pa.DataType) -> Fit | None:
    first, last = DAYS[0], DAYS[-1]
    if pa.types.is_integer(arrow) or pa.types.is_date32(arrow):
        return lambda column: _bounded(column, first, last, pa.date32())
    if pa.types.is_string(arrow):
        return lambda column: _bounded(column.cast(pa.date32()), first, last, pa.date32())
    return None


def _floating(avro: str, arrow: pa.DataType) -> Fit | None:
    target = pa.float64() if avro == "double" else pa.float32()
    if pa.types.is_integer(arrow):
        limit = EXACT_INTEGERS[avro]

        def of_integers(column: pa.Array) -> Fitted:
            values, sure = _bounded(column, -limit, limit, pa.int64())
            return values.cast(target), sure

        return of_integers
    if arrow == target == pa.float64():
        return lambda column: (column, _all(column))
    if arrow not in (pa.float32(), pa.float64()):
        return None

    def of_floats(column: pa.Array) -> Fitted:
        numbers = column.fill_null(0.0).to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore", invalid="ignore"):
            sure = numbers.astype(np.float32) == numbers  # a NaN is in doubt
            values = numbers.astype(np.float64 if avro == "double" else np.float32)
        present = is_there(column)
        return pa.array(values, mask=~(sure & present)), sure | ~present

    return of_floats


def _texts(declared: Mapping[str, Any]) -> Fit | None:
    if declared["type"] == "enum":
        symbols = pa.array(declared["symbols"], pa.string())
        return lambda column: _chosen(column, pc.is_in(column, symbols))
    if declared["type"] != "string":
        return None
    if declared.get("logicalType") == "uuid":
        return lambda column: _chosen(column, pc.match_substring_regex(column, UUID))
    return lambda column: (column, _all(column))


def _chosen(column: pa.Array, chosen: pa.Array) -> Fitted:
    sure = chosen.fill_null(False).to_numpy(zero_copy_only=False)
    return _kept(column, sure), sure | ~is_there(column)


def _kept(column: pa.Array, sure: Mask) -> pa.Array:
    return column if sure.all() else pc.if_else(pa.array(sure), column, None)


def _bytes(target: pa.DataType) -> Fit:
    if target == pa.binary():
        return lambda column: (column.cast(target), _all(column))

    def of_size(column: pa.Array) -> Fitted:
        kept, sure = _chosen(column.cast(pa.binary()), pc.equal(pc.binary_length(column), target.byte_width))
        return kept.cast(target), sure

    return of_size


def _characters(column: pa.Array) -> npt.NDArray[np.uint8]:
    """All bytes of a column of text, and maybe others."""
    places = edges(column)
    return np.frombuffer(data_of(column), dtype=np.uint8)[places[0] : places[-1]]


def _integers_of_text(avro: str) -> Fit:
    low, high = INT if avro == "int" else LONG
    target = pa.int32() if avro == "int" else pa.int64()

    def fit(column: pa.Array) -> Fitted:
        # Arrow takes 0x10, too.
        if _has_other_characters(column) or lengths(column).max(initial=0) >= LONGEST_INTEGER:
            column, sure = _chosen(column, pc.match_substring_regex(column, r"^[+-]?[0-9]{1,18}$"))
        else:
            sure = _all(column)
        values, in_range = _bounded(column.cast(pa.int64()), low, high, target)
        return values, in_range & sure

    return fit


def _has_other_characters(column: pa.Array) -> bool:
    characters = _characters(column)
    return bool((characters > ord("9")).any() or (characters < ord("+")).any())


def _doubles_of_text(column: pa.Array) -> Fitted:
    if _has_other_characters(column):
        column, sure = _chosen(column, pc.match_substring_regex(column, r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)$"))
    else:
        sure = _all(column)
    values = column.cast(pa.float64())
    is_short = lengths(column) <= EXACT_CHARACTERS
    if not is_short.all():
        # Printed by Arrow, a double has as few digits as tell it from all others.
        printed = pc.equal(values.cast(pa.string()), column).fill_null(True).to_numpy(zero_copy_only=False)
        sure = sure & (is_short | printed)
    return values, sure


def _booleans_of_text(column: pa.Array) -> Fitted:
    kept, sure = _chosen(column, pc.is_in(column, pa.array([*TRUE, *FALSE])))
    return pc.if_else(kept.is_null(), None, pc.is_in(kept, pa.array(TRUE))), sure


def _bytes_of_text(column: pa.Array) -> Fitted:
    return column.cast(pa.binary()), _all(column)
