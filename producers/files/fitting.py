"""Converts Arrow columns to Avro types, all values at once, where reading row by row would surely give the same bytes.

A fit is a function. It makes of a column one of exactly the type that `schemas.columnar` takes, and a mask of its sure
values. The others are in doubt: they are null, and `schemas.values` reads them row by row, accepts or rejects them, and
says why. Where a column cannot be converted, pa.ArrowException is raised: all rows of the piece are in doubt.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from producers.files.scalar_fits import scalar_fit
from producers.files.sure_values import Fit, Fitted, Mask
from producers.files.text_fits import text_fit
from schemas.arrow_columns import is_there, lengths
from schemas.columnar import column_type
from schemas.values import Reading, branches, source_name

VIEWS = {pa.large_string(): pa.string(), pa.string_view(): pa.string()} | {
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}


@dataclass(frozen=True)
class Fitting:
    """How the values of a file are read. `missing`: whether a field that a row lacks is null in its column."""

    reading: Reading
    missing: bool = False

    @property
    def _is_utc(self) -> bool:
        return self.reading.zone.utcoffset(None) == timedelta(0)

    def field(self, field: Mapping[str, Any], arrow: pa.DataType | None) -> Fit | None:
        """Return the fit of a record's field to a column, None being no column; None where there is no fit."""
        avro_type = field["type"]
        if arrow is None:
            is_null = isinstance(avro_type, list) and "default" in field and field["default"] is None
            kind = column_type(avro_type)
            if kind is None or not is_null:
                return None
            return lambda column: (pa.nulls(len(column), kind.arrow), np.ones(len(column), np.bool_))
        fit = self.of(avro_type, arrow, self.reading.from_text, self.reading.number_ns.get(field["name"]))
        if fit is None or not self.missing or ("default" in field and field["default"] is None):
            return fit
        # A field that is missing has another meaning than one that is null.
        return _required(fit)

    def of(self, avro_type: Any, arrow: pa.DataType, cells: bool = False, number_ns: int | None = None) -> Fit | None:
        """Return the fit of a type; None where there is none."""
        nullable = isinstance(avro_type, list)
        others = branches(avro_type)
        if column_type(avro_type) is None:
            return None
        plain = VIEWS.get(arrow.value_type if pa.types.is_dictionary(arrow) else arrow) or (
            arrow.value_type if pa.types.is_dictionary(arrow) else arrow
        )
        declared = {"type": others[0]} if isinstance(others[0], str) else others[0]
        fit = text_fit(declared) if cells else None
        fit = (
            fit
            or scalar_fit(declared, plain, self._is_utc, number_ns)
            or (None if cells else self._nested(declared, plain))
        )
        if fit is None:
            return None
        if pa.types.is_null(plain):
            return fit if nullable else _required(fit)
        if plain != arrow:
            fit = _cast_before(fit, plain)
        if not nullable:
            fit = _required(fit)
        return _without_nulls(fit, self.reading.nulls_of(avro_type)) if cells else fit

    def _nested(self, declared: Mapping[str, Any], arrow: pa.DataType) -> Fit | None:
        kind = declared["type"]
        if kind == "record" and pa.types.is_struct(arrow):
            return self._record(declared, arrow)
        if kind == "array" and (pa.types.is_list(arrow) or pa.types.is_large_list(arrow)):
            item = self.of(declared["items"], arrow.value_type)
            return _lists(item) if item else None
        if kind == "map" and pa.types.is_map(arrow) and arrow.key_type == pa.string():
            item = self.of(declared["values"], arrow.item_type)
            return _maps(item, column_type(declared).arrow) if item else None  # type: ignore[union-attr]
        return None

    def _record(self, declared: Mapping[str, Any], arrow: pa.StructType) -> Fit | None:
        names = [arrow.field(index).name for index in range(arrow.num_fields)]
        fields = {source_name(field): field for field in declared["fields"]}
        if len(set(names)) < len(names) or set(names) != fields.keys():
            return None
        # The event time, whose numbers have a unit of their own, is a field of the row itself.
        inner = replace(self, reading=replace(self.reading, number_ns={}))
        fits = [inner.field(field, arrow.field(source).type) for source, field in fields.items()]
        if not all(fits):
            return None
        places = [names.index(source) for source in fields]

        def fit(column: pa.Array) -> Fitted:
            present = is_there(column)
            children = column.flatten()
            fitted = [fit(children[place]) for fit, place in zip(fits, places, strict=True) if fit]
            sure = np.logical_and.reduce([sure for _, sure in fitted]) | ~present
            values = [child for child, _ in fitted]
            names = [field["name"] for field in fields.values()]
            return pa.StructArray.from_arrays(values, names, mask=pa.array(~present)), sure

        return fit


def _required(fit: Fit) -> Fit:
    def required(column: pa.Array) -> Fitted:
        values, sure = fit(column)
        return values, sure & is_there(values) if values.null_count else sure

    return required


def _cast_before(fit: Fit, arrow: pa.DataType) -> Fit:
    return lambda column: fit(column.cast(arrow))


def _without_nulls(fit: Fit, nulls: frozenset[str]) -> Fit:
    listed = pa.array(sorted(nulls), pa.string())
    longest = max((len(null.encode()) for null in nulls), default=-1)

    def without(column: pa.Array) -> Fitted:
        if lengths(column).min(initial=longest + 1) > longest:
            return fit(column)
        is_null = pc.is_in(column, listed)
        return fit(pc.if_else(is_null, None, column) if pc.any(is_null).as_py() else column)

    return without


def _lists(item: Fit) -> Fit:
    def fit(column: pa.Array) -> Fitted:
        counts = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        items, sure = item(column.flatten())
        offsets = _offsets(counts)
        mask = pa.array(~is_there(column))
        return pa.ListArray.from_arrays(pa.array(offsets), items, mask=mask), _all_within(sure, offsets)

    return fit


def _maps(item: Fit, target: pa.MapType) -> Fit:
    def fit(column: pa.Array) -> Fitted:
        entries = column.cast(pa.list_(pa.struct([("key", pa.string()), ("value", column.type.item_type)])))
        counts = pc.list_value_length(entries).fill_null(0).to_numpy(zero_copy_only=False)
        keys, values = entries.flatten().flatten()
        codes = keys.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(len(column)), counts)
        if len(np.unique(rows * (len(keys) + 1) + codes)) < len(keys):
            raise pa.ArrowInvalid("a map has a key twice")
        fitted, sure = item(values)
        offsets = _offsets(counts)
        maps = pa.MapArray.from_arrays(pa.array(offsets), keys, fitted, mask=pa.array(~is_there(column)))
        return maps.cast(target), _all_within(sure, offsets)

    return fit


def _offsets(counts: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def _all_within(sure: Mask, offsets: npt.NDArray[np.int32]) -> Mask:
    doubts = np.concatenate([[0], np.cumsum(~sure)])
    return np.asarray(doubts[offsets[1:]] == doubts[offsets[:-1]])
