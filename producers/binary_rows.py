"""Parquet and Avro container files: typed rows, numbered from 1."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from producers.rows import READ_ERRORS, Row, bad_file, unique_columns

BATCH_ROWS = 5_000
# fastavro has no error class of its own for bytes that are no Avro.
AVRO_ERRORS = (*READ_ERRORS, ValueError, LookupError, TypeError)


class ParquetInput:
    """A Parquet file."""

    from_text = False

    def __init__(self, name: str, path: Path) -> None:
        """Reads the footer; raises TidemarkError BAD_FILE where there is none."""
        self.name = name
        try:
            self._file = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as exc:
            raise bad_file(name, f"it is no Parquet file: {exc}") from exc
        self._columns, self.notes = unique_columns(name, self._file.schema_arrow.names)

    @property
    def schema(self) -> pa.Schema:
        """The file's Arrow schema, column names made unique."""
        fields = zip(self._columns, self._file.schema_arrow, strict=True)
        return pa.schema([field.with_name(name) for name, field in fields])

    def columns(self) -> list[str] | None:
        """The names of the columns, made unique."""
        return self._columns

    def rows(self) -> Iterator[Row]:
        """Every row."""
        read = 0
        try:
            for batch in self._file.iter_batches(batch_size=BATCH_ROWS):
                yield from _batch_rows(batch.rename_columns(self._columns), read + 1)
                read += len(batch)
        except (OSError, pa.ArrowException) as exc:
            raise bad_file(self.name, f"unreadable after row {read}: {exc}") from exc


class AvroInput:
    """An Avro container file.

    Logical types are read as what they are stored as (a timestamp as an integer), which loses nothing.
    """

    from_text = False

    def __init__(self, name: str, stream: io.BufferedReader) -> None:
        """Reads the header; raises TidemarkError BAD_FILE where there is none, or no record schema in it."""
        self.name = name
        self.notes: list[str] = []
        try:
            reader = fastavro.reader(stream)
            self.schema: Any = json.loads(reader.metadata["avro.schema"])
            stored: Any = _without_logical_types(self.schema)
            stream.seek(0)
            self._reader = fastavro.reader(stream, reader_schema=stored, return_record_name=True)
        except AVRO_ERRORS as exc:
            raise bad_file(name, f"it is no Avro container file: {exc}") from exc
        if not isinstance(self.schema, dict) or self.schema.get("type") != "record":
            raise bad_file(name, "its schema is no record's")

    def columns(self) -> list[str] | None:
        """The names of the fields."""
        return [field["name"] for field in self.schema["fields"]]

    def rows(self) -> Iterator[Row]:
        """Every row; a block that is damaged ends the file."""
        number = 0
        try:
            for number, record in enumerate(self._reader, start=1):
                values: Any = record
                yield Row(number, "", values)
        except AVRO_ERRORS as exc:
            raise bad_file(self.name, f"unreadable after row {number}: {exc}") from exc


def _batch_rows(batch: pa.RecordBatch, first: int) -> Iterator[Row]:
    try:
        records = batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as exc:
        # One value that Python cannot hold (a year after 9999, a string that is no UTF-8) spoils the whole batch.
        if len(batch) == 1:
            yield Row(first, str(batch.to_struct_array()), None, str(exc))
        else:
            for index in range(len(batch)):
                yield from _batch_rows(batch.slice(index, 1), first + index)
        return
    for index, record in enumerate(records):
        yield Row(first + index, "", record)


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(branch) for branch in schema]
    if isinstance(schema, dict):
        return {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    return schema
