"""Reads Parquet and Avro container files: typed rows, numbered from 1."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fastavro import schemaless_reader
from fastavro.schema import SchemaParseException, UnknownType

from conf.errors import TidemarkError
from producers.files.avro_container import BLOCK_BYTES, LIST_BLOCK_BYTES, UNPACK_ERRORS, Container
from producers.files.avro_stored import stored_schema
from producers.files.fine_times import finer_than_micros
from producers.files.known_zones import batch_in, known, types_in, utc
from producers.files.rows import LEAST_ROWS, READ_ERRORS, NotColumnarError, Piece, Row, bad_file, unique_columns
from schemas.spark_limits import require_finite

BATCH_ROWS = 5_000
# The most bytes of the rows that are worked on at a time, unless a row alone is larger.
PIECE_BYTES = 1 << 22
# Without it, a column of a row group is read whole.
BUFFER_BYTES = 1 << 20
FINER = "a time of it is finer than microseconds, which is what a table holds"
NOT_HELD = "it holds a time finer than microseconds or outside the years 1 to 9999, or text that is not UTF-8"
# What values raise that Python does not hold.
NOT_VALUES = (ValueError, OverflowError, LookupError, pa.ArrowException)
CODECS = ("null", "deflate", "snappy", "zstandard", "bzip2", "xz", "lz4")
# fastavro has no error class of its own for bytes that are no Avro.
AVRO_ERRORS = (
    *(*READ_ERRORS, *UNPACK_ERRORS, ValueError, LookupError, TypeError, MemoryError, OverflowError),
    *(RecursionError, SchemaParseException, UnknownType),
)


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
        fields = zip(self._columns, types_in(self._file.schema_arrow, known), strict=True)
        self.schema = pa.schema([field.with_name(column) for column, field in fields])

    def columns(self) -> list[str] | None:
        """Return the names of the columns, made unique."""
        return self._columns

    def rows(self) -> Iterator[Row]:
        """Yield every row."""
        for piece in self.pieces():
            yield from piece.rows()

    def column_types(self, schema: Mapping[str, Any]) -> pa.Schema:
        """Return the file's own types."""
        return self.schema

    def pieces(self) -> Iterator["ParquetPiece"]:
        """Yield the rows, some at a time: fewer where they are large."""
        read, size = 0, self._rows_at_a_time()
        try:
            exacts = self._exact.iter_batches(batch_size=size) if self._exact else repeat(None)
            for batch, exact in zip(self._file.iter_batches(batch_size=size), exacts, strict=False):
                cut = _cut_rows(batch, exact) if exact else set()
                named = batch_in(batch.rename_columns(self._columns), self.schema)
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
        """Yield every row."""
        for row in _batch_rows(self._batch, self._first):
            yield replace(row, values=None, problem=FINER) if row.line - self._first in self._cut else row

    def row(self, index: int) -> Row:
        """Return one row."""
        return next(self._part(index, 1).rows())

    def columns(self, types: pa.Schema) -> pa.Table:
        """Return the columns that `types` names; raises pa.ArrowInvalid where a time was cut, or text is no UTF-8."""
        if self._cut:
            raise pa.ArrowInvalid(FINER)
        table = pa.Table.from_batches([self._batch]).select(types.names)
        table.validate(full=True)
        return table

    def halves(self) -> Sequence["ParquetPiece"]:
        """Return the rows in two pieces."""
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


class AvroInput:
    """An Avro container file.

    Values are read as they are stored (a timestamp as an integer), which loses nothing; see `avro_stored`. `stored` is
    the schema that says so.
    """

    from_text = False

    def __init__(self, name: str, stream: io.BufferedReader) -> None:
        """Reads the header; raises TidemarkError BAD_FILE where there is none, or no record schema in it."""
        self.name = name
        self.notes: list[str] = []
        try:
            self._container = Container(stream)
            _require_codec(name, self._container.metadata.get("avro.codec", b"null").decode())
            self.schema: Any = json.loads(self._container.metadata["avro.schema"])
            self.stored = stored_schema(self.schema)
            # The schema must not let a few bytes claim any number of values.
            require_finite(self.stored)
        except TidemarkError as exc:
            raise bad_file(name, f"its rows have no bound: {exc.message}", exc.remedy) from exc
        except AVRO_ERRORS as exc:
            raise bad_file(name, f"it is no Avro container file: {exc}") from exc
        if not isinstance(self.schema, dict) or self.schema.get("type") != "record":
            raise bad_file(name, "its schema is no record's")

    def columns(self) -> list[str] | None:
        """Return the names of the fields."""
        return [field["name"] for field in self.schema["fields"]]

    def column_types(self, schema: Mapping[str, Any]) -> pa.Schema:
        """Raise NotColumnarError."""
        raise NotColumnarError("an Avro file has rows only")

    def pieces(self) -> Iterator[Piece | Iterator[Row]]:
        """Yield the rows: the file has no columns."""
        yield self.rows()

    def rows(self) -> Iterator[Row]:
        """Yield every row; a block that is damaged ends the file."""
        number = 0
        try:
            for number, record in enumerate(self._records(), start=1):
                yield Row(number, "", record)
        except AVRO_ERRORS as exc:
            raise bad_file(self.name, f"unreadable after row {number}: {exc}") from exc

    def _records(self) -> Iterator[Any]:
        has_lists = any(f'"{kind}"' in json.dumps(self.stored) for kind in ("array", "map"))
        for count, data in self._container.blocks(LIST_BLOCK_BYTES if has_lists else BLOCK_BYTES):
            for _ in range(count):
                yield schemaless_reader(data, self.stored, None, return_named_type=True)


def _require_codec(name: str, codec: str) -> None:
    if codec not in CODECS:
        remedy = f"the file may be sound: write it anew with one of {', '.join(CODECS)}"
        raise bad_file(name, f"its blocks are compressed with {codec}, which cannot be read here", remedy)


def _batch_rows(batch: pa.RecordBatch, first: int) -> Iterator[Row]:
    try:
        records = _values(batch)
    except NOT_VALUES as exc:
        # One value that Python cannot hold (a year after 9999, a string that is no UTF-8) spoils the whole batch.
        if len(batch) == 1:
            yield _last_try(batch, first, str(exc))
            return
        middle = len(batch) // 2
        yield from _batch_rows(batch.slice(0, middle), first)
        yield from _batch_rows(batch.slice(middle), first + middle)
        return
    for index, record in enumerate(records):
        yield Row(first + index, "", record)


def _values(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    if any(finer_than_micros(column, column).any() for column in batch.columns):
        raise ValueError(FINER)
    return list(batch.to_pylist())


def _last_try(row: pa.RecordBatch, number: int, problem: str) -> Row:
    """Return a row with its instants in UTC: the first and last that Python can show may not be shown in its zone."""
    in_utc = batch_in(row, types_in(row.schema, utc))
    try:
        return Row(number, "", _values(in_utc)[0])
    except NOT_VALUES:
        return Row(number, str(row.to_struct_array()), None, _not_held(in_utc) or problem)


def _not_held(row: pa.RecordBatch) -> str | None:
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
    is_cut = np.logical_or.reduce([finer_than_micros(*pair) for pair in pairs])
    return set(np.flatnonzero(is_cut).tolist())
