"""Fits Arrow columns to one Avro type each: numbers, times, texts and bytes.

`text_fits` does so where text is to be read as a number; `fitting` makes the fits of fields, records, arrays and maps.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from producers.files import record_parts
from producers.files.sure_values import (
    Fit,
    Fitted,
    all_sure,
    bounded,
    chosen,
    has_other_characters,
    kept,
    made,
    scaled,
)
from producers.files.text_fits import bytes_of_size, decimals, decimals_of_text, integers_of_text
from schemas.arrow_columns import is_there, lengths
from schemas.columnar import column_type
from schemas.timestamps import DAY_NS, DAYS, UNIT_NS
from schemas.wire import DAY, FIRST, INT, LAST, LONG

# Within 2 days of the first or last time, a zone's offset may lead beyond it.
MARGIN_MS = 2 * DAY
EXACT_INTEGERS = {"double": 1 << 53, "float": 1 << 24}
UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


def scalar_fit(
    declared: Mapping[str, Any], arrow: pa.DataType, is_utc: bool, number_ns: int | None = None
) -> Fit | None:
    """Return the fit of a type that holds no others to columns of the type `arrow`; None where there is none.

    Args:
        is_utc: whether a time that names no zone is in UTC.
        number_ns: nanoseconds in the unit of numbers that stand for times; None: they are in the unit of the type.
    """
    kind = column_type(dict(declared))
    if kind is None or kind.arrow.num_fields:
        return None
    target, avro, logical = kind.arrow, declared["type"], str(declared.get("logicalType", ""))
    base, _, unit = logical.rpartition("-")
    if pa.types.is_null(arrow):
        return lambda column: (pa.nulls(len(column), target), np.ones(len(column), np.bool_))
    if base in ("timestamp", "local-timestamp"):
        return _instants(base, unit, arrow, target, is_utc, number_ns)
    if base == "time":
        return _times(unit, arrow, target)
    if logical == "date":
        return _dates(arrow, number_ns)
    if logical == "decimal":
        return _decimals(arrow, target)
    if avro in ("int", "long") and pa.types.is_floating(arrow):
        return _whole_floats(avro, arrow, target)
    if avro in ("int", "long") and pa.types.is_integer(arrow):
        low, high = INT if avro == "int" else LONG
        return lambda column: (
            (column, all_sure(column)) if column.type == target else bounded(column, low, high, target)
        )
    if avro in ("double", "float"):
        return _floating(avro, arrow)
    if pa.types.is_string(arrow):
        return _texts(declared)
    if pa.types.is_fixed_size_binary(arrow) or pa.types.is_binary(arrow):
        return _bytes(target) if avro in ("bytes", "fixed") else None
    return (lambda column: (column, all_sure(column))) if arrow == target == pa.bool_() else None


def _decimals(arrow: pa.DataType, target: pa.DataType) -> Fit | None:
    if pa.types.is_string(arrow):
        return decimals_of_text(target)
    return (lambda column: decimals(column.cast(target))) if pa.types.is_decimal(arrow) else None


def _whole_floats(avro: str, arrow: pa.DataType, target: pa.DataType) -> Fit | None:
    """Return the fit of whole numbers that have a point, as pandas writes those of a column with gaps."""
    low, high = INT if avro == "int" else LONG
    limit = EXACT_INTEGERS["double" if arrow == pa.float64() else "float"]
    low, high = max(low, -limit), min(high, limit)

    def fit(column: pa.Array) -> Fitted:
        numbers = column.fill_null(0.0).to_numpy(zero_copy_only=False)
        sure = (numbers >= low) & (numbers <= high) & (np.trunc(numbers) == numbers)
        return made(np.where(sure, numbers, 0).astype(np.int64), sure, column, target)

    return fit if arrow in (pa.float32(), pa.float64()) else None


def _instants(
    base: str, unit: str, arrow: pa.DataType, target: pa.DataType, is_utc: bool, number_ns: int | None
) -> Fit | None:
    to_ns = UNIT_NS[unit]
    low = max((FIRST + MARGIN_MS) * 10**6 // to_ns, LONG[0])
    high = min((LAST - MARGIN_MS) * 10**6 // to_ns, LONG[1])
    if pa.types.is_integer(arrow):
        return lambda column: scaled(column, number_ns or to_ns, to_ns, low, high, target)
    if pa.types.is_timestamp(arrow) and (arrow.tz is not None or is_utc or base == "local-timestamp"):
        if base == "local-timestamp" and arrow.tz is not None:
            return None
        return lambda column: scaled(column, record_parts.UNIT_NS[arrow.unit], to_ns, low, high, target)
    if not pa.types.is_string(arrow):
        return None

    def of_text(column: pa.Array) -> Fitted:
        # Arrow accepts times without seconds; a text of this length has seconds, or an offset.
        sure = lengths(column) >= len("2013-01-31T13:45:00")
        texts = kept(column, sure)
        if base == "timestamp":
            try:
                times = texts.cast(target)
            except pa.ArrowInvalid:
                if not is_utc:
                    raise
                times = texts.cast(pa.timestamp(target.unit)).view(target)
        else:
            times = texts.cast(target)
        values, in_range = bounded(times, low, high, target)
        return values, in_range & (sure | ~is_there(column))

    def of_numbers_too(column: pa.Array) -> Fitted:
        # A time has a colon, which no number has.
        if number_ns is None or has_other_characters(column):
            return of_text(column)
        numbers, are_numbers = integers_of_text("long")(column)
        values, in_range = scaled(numbers, number_ns, to_ns, low, high, target)
        return values, are_numbers & in_range

    return of_numbers_too


def _times(unit: str, arrow: pa.DataType, target: pa.DataType) -> Fit | None:
    to_ns = UNIT_NS[unit]
    last = DAY_NS // to_ns - 1
    if pa.types.is_integer(arrow):
        return lambda column: bounded(column, 0, last, target)
    if pa.types.is_time(arrow):
        return lambda column: scaled(column, record_parts.UNIT_NS[arrow.unit], to_ns, 0, last, target)
    return None


def _dates(arrow: pa.DataType, number_ns: int | None) -> Fit | None:
    first, last = DAYS[0], DAYS[-1]
    if pa.types.is_integer(arrow) and number_ns:
        return lambda column: scaled(column, number_ns, DAY_NS, first, last, pa.date32())
    if pa.types.is_integer(arrow) or pa.types.is_date32(arrow):
        return lambda column: bounded(column, first, last, pa.date32())
    if pa.types.is_string(arrow):
        return lambda column: bounded(column.cast(pa.date32()), first, last, pa.date32())
    return None


def _floating(avro: str, arrow: pa.DataType) -> Fit | None:
    target = pa.float64() if avro == "double" else pa.float32()
    if pa.types.is_integer(arrow):
        limit = EXACT_INTEGERS[avro]

        def of_integers(column: pa.Array) -> Fitted:
            values, sure = bounded(column, -limit, limit, pa.int64())
            return values.cast(target), sure

        return of_integers
    if arrow == target == pa.float64():
        return lambda column: (column, all_sure(column))
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
        return lambda column: chosen(column, pc.is_in(column, symbols))
    if declared["type"] != "string":
        return None
    if declared.get("logicalType") == "uuid":
        return lambda column: chosen(column, pc.match_substring_regex(column, UUID))
    return lambda column: (column, all_sure(column))


def _bytes(target: pa.DataType) -> Fit:
    if target == pa.binary():
        return lambda column: (column.cast(target), all_sure(column))
    return bytes_of_size(target)
