"""Turns rows of files into records or rejects: values, keys, timestamps and headers, by one schema; all counted."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from textwrap import shorten
from typing import Any, TextIO

import numpy as np
import pyarrow as pa

from conf.errors import TidemarkError
from jobs.connectors.kafka.topic_limits import Limits, record_bytes
from producers.files.columns import ColumnReader, Records
from producers.files.inputs import Opening, open_inputs
from producers.files.record_parts import Parts, PartsReader
from producers.files.rejects import RejectLimit, Rejects
from producers.files.rows import Input, NotColumnarError, Piece, Row
from producers.kafka.publish_progress import Position
from producers.kafka.publisher import Batch, Headers
from schemas.codec import CodecError, Encoder
from schemas.pii import pii_fields_of
from schemas.validity import load_schema
from schemas.values import Reading, UnfitError, record_converter, source_name

BATCH_ROWS = 2_000
WHY_LENGTH = 100  # types may be long
# Rows may be large: a batch is handed over no later than at this size.
FULL_BYTES = 1 << 22
# Of a piece: more of them are found sooner by reading all.
FEW_ROWS = 50

# Value, key, timestamp, headers.
Event = tuple[bytes, str | bytes | None, int, Headers]


@dataclass(frozen=True)
class FileRequest:
    """A request to publish files; `parts` and `reading` say how rows are read, `opening` how files are.

    `exactly_once`: the name under which each row is published once, whatever happens; None: at least once.
    """

    topic: str
    paths: Sequence[Path]
    parts: Parts
    schema: Path | None = None
    reading: Reading = field(default_factory=Reading)
    opening: Opening = field(default_factory=Opening)
    rejects: Path | None = None
    limit: RejectLimit = field(default_factory=RejectLimit)
    create_partitions: int | None = None
    exactly_once: str | None = None


class RowReader:
    """Reads values, keys, timestamps and headers out of rows, by one schema."""

    def __init__(self, text: str, request: FileRequest) -> None:
        """Raises TidemarkError NO_RECORD_SCHEMA, UNKNOWN_FIELD, UNFIT_FIELD, or BAD_SCHEMA for its marks."""
        schema: Any = load_schema(text)
        if not isinstance(schema, dict) or schema.get("type") != "record":
            raise TidemarkError("NO_RECORD_SCHEMA", "the schema is no record's", "wrap the value in a record")
        # What is to be said of the row at hand, if it is accepted.
        self.notes: list[str] = []
        self.parts = PartsReader(request.parts, schema, self.notes)
        self.exact = '"decimal"' in text
        self._convert = {
            from_text: record_converter(text, replace(request.reading, from_text=from_text), self.notes)
            for from_text in (False, True)
        }
        self._ignore_extra = request.reading.ignore_extra
        self._known = {source_name(declared) for declared in schema["fields"]}
        pii_fields = pii_fields_of(text)
        self._personal = {source_name(declared) for declared in schema["fields"] if pii_fields.covers(declared["name"])}
        self._required = {source_name(declared) for declared in schema["fields"] if "default" not in declared}

    def value(self, row: Row, from_text: bool) -> dict[str, Any]:
        """Return the row as the codec takes it; raises UnfitError."""
        if row.values is None:
            raise UnfitError(row.problem)
        return self._convert[from_text](row.values)

    def reason(self, exc: UnfitError | CodecError) -> str:
        """Return why a row does not fit, without what its schema marks as personal data."""
        if isinstance(exc, CodecError):
            return "it does not fit its schema, some of it is personal data" if self._personal else exc.message
        if exc.path and exc.path[0] in self._personal:
            return f"field `{'.'.join(exc.path)}`: its value does not fit, and is personal data"
        return str(exc)

    def check_columns(self, file: Input) -> None:
        """Raise TidemarkError UNKNOWN_COLUMNS or MISSING_COLUMNS, where that would hit every row of the file."""
        columns = file.columns()
        if not columns:
            return
        extra, missing = sorted(set(columns) - self._known), sorted(self._required - set(columns))
        if extra and not self._ignore_extra:
            what = f"{file.name}: the schema has no field for {_names(extra)}"
            raise TidemarkError("UNKNOWN_COLUMNS", what, "add it to the schema, or leave it out with --ignore-extra")
        if missing:
            what = f"{file.name} has no column for {_names(missing)}, which the schema requires"
            raise TidemarkError("MISSING_COLUMNS", what, "give the field a default, or the file the column")


@dataclass(frozen=True)
class Codec:
    """The way from rows to records that the topic takes: the schema `text`, registered as `schema_id`.

    `by_columns`: whether many rows are read at once where their columns' types allow it; the records are the same.
    """

    reader: RowReader
    schema_id: int
    text: str
    limits: Limits
    by_columns: bool = True


class FileRows:
    """The rows of all files of a request, accepted or rejected; counted as they are read."""

    def __init__(
        self, request: FileRequest, codec: Codec, rejects: Rejects, done: int = 0, is_trial: bool = False
    ) -> None:
        """`done`: how many rows earlier runs have dealt with; `is_trial`: nothing is told, the files are read again."""
        self._request, self._rejects, self._codec = request, rejects, codec
        self._reader, self._limits = codec.reader, codec.limits
        self._encode = Encoder(codec.schema_id, codec.text)
        self._is_trial = is_trial
        self.read = self._done = self._skip = done
        self._events: list[Event] = []
        self._bytes = 0
        self.notes: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def position(self) -> Position:
        """Return how far the rows are read; their rejects are in the file then, whatever comes."""
        self._rejects.sync()
        return Position(self.read, self._rejects.count)

    def print_notes(self) -> None:
        """Print how many accepted values had more than one reading, by what was done about it."""
        for note, count in self.notes.items():
            print(f"note: {count:,} x {note}; the first: {self._first[note]}", file=sys.stderr)

    def batches(self) -> Iterator[Batch]:
        """The accepted rows; raises TidemarkError of the files, and TOO_MANY_REJECTS, after the rows before it."""
        cause = None
        try:
            if self._done:
                self._rejects.check(self._done)
            opening = replace(self._request.opening, exact=self._reader.exact)
            for file in open_inputs(self._request.paths, opening):
                self._reader.check_columns(file)
                if file.columns() == []:
                    self._tell(f"note: {file.name} is empty", sys.stderr)
                yield from self._file(file)
            self._rejects.check_all(self.read)
        except TidemarkError as error:
            cause = error
        yield from self._taken()
        if cause:
            raise cause

    def _file(self, file: Input) -> Iterator[Batch]:
        columns = self._columns(file)
        if columns is None:
            yield from self._by_rows(file, file.rows())
            return
        for piece in file.pieces():
            if isinstance(piece, Iterator):
                yield from self._by_rows(file, piece)
            elif columns.is_fruitless():
                yield from self._by_rows(file, piece.rows())
            else:
                yield from self._by_columns(file, columns, piece)

    def _columns(self, file: Input) -> ColumnReader | None:
        if not self._codec.by_columns:
            return None
        request, codec = self._request, self._codec
        try:
            columns = ColumnReader(file, codec.schema_id, codec.text, request.parts, request.reading, codec.limits)
        except NotColumnarError as reason:
            why = shorten(str(reason), WHY_LENGTH, placeholder=" ...")
            self._tell(f"reading {file.name} row by row: {why}")
            return None
        self._tell(f"reading {file.name} by columns")
        return columns

    def _tell(self, line: str, stream: TextIO | None = None) -> None:
        if not self._is_trial:
            print(line, file=stream)

    def _by_rows(self, file: Input, rows: Iterator[Row]) -> Iterator[Batch]:
        for row in rows:
            if self._skip:
                self._skip -= 1
                continue
            self._take(file, row)
            if self._is_full():
                yield from self._taken()

    def _by_columns(self, file: Input, columns: ColumnReader, piece: Piece) -> Iterator[Batch]:
        try:
            records = columns.read(piece)
        except (pa.ArrowException, ValueError, OverflowError):
            halves = piece.halves()
            for half in halves:
                yield from self._by_columns(file, columns, half)
            if not halves:
                yield from self._by_rows(file, piece.rows())
            return
        if len(records.places) < records.count or self._skip:
            yield from self._in_order(file, piece, records)
            return
        yield from self._taken()
        self.read += records.count
        headers = self._reader.parts.headers({})
        yield Batch(
            [self._request.topic] * records.count,
            records.values,
            records.keys,
            records.timestamps,
            [headers] * records.count if headers else None,
        )

    def _in_order(self, file: Input, piece: Piece, records: Records) -> Iterator[Batch]:
        """The records of a piece, and the rows in doubt between them."""
        start = min(self._skip, records.count)
        self._skip -= start
        first_read = self.read - start
        done = np.searchsorted(records.places, start)
        doubts = np.setdiff1d(np.arange(start, records.count), records.places[done:]).tolist()
        rows = _rows_at(piece, doubts)
        for place in [*doubts, records.count]:
            until = np.searchsorted(records.places, place)
            self._add_records(records, slice(done, until))
            self.read, done = first_read + place, until
            if self._is_full():
                yield from self._taken()
            if place < records.count:
                self._take(file, next(rows))
                done = until

    def _add_records(self, records: Records, part: slice) -> None:
        headers, values = self._reader.parts.headers({}), records.values[part]
        self._events += zip(values, records.keys[part], records.timestamps[part], repeat(headers), strict=False)
        self._bytes += sum(map(len, values))

    def _take(self, file: Input, row: Row) -> None:
        self.read += 1
        notes = self._reader.notes
        try:
            event = self._event(row, file.from_text)
            self._events.append(event)
            self._bytes += len(event[0])
            if notes:
                self._note(notes, f"{file.name} line {row.line}")
        except (UnfitError, CodecError) as exc:
            self._rejects.add(file.name, row, self._reader.reason(exc))
            self._rejects.check(self.read)
        finally:
            notes.clear()

    def _note(self, notes: list[str], place: str) -> None:
        self.notes.update(notes)
        for note in notes:
            self._first.setdefault(note, place)

    def _event(self, row: Row, from_text: bool) -> Event:
        value, parts = self._reader.value(row, from_text), self._reader.parts
        key, timestamp, headers = parts.key(value), parts.timestamp(value), parts.headers(value)
        encoded = self._encode(value)
        size = record_bytes(key, encoded, headers)
        if self._limits.max_message_bytes is not None and size > self._limits.max_message_bytes:
            raise UnfitError(f"{size:,} bytes are more than the topic takes ({self._limits.max_message_bytes:,})")
        if self._limits.ahead_ms is not None and timestamp > time.time() * 1000 + self._limits.ahead_ms:
            raise UnfitError(f"its event time lies further ahead than the topic takes ({self._limits.ahead_ms:,} ms)")
        return encoded, key, timestamp, headers

    def _is_full(self) -> bool:
        return len(self._events) >= BATCH_ROWS or self._bytes >= FULL_BYTES

    def _taken(self) -> Iterator[Batch]:
        """The rows that were taken one by one since the last batch, if any."""
        if self._events:
            values, keys, timestamps, headers = (list(column) for column in zip(*self._events, strict=True))
            self._events, self._bytes = [], 0
            yield Batch([self._request.topic] * len(values), values, keys, timestamps, headers)


def _rows_at(piece: Piece, places: Sequence[int]) -> Iterator[Row]:
    """Some rows of a piece, in order."""
    if len(places) <= FEW_ROWS:
        return (piece.row(place) for place in places)
    wanted = frozenset(places)
    return (row for place, row in enumerate(piece.rows()) if place in wanted)


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
