"""Makes records of many rows at once: values, keys and timestamps from columns, wherever that is beyond doubt.

A fit is a function. It makes of a column one of exactly the type that `schemas.columnar` takes, and a mask of its sure
values. The others are in doubt: they are null, and `schemas.values` reads them row by row, accepts or rejects them, and
says why. Where a column cannot be converted, pa.ArrowException is raised: all rows of the piece are in doubt.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from conf.errors import TidemarkError
from jobs.connectors.kafka.refusals import BATCH_BYTES, Limits
from producers.files.request import DEFAULT_UNIT, NUMBER_UNIT_NS, Parts
from producers.files.row_reader import LAST_MS, MS_NS
from producers.files.rows import Input, NotColumnarError, Piece
from producers.files.scalar_fits import Fit, Fitted, Mask, scalar_fit
from schemas.arrow_columns import is_there, lengths
from schemas.columnar import ColumnarEncoder, column_type
from schemas.timestamps import UNIT_NS
from schemas.validity import load_schema
from schemas.values import Reading, branches, source_name

# What a record has beyond its key, value and headers is less than this.
OVERHEAD = BATCH_BYTES + 64
# A piece that cannot be read is halved, and halves count as pieces, too: with one unreadable row in 100 more than half
# of the pieces are bad, counted down to the smallest halves. So the least share of good pieces is low.
TRIED_PIECES, LEAST_SHARE = 200, 0.2
VIEWS = {pa.large_string(): pa.string(), pa.string_view(): pa.string()} | {
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}


@dataclass(frozen=True)
class Records:
    """Records of a piece. `places`: which rows of the piece they are; all others are in doubt. `count`: of its rows."""

    values: list[bytes]
    keys: list[str | bytes | None]
    timestamps: list[int]
    places: npt.NDArray[np.int64]
    count: int


class ColumnReader:
    """Reads records of one schema from pieces of one file."""

    def __init__(self, file: Input, schema_id: int, text: str, parts: Parts, reading: Reading, limits: Limits) -> None:
        """Raises NotColumnarError, where a field, the key, the event time or a header needs the rows."""
        schema: Any = load_schema(text)
        try:
            self._encode = ColumnarEncoder(schema_id, text)
        except TidemarkError as error:
            raise NotColumnarError(error.message) from error
        self._types = file.column_types(schema)
        if file.columns() is None and reading.ignore_extra:
            raise NotColumnarError("each row may have fields of its own (--ignore-extra)")
        reading = replace(reading, from_text=file.from_text, number_ns=parts.number_ns(schema))
        fitting = Fitting(reading, missing=file.columns() is None)
        self._fits: list[tuple[str, Fit]] = []
        for field in schema["fields"]:
            source = source_name(field)
            place = self._types.get_field_index(source)
            arrow = self._types.field(place).type if place >= 0 else None
            fit = fitting.field(field, arrow)
            if fit is None:
                raise NotColumnarError(f"field `{source}` is {field['type']}, its column {arrow or 'missing'}")
            self._fits.append((source, fit))
        by_name = {name: field for field in schema["fields"] for name in (source_name(field), field["name"])}
        if parts.header_fields:
            raise NotColumnarError("a header is made of a field")
        self._key = str(by_name[parts.key]["name"]) if parts.key else None
        if parts.key:
            _require_key(by_name[parts.key])
        self._time = str(by_name[parts.event_time]["name"]) if parts.event_time else None
        self._time_ns = _time_ns(by_name[parts.event_time], parts.unit or DEFAULT_UNIT) if parts.event_time else 0
        headers = sum(len(name.encode()) + len(value.encode()) + 10 for name, value in parts.headers)
        self._largest = None if limits.max_message_bytes is None else limits.max_message_bytes - headers - OVERHEAD
        self._ahead_ms = limits.ahead_ms
        self._tried = self._sure = 0

    def is_fruitless(self) -> bool:
        """Return whether most of what was read so far was in doubt, so that to try on costs more than it saves."""
        return self._tried > TRIED_PIECES and self._sure < self._tried * LEAST_SHARE

    def read(self, piece: Piece) -> Records:
        """Return the records of a piece; raises pa.ArrowException where it cannot be read as columns."""
        self._tried += 1
        table = piece.columns(self._types)
        columns, sure = [], np.ones(table.num_rows, dtype=np.bool_)
        for source, fit in self._fits:
            place = table.schema.get_field_index(source)
            column = table.column(place).combine_chunks() if place >= 0 else pa.nulls(table.num_rows)
            values, is_sure = fit(column)
            columns.append(values)
            sure &= is_sure
        fitted = pa.Table.from_arrays(columns, schema=self._encode.arrow_schema)
        if self._key:
            sure &= fitted.column(self._key).is_valid().to_numpy()
        timestamps = self._timestamps(fitted)
        sure &= (timestamps > 0) | (self._time is None)
        sure &= timestamps <= LAST_MS if self._ahead_ms is None else timestamps <= time.time() * 1000 + self._ahead_ms
        records = self._records(fitted, timestamps, sure)
        self._sure += len(records.places) > records.count / 2
        return records

    def _records(self, table: pa.Table, timestamps: npt.NDArray[np.int64], sure: Mask) -> Records:
        places = np.flatnonzero(sure)
        count = table.num_rows
        if len(places) < count:
            table, timestamps = table.filter(pa.array(sure)), timestamps[places]
        if not len(places):
            return Records([], [], [], places, count)
        values, keys = self._encode.column(table), self._keys(table)
        if self._largest is not None:
            sizes = pc.binary_length(values).to_numpy() + (pc.binary_length(keys).to_numpy() if self._key else 0)
            fits = sizes <= self._largest
            if not fits.all():
                values, places, timestamps = values.filter(pa.array(fits)), places[fits], timestamps[fits]
                keys = keys.filter(pa.array(fits)) if self._key else keys
        listed = keys.to_pylist() if self._key else [None] * len(values)
        return Records(values.to_pylist(), listed, timestamps.tolist(), places, count)

    def _keys(self, table: pa.Table) -> pa.Array:
        if not self._key:
            return None
        column = table.column(self._key).combine_chunks()
        kind = column.type
        if pa.types.is_fixed_size_binary(kind):
            return column.cast(pa.binary())
        return column if pa.types.is_string(kind) or pa.types.is_binary(kind) else column.cast(pa.string())

    def _timestamps(self, table: pa.Table) -> npt.NDArray[np.int64]:
        """Return milliseconds since 1970; 0 for now, or where there is none."""
        if not self._time:
            return np.zeros(table.num_rows, dtype=np.int64)
        column = table.column(self._time).combine_chunks()
        width = column if pa.types.is_integer(column.type) else column.view(pa.int64())
        numbers = width.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        if self._time_ns <= MS_NS:
            return np.asarray(numbers // (MS_NS // self._time_ns))
        factor = self._time_ns // MS_NS
        return np.asarray(np.where((numbers >= 0) & (numbers <= LAST_MS // factor), numbers, 0) * factor)


def _require_key(field: Mapping[str, Any]) -> None:
    declared = _declared(field["type"])
    logical = declared.get("logicalType")
    if logical not in (None, "uuid") or declared["type"] in ("record", "array", "map"):
        raise NotColumnarError(f"the key is made of a {logical or declared['type']}")


def _time_ns(field: Mapping[str, Any], unit: str) -> int:
    """Return the nanoseconds in the unit of an event time that is a number."""
    declared = _declared(field["type"])
    base, _, logical_unit = str(declared.get("logicalType", "")).rpartition("-")
    if base == "timestamp":
        return UNIT_NS[logical_unit]
    if "logicalType" not in declared and declared["type"] in ("int", "long"):
        return NUMBER_UNIT_NS[unit]
    raise NotColumnarError(f"the event time is made of a {declared.get('logicalType', declared['type'])}")


def _declared(avro_type: Any) -> Mapping[str, Any]:
    """Return a type, or that of its values that are not null, as a declaration."""
    first = branches(avro_type)[0]
    return {"type": first} if isinstance(first, str) else first


@dataclass(frozen=True)
class Fitting:
    """How the values of a file are read. `missing`: whether a field that a row lacks is null in its column."""

    reading: Reading
    missing: bool = False

    def field(self, field: Mapping[str, Any], arrow: pa.DataType | None) -> Fit | None:
        """Return the fit of a record's field to a column, None being no column; None where there is no fit."""
        avro_type = field["type"]
        is_null_by_default = "default" in field and field["default"] is None
        if arrow is None:
            kind = column_type(avro_type)
            if kind is None or not isinstance(avro_type, list) or not is_null_by_default:
                return None
            return lambda column: (pa.nulls(len(column), kind.arrow), np.ones(len(column), np.bool_))
        fit = self.of(avro_type, arrow, self.reading.from_text, self.reading.number_ns.get(field["name"]))
        # A field that is missing has another meaning than one that is null.
        return _required(fit) if fit and self.missing and not is_null_by_default else fit

    def of(self, avro_type: Any, arrow: pa.DataType, cells: bool = False, number_ns: int | None = None) -> Fit | None:
        """Return the fit of a type; None where there is none."""
        if column_type(avro_type) is None:
            return None
        plain = arrow.value_type if pa.types.is_dictionary(arrow) else arrow
        plain = VIEWS.get(plain, plain)
        declared = _declared(avro_type)
        is_utc = self.reading.zone.utcoffset(None) == timedelta(0)
        fit = scalar_fit(declared, plain, is_utc, number_ns, cells)
        if fit is None and not cells:
            fit = self._nested(declared, plain)
        if fit is None:
            return None
        if plain != arrow:
            fit = _cast_before(fit, plain)
        if not isinstance(avro_type, list):
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
        items, sure = item(column.flatten())
        offsets = _offsets(pc.list_value_length(column))
        mask = pa.array(~is_there(column))
        return pa.ListArray.from_arrays(pa.array(offsets), items, mask=mask), _all_within(sure, offsets)

    return fit


def _maps(item: Fit, target: pa.MapType) -> Fit:
    def fit(column: pa.Array) -> Fitted:
        entries = column.cast(pa.list_(pa.struct([("key", pa.string()), ("value", column.type.item_type)])))
        offsets = _offsets(pc.list_value_length(entries))
        keys, values = entries.flatten().flatten()
        codes = keys.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(len(column)), np.diff(offsets))
        if len(np.unique(rows * (len(keys) + 1) + codes)) < len(keys):
            raise pa.ArrowInvalid("a map has a key twice")
        fitted, sure = item(values)
        maps = pa.MapArray.from_arrays(pa.array(offsets), keys, fitted, mask=pa.array(~is_there(column)))
        return maps.cast(target), _all_within(sure, offsets)

    return fit


def _offsets(counts: pa.Array) -> npt.NDArray[np.int32]:
    filled = counts.fill_null(0).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(filled)]).astype(np.int32)


def _all_within(sure: Mask, offsets: npt.NDArray[np.int32]) -> Mask:
    doubts = np.concatenate([[0], np.cumsum(~sure)])
    return np.asarray(doubts[offsets[1:]] == doubts[offsets[:-1]])
