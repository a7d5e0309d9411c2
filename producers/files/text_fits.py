"""Fits columns of text to the numbers, booleans, bytes and decimals that the text says."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from producers.files.sure_values import Fit, Fitted, all_sure, bounded, characters, chosen, has_other_characters, kept
from schemas.arrow_columns import lengths
from schemas.columnar import column_type, unscaled_numbers
from schemas.wire import INT, LONG

EXACT_CHARACTERS = 15  # of a number, which a double keeps
LONGEST_INTEGER = 64  # characters: so many leading zeros are nobody's number
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
# So many digits before the point and, where they are scaled up, 18 behind it are still a number of 128 bits.
DECIMAL_CHARACTERS = 20
PLAIN_DECIMAL = r"^[+-]?([0-9]{1,20}(\.[0-9]{0,18})?|\.[0-9]{1,18})$"


def text_fit(declared: Mapping[str, Any]) -> Fit | None:
    """Return the fit of a type to the text of a file's cells, where it is not that of other text; None elsewhere."""
    kind = declared["type"]
    if "logicalType" in declared or declared.get("json"):
        return None
    if kind in ("int", "long"):
        return integers_of_text(kind)
    if kind == "double":
        return _doubles_of_text
    if kind == "boolean":
        return _booleans_of_text
    target = column_type(dict(declared)) if kind == "fixed" else None
    if target:
        return bytes_of_size(target.arrow)
    return _bytes_of_text if kind == "bytes" else None


def decimals(column: pa.Array) -> Fitted:
    """Return decimals, those in doubt that have more digits than their type, which Arrow does not look for wherever it
    scales them up.
    """
    _, sure = unscaled_numbers(column)
    return kept(column, sure), sure


def decimals_of_text(target: pa.DataType) -> Fit:
    """Return the fit of text to decimals.

    Arrow does not notice where a number needs more than its 128 bits, and looks powers of ten up beyond the end of its
    table for 5e-324: it has to be given no such text.
    """

    def fit(column: pa.Array) -> Fitted:
        if has_other_characters(column) or lengths(column).max(initial=0) > DECIMAL_CHARACTERS:
            column, sure = chosen(column, pc.match_substring_regex(column, PLAIN_DECIMAL))
        else:
            sure = all_sure(column)
        values, are_held = decimals(column.cast(target))
        return values, are_held & sure

    return fit


def integers_of_text(avro: str) -> Fit:
    """Return the fit of text to `int` or `long`."""
    low, high = INT if avro == "int" else LONG
    target = pa.int32() if avro == "int" else pa.int64()

    def fit(column: pa.Array) -> Fitted:
        has_point = bool((characters(column) == ord(".")).any())
        # Arrow takes 0x10, too.
        if has_point or has_other_characters(column) or lengths(column).max(initial=0) >= LONGEST_INTEGER:
            column, sure = chosen(column, pc.match_substring_regex(column, r"^[+-]?[0-9]{1,18}(\.0*)?$"))
            column = pc.replace_substring_regex(column, r"\.0*$", "") if has_point else column
        else:
            sure = all_sure(column)
        values, in_range = bounded(column.cast(pa.int64()), low, high, target)
        return values, in_range & sure

    return fit


def _doubles_of_text(column: pa.Array) -> Fitted:
    if has_other_characters(column):
        column, sure = chosen(column, pc.match_substring_regex(column, r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)$"))
    else:
        sure = all_sure(column)
    values = column.cast(pa.float64())
    is_short = lengths(column) <= EXACT_CHARACTERS
    if not is_short.all():
        # Printed by Arrow, a double has as few digits as tell it from all others.
        printed = pc.equal(values.cast(pa.string()), column).fill_null(True).to_numpy(zero_copy_only=False)
        sure = sure & (is_short | printed)
    return values, sure


def _booleans_of_text(column: pa.Array) -> Fitted:
    known, sure = chosen(column, pc.is_in(column, pa.array([*TRUE, *FALSE])))
    return pc.if_else(known.is_null(), None, pc.is_in(known, pa.array(TRUE))), sure


def _bytes_of_text(column: pa.Array) -> Fitted:
    return column.cast(pa.binary()), all_sure(column)


def bytes_of_size(target: pa.DataType) -> Fit:
    """Return the fit of bytes, or of text as its UTF-8, to bytes of one size."""

    def fit(column: pa.Array) -> Fitted:
        of_size, sure = chosen(column.cast(pa.binary()), pc.equal(pc.binary_length(column), target.byte_width))
        return of_size.cast(target), sure

    return fit
