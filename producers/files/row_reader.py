"""Reads values, keys, timestamps and headers out of the rows of files, by one schema."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from conf.errors import TidemarkError, nearest
from producers.files.avro_resolution import resolution
from producers.files.avro_rows import AvroInput, time_text
from producers.files.json_rows import JsonInput
from producers.files.request import DEFAULT_UNIT, NUMBER_UNIT_NS, FileRequest, Parts
from producers.files.rows import Input, NotColumnarError, Row
from producers.kafka.publisher import Headers
from schemas.codec import CodecError
from schemas.conversions import MISFITS
from schemas.numbers import Convert
from schemas.pii_marks import pii_fields_of
from schemas.timestamps import EPOCH, EPOCH_DAY, LOCAL_EPOCH, UNIT_NS, WallClock, nanoseconds
from schemas.validity import load_schema
from schemas.values import UnfitError, branches, record_converter, source_name, source_names

MS_NS = NUMBER_UNIT_NS["ms"]
# Beyond this no file means a time, and arithmetic of 64 bits would not be exact.
LAST_MS = 1 << 52


class RowReader:
    """Reads rows by one schema; `parts` reads what a record has beside its value, out of values."""

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
        convert = self._convert[file.from_text, isinstance(file, JsonInput)]
        if not isinstance(file, AvroInput):
            return convert(row.values)
        if self._resolution is None or self._resolution[0] is not file:
            self._resolution = (file, resolution(file.stored, self._text, self.notes, self._numbers))
        resolve = self._resolution[1]
        return convert(resolve(row.values) if resolve else row.values)

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
        with_field = source_names(self._fields, columns)
        return [column for column in columns if column not in with_field]

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


class PartsReader:
    """Takes key, timestamp and headers out of values of one schema."""

    def __init__(self, parts: Parts, schema: Mapping[str, Any], notes: list[str] | None = None) -> None:
        """Raises TidemarkError UNKNOWN_FIELD or UNFIT_FIELD, where a field cannot be what it is to be.

        `notes` takes a line for each event time that the clocks showed twice.
        """
        fields = {name: field for field in schema["fields"] for name in (source_name(field), field["name"])}
        self._key = _Part("key", parts.key, fields, _key_text) if parts.key else None
        clock = WallClock(parts.zone, parts.ambiguous, [] if notes is None else notes)
        in_milliseconds = _milliseconds(clock, NUMBER_UNIT_NS[parts.unit or DEFAULT_UNIT])
        self._event_time = _Part("event time", parts.event_time, fields, in_milliseconds) if parts.event_time else None
        self._headers = list(parts.headers)
        self._header_fields = [(name, _Part("header", name, fields, _text)) for name in parts.header_fields]

    def key(self, value: Mapping[str, Any]) -> str | bytes | None:
        """Return the key, None where the topic has none; raises UnfitError where the field is null."""
        return self._key.required(value) if self._key else None

    def timestamp(self, value: Mapping[str, Any]) -> int:
        """Return milliseconds since 1970, 0 for now; raises UnfitError where the field is null, or not after 1970."""
        if self._event_time is None:
            return 0
        timestamp = int(self._event_time.required(value))
        if timestamp <= 0:
            raise UnfitError("a record's timestamp must lie after 1970-01-01T00:00Z", self._event_time.name)
        if timestamp > LAST_MS:
            what = f"{timestamp:.3g} ms after 1970 are no record's timestamp: what unit are its numbers in"
            raise UnfitError(f"{what}? (--event-time-unit)", self._event_time.name)
        return timestamp

    def headers(self, value: Mapping[str, Any]) -> Headers:
        """Return the headers; a field that is null gives a header that is null."""
        of_fields = [(name, part.optional(value)) for name, part in self._header_fields]
        return [*self._headers, *of_fields] or None


class _Part:
    """One field's value, put into another form."""

    def __init__(
        self, role: str, name: str, fields: Mapping[str, Any], form: Callable[[Any], Callable[[Any], Any] | None]
    ) -> None:
        if name not in fields:
            raise TidemarkError(
                "UNKNOWN_FIELD", f"the schema has no field `{name}` for the {role}", nearest(name, [*fields])
            )
        self.name = str(fields[name]["name"])
        self._default = fields[name].get("default")
        avro_type = fields[name]["type"]
        kinds = branches(avro_type)
        shape = form(kinds[0]) if len(kinds) == 1 else None
        if shape is None:
            what = f"field `{name}` is {avro_type}, which cannot be the {role}"
            raise TidemarkError("UNFIT_FIELD", what, "name another field")
        self._form = shape

    def required(self, value: Mapping[str, Any]) -> Any:
        part = self.optional(value)
        if part is None:
            raise UnfitError("it is null, and a record needs it", self.name)
        return part

    def optional(self, value: Mapping[str, Any]) -> Any:
        field_value = value.get(self.name, self._default)
        try:
            return None if field_value is None else self._form(field_value)
        except MISFITS as exc:
            raise UnfitError(str(exc), self.name) from exc


def _key_text(avro_type: Any) -> Callable[[Any], str | bytes] | None:
    # Doubles make bad keys: 0.0 and -0.0 are equal, NaN is not even itself.
    kind = avro_type["type"] if isinstance(avro_type, dict) else avro_type
    return None if kind in ("double", "float") else _text(avro_type)


def _text(avro_type: Any) -> Callable[[Any], str | bytes] | None:
    declared = avro_type if isinstance(avro_type, dict) else {"type": avro_type}
    logical, kind = str(declared.get("logicalType")), declared["type"]
    base, _, unit = logical.rpartition("-")
    if base in ("timestamp", "local-timestamp"):
        return lambda value: time_text(value * UNIT_NS[unit]) + ("Z" if base == "timestamp" else "")
    if logical == "date":
        return lambda value: (EPOCH_DAY + timedelta(days=value)).isoformat()
    if logical == "decimal":
        return lambda value: f"{value:f}"
    if kind == "boolean":
        return lambda value: "true" if value else "false"
    if kind in ("bytes", "fixed"):
        return bytes
    return str if kind in ("string", "int", "long", "enum", "double", "float") else None


def _milliseconds(clock: WallClock, number_ns: int) -> Callable[[Any], Callable[[Any], int] | None]:
    """Return the form of an event time, cut off to the millisecond since 1970 that it lies in."""

    def form(avro_type: Any) -> Callable[[Any], int] | None:
        declared = avro_type if isinstance(avro_type, dict) else {"type": avro_type}
        logical = str(declared.get("logicalType"))
        base, _, unit = logical.rpartition("-")
        if base == "timestamp":
            return lambda value: int(value * UNIT_NS[unit] // MS_NS)
        if base == "local-timestamp":
            return lambda value: _ms(clock.instant(LOCAL_EPOCH + timedelta(microseconds=value * UNIT_NS[unit] // 1000)))
        if logical == "date":
            # A midnight that was skipped is the first time of its day, one shown twice the earlier: that is fold 0.
            return lambda value: _ms(
                datetime.combine(EPOCH_DAY + timedelta(days=value), datetime.min.time(), clock.zone)
            )
        if declared["type"] == "string":
            return lambda value: nanoseconds(value, clock) // MS_NS
        if logical == "decimal" or declared["type"] == "double":
            # A double stands for the shortest decimal that reads back as it, which is what its file showed.
            return lambda value: Fraction(Decimal(str(value))) * number_ns // MS_NS
        return (lambda value: value * number_ns // MS_NS) if declared["type"] in ("int", "long") else None

    return form


def _ms(time: datetime) -> int:
    return (time - EPOCH) // timedelta(milliseconds=1)
