"""Reads Parquet files: typed rows, numbered from 1, as columns or one by one; times that would be cut are refused."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from producers.files.avro_fields import LISTS
from producers.files.rows import LEAST_ROWS, Row, bad_file, unique_columns
from schemas.arrow_columns import is_there

BATCH_ROWS = 5_000
# The most bytes of the rows that are worked on at a time, unless a row alone is larger.
PIECE_BYTES = 1 << 22
# Without it, a column of a row group is read whole.
BUFFER_BYTES = 1 << 20
FINER = "a time of it is finer than microseconds, which is what a table holds"
NOT_HELD = "it holds a time finer than microseconds or outside the years 1 to 9999, or text that is not UTF-8"
# What values raise that Python does not hold.
NOT_VALUES = (ValueError, OverflowError, LookupError, pa.ArrowException)
NANOSECONDS = pa.time64("ns")
MAKE_LIST: tuple[tuple[Any, Any], ...] = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
    (pa.types.is_list_view, pa.list_view),
    (pa.types.is_large_list_view, pa.large_list_view),
)

Mask = npt.NDArray[np.bool_]


class ParquetInput:
    """A Parquet file.

    `schema` is its Arrow schema, where the names of columns are made unique, and zones that are not known are UTC.
    """

    from_text = False

    def __init__(self, name: str, path: Path) -> None:
        """Reads the footer; raises TidemarkError BAD_FILE where there is none."""
        self.name = name
        try:
            # Read in nanoseconds, as is the default, a time after the year 2262 would become another one.
            self._file = pq.ParquetFile(path, coerce_int96_timestamp_unit="us", buffer_size=BUFFER_BYTES)
            leaves = map(self._file.schema.column, range(len(self._file.schema)))
            has_cut = any(leaf.physical_type == "INT96" for leaf in leaves)
            self._exact = pq.ParquetFile(path, buffer_size=BUFFER_BYTES) if has_cut else None
        except (OSError, pa.ArrowException) as exc:
            raise bad_file(name, f"it is no Parquet file: {exc}") from exc
        self._columns, self.notes = unique_columns(name, self._file.schema_arrow.names)
        fields = zip(self._columns, _with_zones(self._file.schema_arrow, _known_zone), strict=True)
        self.schema = pa.schema([field.with_name(column) for column, field in fields])

    def columns(self) -> list[str] | None:
        return self._columns

    def rows(self) -> Iterator[Row]:
        for piece in self.pieces():
            yield from piece.rows()

    def column_types(self, schema: Mapping[str, Any]) -> pa.Schema:
        return self.schema

    def pieces(self) -> Iterator["ParquetPiece"]:
        """Yield the rows, some at a time: fewer where they are large."""
        read, size = 0, self._rows_at_a_time()
        try:
            exacts = self._exact.iter_batches(batch_size=size) if self._exact else repeat(None)
            for batch, exact in zip(self._file.iter_batches(batch_size=size), exacts, strict=False):
                cut = _cut_rows(batch, exact) if exact else set()
                named = _viewed(batch.rename_columns(self._columns), self.schema)
                yield from ParquetPiece(named, read + 1, cut).small()
                read += len(batch)
        except (OSError, pa.ArrowException) as exc:
            raise bad_file(self.name, f"unreadable after row {read}: {exc}") from exc

    def _rows_at_a_time(self) -> int:
        metadata = self._file.metadata
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        largest = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
        return max(1, min(BATCH_ROWS, PIECE_BYTES // max(1, largest)))


class ParquetPiece:
    """Rows of a Parquet file: a batch, the number of its first row, and the rows whose times were cut."""

    def __init__(self, batch: pa.RecordBatch, first: int, cut: Set[int]) -> None:
        self._batch, self._first, self._cut = batch, first, cut

    def rows(self) -> Iterator[Row]:
        for row in _batch_rows(self._batch, self._first):
            yield replace(row, values=None, problem=FINER) if row.line - self._first in self._cut else row

    def row(self, index: int) -> Row:
        return next(self._part(index, 1).rows())

    def columns(self, types: pa.Schema) -> pa.Table:
        """Return the columns that `types` names; raises pa.ArrowInvalid where a time was cut, or text is no UTF-8."""
        if self._cut:
            raise pa.ArrowInvalid(FINER)
        table = pa.Table.from_batches([self._batch]).select(types.names)
        table.validate(full=True)
        return table

    def halves(self) -> Sequence["ParquetPiece"]:
        return self._halves() if len(self._batch) >= 2 * LEAST_ROWS else ()

    def small(self) -> Iterator["ParquetPiece"]:
        """Yield the rows in pieces that memory can hold several copies of, unless a row alone is larger."""
        if self._batch.nbytes <= PIECE_BYTES or len(self._batch) == 1:
            yield self
            return
        for half in self._halves():
            yield from half.small()

    def _halves(self) -> Sequence["ParquetPiece"]:
        middle = len(self._batch) // 2
        return self._part(0, middle), self._part(middle, len(self._batch) - middle)

    def _part(self, start: int, count: int) -> "ParquetPiece":
        cut = {index - start for index in self._cut if start <= index < start + count}
        return ParquetPiece(self._batch.slice(start, count), self._first + start, cut)


def _batch_rows(batch: pa.RecordBatch, first: int) -> Iterator[Row]:
    try:
        records = _values(batch)
    except NOT_VALUES as exc:
        # One value that Python cannot hold (a year after 9999, a string that is no UTF-8) spoils the whole batch.
        if len(batch) == 1:
            yield _row_in_utc(batch, first, str(exc))
            return
        middle = len(batch) // 2
        yield from _batch_rows(batch.slice(0, middle), first)
        yield from _batch_rows(batch.slice(middle), first + middle)
        return
    for index, record in enumerate(records):
        yield Row(first + index, "", record)


def _values(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    if any(_finer_than_micros(column, column).any() for column in batch.columns):
        raise ValueError(FINER)
    return list(batch.to_pylist())


def _row_in_utc(row: pa.RecordBatch, number: int, problem: str) -> Row:
    """Return a row with its instants in UTC: the first and last that Python can show may not be shown in its zone."""
    in_utc = _viewed(row, _with_zones(row.schema, lambda zone: "UTC"))
    try:
        return Row(number, "", _values(in_utc)[0])
    except NOT_VALUES:
        return Row(number, str(row.to_struct_array()), None, _why_not_held(in_utc) or problem)


def _why_not_held(row: pa.RecordBatch) -> str | None:
    """Say why one row cannot be read, by column, and without values, which may be personal; None where each can be."""
    for name in row.schema.names:
        try:
            _values(row.select([name]))
        except NOT_VALUES:
            return f"field `{name}`: {NOT_HELD}"
    return None


def _cut_rows(batch: pa.RecordBatch, exact: pa.RecordBatch) -> set[int]:
    """Return the rows of `batch` in which a time of 12 bytes is finer than microseconds, in which it was read."""
    pairs = [pair for pair in zip(batch.columns, exact.columns, strict=True) if pair[0].type != pair[1].type]
    is_cut = np.logical_or.reduce([_finer_than_micros(*pair) for pair in pairs])
    return set(np.flatnonzero(is_cut).tolist())


def _finer_than_micros(column: pa.Array, exact: pa.Array) -> Mask:
    """Return for each row whether a time of day in it, at any depth, is finer than microseconds, or a time was cut.

    Microseconds are all that a table holds, and Python's times: Arrow cuts what it gives as one, without a word.

    Args:
        exact: the same column, in which the times that were cut to microseconds (those of 12 bytes) have nanoseconds.

    Raises:
        pa.ArrowNotImplementedError: where such a time lies in a type that is not known here.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _finer_than_micros(column.storage, exact.storage)
    if kind == exact.type and str(NANOSECONDS) not in str(kind):
        return np.zeros(len(column), np.bool_)
    if kind == NANOSECONDS:
        return np.asarray(_numbers(column) % 1000 != 0)
    if pa.types.is_timestamp(kind):
        # Beyond the years that nanoseconds hold, both sides wrap around alike.
        return np.asarray(_numbers(column) * 1000 != _numbers(exact))
    if pa.types.is_dictionary(kind):
        is_finer = np.append(_finer_than_micros(column.dictionary, exact.dictionary), False)
        places = column.indices.fill_null(len(column.dictionary)).to_numpy(zero_copy_only=False)
        return np.asarray(is_finer[places])
    if pa.types.is_struct(kind):
        fields = zip(column.flatten(), exact.flatten(), strict=True)
        return np.asarray(np.logical_or.reduce([_finer_than_micros(*field) for field in fields]) & is_there(column))
    if pa.types.is_map(kind):
        return _finer_than_micros(_map_entries(column), _map_entries(exact))
    if any(matches(kind) for matches in LISTS):
        counts = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(len(column)), counts)
        is_finer = np.zeros(len(column), np.bool_)
        is_finer[rows[_finer_than_micros(column.flatten(), exact.flatten())]] = True
        return is_finer
    raise pa.ArrowNotImplementedError(f"times in {kind} are not read here")


def _numbers(column: pa.Array) -> npt.NDArray[np.int64]:
    return np.asarray(column.view(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))


def _map_entries(column: pa.Array) -> pa.Array:
    kind = column.type
    return column.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))


def _known_zone(zone: str) -> str:
    """Return the zone, or UTC where Python has none of that name: a zone changes no instant."""
    try:
        pa.scalar(0, pa.timestamp("s", zone)).as_py()
    except (ValueError, LookupError, OSError, pa.ArrowException):
        return "UTC"
    return zone


def _with_zones(schema: pa.Schema, change: Callable[[str], str]) -> pa.Schema:
    """Return the schema with the zones of its instants, at any depth, changed."""
    return pa.schema([_field_with_zones(field, change) for field in schema])


def _viewed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch, as one of the schema: one that `_with_zones` made of its own."""
    pairs = zip(batch.columns, schema.types, strict=True)
    columns = [column if column.type == kind else column.view(kind) for column, kind in pairs]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _field_with_zones(field: pa.Field, change: Callable[[str], str]) -> pa.Field:
    return field.with_type(_type_with_zones(field.type, change))


def _type_with_zones(kind: Any, change: Callable[[str], str]) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, change(kind.tz))
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _type_with_zones(kind.value_type, change), kind.ordered)
    if pa.types.is_struct(kind):
        return pa.struct([_field_with_zones(field, change) for field in kind])
    if pa.types.is_map(kind):
        key, item = (_field_with_zones(field, change) for field in (kind.key_field, kind.item_field))
        return pa.map_(key, item, kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_field_with_zones(kind.value_field, change), kind.list_size)
    for matches, make in MAKE_LIST:
        if matches(kind):
            return make(_field_with_zones(kind.value_field, change))
    return kind
