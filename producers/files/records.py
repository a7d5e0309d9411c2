"""Turns rows of files into records or rejects: values, keys, timestamps and headers, by one schema; all counted."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from textwrap import shorten
from typing import TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from conf.errors import TidemarkError
from jobs.connectors.kafka.refusals import Limits, record_bytes
from producers.files.columns import ColumnReader, Records
from producers.files.inputs import open_inputs
from producers.files.rejects import Rejects
from producers.files.request import FileRequest
from producers.files.row_reader import RowReader
from producers.files.rows import Input, NotColumnarError, Piece, Row
from producers.kafka.publish_progress import Position
from producers.kafka.publisher import Batch, Headers
from schemas.codec import CodecError, Encoder
from schemas.conversions import MISFITS
from schemas.values import UnfitError, left_out

BATCH_ROWS = 2_000
WHY_LENGTH = 100  # types may be long
# Rows may be large: a batch is handed over no later than at this size.
FULL_BYTES = 1 << 22
# So many rows of a piece are read one by one; for more, reading the whole piece is faster.
FEW_ROWS = 50
# Rows may have any number of fields that are left out, each with a note of its own.
MOST_NOTES, OTHER_NOTES = 100, "notes of other kinds than the first hundred"

# Value, key, timestamp, headers.
Event = tuple[bytes, str | bytes | None, int, Headers]


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
        """`done`: how many rows earlier runs have dealt with; `is_trial`: print nothing, the files are read again."""
        self._request, self._rejects, self._codec = request, rejects, codec
        self._reader, self._encode = codec.reader, Encoder(codec.schema_id, codec.text)
        self._is_trial = is_trial
        self.read = self._done = self._skip = done
        self._events: list[Event] = []
        self._bytes = 0
        self.notes: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._left_out: list[str] = []

    def position(self) -> Position:
        """Return how far the rows are read; their rejects are in the file then, whatever comes."""
        self._rejects.sync()
        return Position(self.read, self._rejects.count)

    def print_notes(self) -> None:
        """Print how many accepted values had more than one reading, by what was done about it."""
        for note, count in self.notes.items():
            print(f"note: {count:,} x {note}; the first: {self._first[note]}", file=sys.stderr)

    def batches(self) -> Iterator[Batch]:
        """Yield the accepted rows; raises TidemarkError of the files, TOO_MANY_REJECTS, after the rows before it."""
        cause = None
        try:
            if self._done:
                self._rejects.check(self._done)
            opening = replace(self._request.opening, exact=self._reader.exact)
            for file in open_inputs(self._request.paths, opening):
                self._reader.check_columns(file)
                if file.columns() == []:
                    self._print(f"note: {file.name} is empty", sys.stderr)
                yield from self._file(file)
                for note in file.notes:
                    self._print(f"note: {note}", sys.stderr)
            self._rejects.check_all(self.read)
        except TidemarkError as error:
            cause = error
        yield from self._taken()
        if cause:
            raise cause

    def _file(self, file: Input) -> Iterator[Batch]:
        self._left_out = [left_out(column) for column in self._reader.extra(file)]
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
            self._reader.require_sources(file)
            columns = ColumnReader(file, codec.schema_id, codec.text, request.parts, request.reading, codec.limits)
        except NotColumnarError as reason:
            why = shorten(str(reason), WHY_LENGTH, placeholder=" ...")
            self._print(f"reading {file.name} row by row: {why}")
            return None
        self._print(f"reading {file.name} by columns")
        return columns

    def _print(self, line: str, stream: TextIO | None = None) -> None:
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
        except (pa.ArrowException, *MISFITS):
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
        self._note_left_out(file, piece, records.places)
        headers = self._reader.parts.headers({})
        yield Batch(
            [self._request.topic] * records.count,
            records.values,
            records.keys,
            records.timestamps,
            [headers] * records.count if headers else None,
        )

    def _in_order(self, file: Input, piece: Piece, records: Records) -> Iterator[Batch]:
        """Yield the records of a piece, and the rows in doubt between them."""
        start = min(self._skip, records.count)
        self._skip -= start
        first_read = self.read - start
        done = np.searchsorted(records.places, start)
        doubts = np.setdiff1d(np.arange(start, records.count), records.places[done:]).tolist()
        rows = _rows_at(piece, doubts)
        for place in [*doubts, records.count]:
            until = np.searchsorted(records.places, place)
            self._add_records(records, slice(done, until))
            self._note_left_out(file, piece, records.places[done:until])
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
            event = self._event(row, file)
            self._events.append(event)
            self._bytes += len(event[0])
            if notes:
                self._note(notes, f"{file.name} line {row.line}")
        except (UnfitError, CodecError) as exc:
            self._reject(file, row, self._reader.reason(exc))
        except (*MISFITS, RecursionError) as exc:
            # Whatever it is, it is of this row alone. What libraries say of a value may quote personal data.
            self._reject(file, row, f"it cannot be read or written ({type(exc).__name__})")
        finally:
            notes.clear()

    def _reject(self, file: Input, row: Row, reason: str) -> None:
        self._rejects.add(file.name, row, reason)
        self._rejects.check(self.read)

    def _note_left_out(self, file: Input, piece: Piece, places: npt.NDArray[np.int64]) -> None:
        """Note the columns without a field, of rows that were accepted by columns."""
        if self._left_out and len(places):
            is_known = all(note in self.notes for note in self._left_out)
            line = 0 if is_known else piece.row(int(places[0])).line
            self._note(self._left_out, f"{file.name} line {line}", len(places))

    def _note(self, notes: list[str], place: str, count: int = 1) -> None:
        for note in notes:
            counted = note if note in self.notes or len(self.notes) < MOST_NOTES else OTHER_NOTES
            self.notes[counted] += count
            self._first.setdefault(counted, place)

    def _event(self, row: Row, file: Input) -> Event:
        value, parts = self._reader.value(row, file), self._reader.parts
        key, timestamp, headers = parts.key(value), parts.timestamp(value), parts.headers(value)
        encoded = self._encode(value)
        size = record_bytes(key, encoded, headers)
        limits = self._codec.limits
        if limits.max_message_bytes is not None and size > limits.max_message_bytes:
            raise UnfitError(f"{size:,} bytes are more than the topic takes ({limits.max_message_bytes:,})")
        if limits.ahead_ms is not None and timestamp > time.time() * 1000 + limits.ahead_ms:
            raise UnfitError(f"its event time lies further ahead than the topic takes ({limits.ahead_ms:,} ms)")
        return encoded, key, timestamp, headers

    def _is_full(self) -> bool:
        return len(self._events) >= BATCH_ROWS or self._bytes >= FULL_BYTES

    def _taken(self) -> Iterator[Batch]:
        """Yield the rows that were taken one by one since the last batch, if any."""
        if self._events:
            values, keys, timestamps, headers = (list(column) for column in zip(*self._events, strict=True))
            self._events, self._bytes = [], 0
            yield Batch([self._request.topic] * len(values), values, keys, timestamps, headers)


def _rows_at(piece: Piece, places: Sequence[int]) -> Iterator[Row]:
    if len(places) <= FEW_ROWS:
        return (piece.row(place) for place in places)
    wanted = frozenset(places)
    return (row for place, row in enumerate(piece.rows()) if place in wanted)
