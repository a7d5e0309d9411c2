"""Reads values, keys, timestamps and headers out of the rows of files, by one schema."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from conf.errors import TidemarkError
from producers.files.avro_resolution import resolution
from producers.files.avro_rows import AvroInput
from producers.files.json_rows import JsonInput
from producers.files.record_parts import PartsReader
from producers.files.request import FileRequest
from producers.files.rows import Input, NotColumnarError, Row
from schemas.codec import CodecError
from schemas.numbers import Convert
from schemas.pii import pii_fields_of
from schemas.validity import load_schema
from schemas.values import UnfitError, record_converter, source_name, source_names


class RowReader:
    """Reads values, keys, timestamps and headers out of rows, by one schema."""

    def __init__(self, text: str, request: FileRequest) -> None:
        """Raises TidemarkError NO_RECORD_SCHEMA, UNKNOWN_FIELD, UNFIT_FIELD, or BAD_SCHEMA for its marks."""
        schema: Any = load_schema(text)
        if not isinstance(schema, dict) or schema.get("type") != "record":
            raise TidemarkError("NO_RECORD_SCHEMA", "the schema is no record's", "wrap the value in a record")
        # Notes on the row at hand, which count if it is accepted.
        self.notes: list[str] = []
        self.parts = PartsReader(request.parts, schema, self.notes)
        self.exact = '"decimal"' in text
        reading = replace(request.reading, number_ns=request.parts.number_ns(schema))
        # By whether values are text, and whether they are JSON's.
        self._convert = {
            origin: record_converter(text, replace(reading, from_text=origin[0], from_json=origin[1]), self.notes)
            for origin in ((False, False), (True, False), (False, True))
        }
        self._ignore_extra = request.reading.ignore_extra
        self._text, self._fields, self._numbers = text, schema["fields"], reading.number_ns
        self._resolution: tuple[Input, Convert | None] | None = None
        pii_fields = pii_fields_of(text)
        self._personal = {source_name(declared) for declared in schema["fields"] if pii_fields.covers(declared["name"])}
        self._required = {source_name(declared) for declared in schema["fields"] if "default" not in declared}

    def value(self, row: Row, file: Input) -> dict[str, Any]:
        """Return a row of the file as the codec takes it; raises UnfitError."""
        if row.values is None:
            raise UnfitError(row.problem)
        resolve = self._resolve(file)
        convert = self._convert[file.from_text, isinstance(file, JsonInput)]
        return convert(resolve(row.values) if resolve else row.values)

    def _resolve(self, file: Input) -> Convert | None:
        if not isinstance(file, AvroInput):
            return None
        if self._resolution is None or self._resolution[0] is not file:
            self._resolution = (file, resolution(file.stored, self._text, self.notes, self._numbers))
        return self._resolution[1]

    def reason(self, exc: UnfitError | CodecError) -> str:
        """Return why a row does not fit, without what its schema marks as personal data."""
        if isinstance(exc, CodecError):
            return "it does not fit its schema, some of it is personal data" if self._personal else exc.message
        if exc.path and exc.path[0] in self._personal:
            return f"field `{'.'.join(exc.path)}`: its value does not fit, and is personal data"
        return str(exc)

    def extra(self, file: Input) -> list[str]:
        """Return the file's columns that no field goes by."""
        columns = file.columns() or []
        found = source_names(self._fields, columns)
        return [column for column in columns if column not in found]

    def require_sources(self, file: Input) -> None:
        """Raise NotColumnarError where the file has a field under another name than its first."""
        for name, source in source_names(self._fields, file.columns() or []).items():
            if name != source:
                raise NotColumnarError(f"field `{source}` is its column `{name}`")

    def check_columns(self, file: Input) -> None:
        """Raise TidemarkError UNKNOWN_COLUMNS or MISSING_COLUMNS, where that would hit every row of the file."""
        columns = file.columns()
        if not columns:
            return
        extra = sorted(self.extra(file))
        missing = sorted(self._required - {*source_names(self._fields, columns).values()})
        if extra and not self._ignore_extra:
            what = f"{file.name}: the schema has no field for {_names(extra)}"
            raise TidemarkError("UNKNOWN_COLUMNS", what, "add it to the schema, or leave it out with --ignore-extra")
        if missing:
            what = f"{file.name} has no column for {_names(missing)}, which the schema requires"
            raise TidemarkError("MISSING_COLUMNS", what, "give the field a default, or the file the column")


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
