"""Reads Parquet and Avro container files: typed rows, numbered from 1."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fastavro import schemaless_reader
from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from conf.errors import TidemarkError
from producers.files.avro_container import BLOCK_BYTES, LIST_BLOCK_BYTES, UNPACK_ERRORS, Container
from producers.files.rows import LEAST_ROWS, READ_ERRORS, NotColumnarError, Piece, Row, bad_file, unique_columns
from schemas.spark_limits import require_finite

BATCH_ROWS = 5_000
# Of rows that are worked on at a time.
PIECE_BYTES = 1 << 22
# Without it, a column of a row group is read whole.
BUFFER_BYTES = 1 << 20
LAST_NANOS = 2**63 - 1
FINER = "a time of it is finer than microseconds, which is what a table holds"
NOT_HELD = "it holds a time finer than microseconds or outside the years 1 to 9999, or text that is not UTF-8"
CODECS = ("null", "deflate", "snappy", "zstandard", "bzip2", "xz", "lz4")
# fastavro has no error class of its own for bytes that are no Avro.
AVRO_ERRORS = (
    *(*READ_ERRORS, *UNPACK_ERRORS, ValueError, LookupError, TypeError, MemoryError, OverflowError),
    *(RecursionError, SchemaParseException, UnknownType),
)


class ParquetInput:
    """A Parquet file."""

    from_text = False

    def __init__(self, name: str, path: Path) -> None:
        """Reads the footer; raises TidemarkError BAD_FILE where there is none."""
        self.name = name
        try:
            # Read in nanoseconds, as is the default, a time after the year 2262 would become another one.
            self._file = pq.ParquetFile(path, coerce_int96_timestamp_unit="us", buffer_size=BUFFER_BYTES)
            self._int96 = [
                column.name
                for column in map(self._file.schema.column, range(len(self._file.schema)))
                if column.physical_type == "INT96"
            ]
            self._finer = pq.ParquetFile(path, buffer_size=BUFFER_BYTES) if self._int96 else None
        except (OSError, pa.ArrowException) as exc:
            raise bad_file(name, f"it is no Parquet file: {exc}") from exc
        self._columns, self.notes = unique_columns(name, self._file.schema_arrow.names)

    @property
    def schema(self) -> pa.Schema:
        """The file's Arrow schema, column names made unique."""
        fields = zip(self._columns, self._file.schema_arrow, strict=True)
        return pa.schema([field.with_name(name) for name, field in fields])

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
            finer = self._finer.iter_batches(batch_size=size) if self._finer else repeat(None)
            for batch, fine in zip(self._file.iter_batches(batch_size=size), finer, strict=False):
                cut = _cut_rows(batch, fine, self._int96)
                yield from ParquetPiece(batch.rename_columns(self._columns), read + 1, cut).small()
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

    Logical types are read as what they are stored as (a timestamp as an integer), which loses nothing. In a union, a
    record, enum or fixed comes as a pair of its type's name and its value, so that its branch is known.
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
            self._stored = parse_schema(_without_logical_types(self.schema))
            # What a few bytes claim without end is no row of a table either.
            require_finite(self._stored)
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
        has_lists = any(f'"{kind}"' in json.dumps(self._stored) for kind in ("array", "map"))
        for count, data in self._container.blocks(LIST_BLOCK_BYTES if has_lists else BLOCK_BYTES):
            for _ in range(count):
                yield schemaless_reader(data, self._stored, None, return_named_type=True)


def _require_codec(name: str, codec: str) -> None:
    if codec not in CODECS:
        remedy = f"the file may be sound: write it anew with one of {', '.join(CODECS)}"
        raise bad_file(name, f"its blocks are compressed with {codec}, which cannot be read here", remedy)


def _batch_rows(batch: pa.RecordBatch, first: int) -> Iterator[Row]:
    try:
        records = batch.cast(_in_micros(batch.schema)).to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as exc:
        # One value that Python cannot hold (a year after 9999, a string that is no UTF-8) spoils the whole batch.
        if len(batch) == 1:
            yield Row(first, str(batch.to_struct_array()), None, _not_held(batch) or str(exc))
        else:
            for index in range(len(batch)):
                yield from _batch_rows(_alone(batch, index), first + index)
        return
    for index, record in enumerate(records):
        yield Row(first + index, "", record)


def _not_held(row: pa.RecordBatch) -> str | None:
    """Say why one row cannot be read, by column, and without values, which may be personal; None where each can be."""
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            column.cast(_in_micros(column.type)).to_pylist()
        except (ValueError, OverflowError, pa.ArrowException):
            return f"field `{name}`: {NOT_HELD}"
    return None


def _alone(batch: pa.RecordBatch, index: int) -> pa.RecordBatch:
    """One row as a batch, copied: of a slice, the rows around it would be cast too. `take` knows no views of text."""
    parts = [pa.concat_arrays([column.slice(index, 1), column.slice(index, 0)]) for column in batch.columns]
    return pa.RecordBatch.from_arrays(parts, schema=batch.schema)


def _cut_rows(batch: pa.RecordBatch, fine: pa.RecordBatch | None, int96: list[str]) -> set[int]:
    """The rows of `batch` in which a time of 12 bytes is finer than microseconds, which `fine` has in nanoseconds."""
    cut: set[int] = set()
    for name in int96:
        is_column = batch.schema.names.count(name) == 1 and pa.types.is_timestamp(batch.schema.field(name).type)
        if fine is None or not is_column:
            continue
        micros, nanos = (frame[name].cast(pa.int64()) for frame in (batch, fine))
        fits = pc.less_equal(pc.abs(micros), LAST_NANOS // 1000)
        is_cut = pc.and_(fits, pc.not_equal(pc.if_else(fits, pc.multiply(micros, 1000), 0), nanos))
        cut.update(pc.indices_nonzero(is_cut).to_pylist())
    return cut


def _in_micros(kind: Any) -> Any:
    """A schema or type with times of day in microseconds, to which a finer one cannot be cast: Python would cut it."""
    if isinstance(kind, pa.Schema):
        return pa.schema([field.with_type(_in_micros(field.type)) for field in kind])
    if kind == pa.time64("ns"):
        return pa.time64("us")
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_in_micros(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_field, kind.item_field.with_type(_in_micros(kind.item_type)))
    for matches, make in ((pa.types.is_list, pa.list_), (pa.types.is_large_list, pa.large_list)):
        if matches(kind):
            return make(kind.value_field.with_type(_in_micros(kind.value_type)))
    return kind


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(branch) for branch in schema]
    if isinstance(schema, dict):
        return {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    return schema
