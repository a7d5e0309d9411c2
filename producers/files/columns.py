"""Makes records of many rows at once: values, keys and timestamps from columns, wherever that is beyond doubt."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from conf.errors import TidemarkError
from jobs.connectors.kafka.refusals import BATCH_BYTES, Limits
from producers.files.fitting import Fitting
from producers.files.record_parts import DEFAULT_UNIT, LAST_MS, LOGICAL_PER_MS, MS_NS, UNIT_NS, Parts
from producers.files.rows import Input, NotColumnarError, Piece
from producers.files.sure_values import Fit
from schemas.columnar import ColumnarEncoder
from schemas.validity import load_schema
from schemas.values import Reading, branches, source_name

# What a record has beyond its key, value and headers is less than this.
OVERHEAD = BATCH_BYTES + 64
# A piece that cannot be read is halved, and halves count as pieces, too: with one unreadable row in 100 more than half
# of the pieces are bad, counted down to the smallest halves. So the least share of good pieces is low.
TRIED_PIECES, LEAST_SHARE = 200, 0.2


@dataclass(frozen=True)
class Records:
    """Records of a piece. `places`: which rows of the piece they are; all others are in doubt. `count`: of its rows."""

    values: list[bytes]
    keys: list[str | bytes | None]
    timestamps: list[int]
    places: npt.NDArray[np.int64]
    count: int


class ColumnReader:
    """Reads records of one schema from pieces of one file.

    Raises:
        NotColumnarError: where a field, the key, the event time or a header needs the rows.
    """

    def __init__(self, file: Input, schema_id: int, text: str, parts: Parts, reading: Reading, limits: Limits) -> None:
        schema: Any = load_schema(text)
        try:
            self._encode = ColumnarEncoder(schema_id, text)
        except TidemarkError as error:
            raise NotColumnarError(error.message) from error
        self._types = types = file.column_types(schema)
        fields = {source_name(field): field for field in schema["fields"]}
        if file.columns() is None and reading.ignore_extra:
            raise NotColumnarError("each row may have fields of its own (--ignore-extra)")
        reading = replace(reading, from_text=file.from_text, number_ns=parts.number_ns(schema))
        fitting = Fitting(reading, missing=file.columns() is None)
        self._fits = [(source, _fit(fitting, field, source, types)) for source, field in fields.items()]
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
        records = self._read(piece)
        self._sure += len(records.places) > records.count / 2
        return records

    def _read(self, piece: Piece) -> Records:
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
        return self._records(fitted, timestamps, sure)

    def _records(self, table: pa.Table, timestamps: npt.NDArray[np.int64], sure: npt.NDArray[np.bool_]) -> Records:
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


def _fit(fitting: Fitting, field: Mapping[str, Any], source: str, types: pa.Schema) -> Fit:
    place = types.get_field_index(source)
    arrow = types.field(place).type if place >= 0 else None
    fit = fitting.field(field, arrow)
    if fit is None:
        raise NotColumnarError(f"field `{source}` is {field['type']}, its column {arrow or 'missing'}")
    return fit


def _declared(field: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the field's type, without null."""
    kind = branches(field["type"])[0]
    return {"type": kind} if isinstance(kind, str) else dict(kind)


def _require_key(field: Mapping[str, Any]) -> None:
    declared = _declared(field)
    logical = declared.get("logicalType")
    if logical not in (None, "uuid") or declared["type"] in ("record", "array", "map"):
        raise NotColumnarError(f"the key is made of a {logical or declared['type']}")


def _time_ns(field: Mapping[str, Any], unit: str) -> int:
    """Return the nanoseconds in the unit of an event time that is a number."""
    declared = _declared(field)
    base, _, logical_unit = str(declared.get("logicalType", "")).rpartition("-")
    if base == "timestamp":
        return MS_NS // LOGICAL_PER_MS[logical_unit]
    if "logicalType" not in declared and declared["type"] in ("int", "long"):
        return UNIT_NS[unit]
    raise NotColumnarError(f"the event time is made of a {declared.get('logicalType', declared['type'])}")
