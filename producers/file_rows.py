"""Rows of files -> records or rejects: values, keys, timestamps and headers, by one schema; all of them counted."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from conf.errors import TidemarkError
from producers.exactly_once import Position
from producers.inputs import Opening, open_inputs
from producers.preflight import Limits
from producers.publisher import Batch, Headers
from producers.record_parts import Parts, PartsReader
from producers.rejects import RejectLimit, Rejects
from producers.rows import Input, Row
from schemas.codec import CodecError, Encoder
from schemas.validity import load_schema
from schemas.values import Reading, UnfitError, record_converter, source_name

BATCH_ROWS = 2_000
# What a record costs in its batch besides key and value, at most.
RECORD_OVERHEAD_BYTES = 256

# Value, key, timestamp, headers.
Event = tuple[bytes, str | bytes | None, int, Headers]


@dataclass(frozen=True)
class FileRequest:
    """What to publish, and how; `parts` and `reading` say how rows are read, `opening` how files are.

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
    """Rows -> values, keys, timestamps and headers, by one schema."""

    def __init__(self, text: str, request: FileRequest) -> None:
        """Raises TidemarkError NO_RECORD_SCHEMA, UNKNOWN_FIELD or UNFIT_FIELD."""
        schema: Any = load_schema(text)
        if not isinstance(schema, dict) or schema.get("type") != "record":
            raise TidemarkError("NO_RECORD_SCHEMA", "the schema is no record's", "wrap the value in a record")
        self.parts = PartsReader(request.parts, schema)
        self.exact = '"decimal"' in text
        self._convert = {
            from_text: record_converter(text, replace(request.reading, from_text=from_text))
            for from_text in (False, True)
        }
        self._ignore_extra = request.reading.ignore_extra
        self._known = {source_name(each) for each in schema["fields"]}
        self._required = {source_name(each) for each in schema["fields"] if "default" not in each}

    def value(self, row: Row, from_text: bool) -> dict[str, Any]:
        """The row as the codec takes it; raises UnfitError."""
        if row.values is None:
            raise UnfitError(row.problem)
        return self._convert[from_text](row.values)

    def check_columns(self, each: Input) -> None:
        """Raises TidemarkError UNKNOWN_COLUMNS or MISSING_COLUMNS, where that would hit every row of the file."""
        columns = each.columns()
        if not columns:
            return
        extra, missing = sorted(set(columns) - self._known), sorted(self._required - set(columns))
        if extra and not self._ignore_extra:
            what = f"{each.name}: the schema has no field for {_names(extra)}"
            raise TidemarkError("UNKNOWN_COLUMNS", what, "add it to the schema, or leave it out with --ignore-extra")
        if missing:
            what = f"{each.name} has no column for {_names(missing)}, which the schema requires"
            raise TidemarkError("MISSING_COLUMNS", what, "give the field a default, or the file the column")


@dataclass(frozen=True)
class Codec:
    """What makes rows into records that the topic takes."""

    reader: RowReader
    encode: Encoder
    limits: Limits


class FileRows:
    """The rows of all files of a request, accepted or rejected; counted as they are read."""

    def __init__(self, request: FileRequest, codec: Codec, rejects: Rejects, done: int = 0) -> None:
        """`done`: how many rows earlier runs have dealt with."""
        self._request, self._rejects = request, rejects
        self._reader, self._encode, self._limits = codec.reader, codec.encode, codec.limits
        self.read = self._done = done

    def position(self) -> Position:
        """How far the rows are read; their rejects are in the file then, whatever comes."""
        self._rejects.sync()
        return Position(self.read, self._rejects.count)

    def batches(self) -> Iterator[Batch]:
        """The accepted rows; raises TidemarkError of the files, and TOO_MANY_REJECTS, after the rows before it."""
        events: list[Event] = []
        cause = None
        try:
            if self._done:
                self._rejects.check(self._done)
            for each, row in islice(self._rows(), self._done, None):
                self._take(each, row, events)
                if len(events) >= BATCH_ROWS:
                    yield self._batch(events)
                    events = []
            self._rejects.check_all(self.read)
        except TidemarkError as error:
            cause = error
        if events:
            yield self._batch(events)
        if cause:
            raise cause

    def _take(self, each: Input, row: Row, events: list[Event]) -> None:
        self.read += 1
        try:
            events.append(self._event(row, each.from_text))
        except (UnfitError, CodecError) as exc:
            self._rejects.add(each.name, row, exc.message if isinstance(exc, CodecError) else str(exc))
            self._rejects.check(self.read)

    def _rows(self) -> Iterator[tuple[Input, Row]]:
        opening = replace(self._request.opening, exact=self._reader.exact)
        for each in open_inputs(self._request.paths, opening):
            self._reader.check_columns(each)
            if each.columns() == []:
                print(f"note: {each.name} is empty", file=sys.stderr)
            for row in each.rows():
                yield each, row

    def _event(self, row: Row, from_text: bool) -> Event:
        value, parts = self._reader.value(row, from_text), self._reader.parts
        key, timestamp, headers = parts.key(value), parts.timestamp(value), parts.headers(value)
        encoded = self._encode(value)
        size = len(encoded) + len(key or b"") + RECORD_OVERHEAD_BYTES
        if self._limits.max_message_bytes is not None and size > self._limits.max_message_bytes:
            raise UnfitError(f"{size:,} bytes are more than the topic takes ({self._limits.max_message_bytes:,})")
        if self._limits.ahead_ms is not None and timestamp > time.time() * 1000 + self._limits.ahead_ms:
            raise UnfitError(f"its event time lies further ahead than the topic takes ({self._limits.ahead_ms:,} ms)")
        return encoded, key, timestamp, headers

    def _batch(self, events: list[Event]) -> Batch:
        values, keys, timestamps, headers = (list(column) for column in zip(*events, strict=True))
        return Batch([self._request.topic] * len(events), values, keys, timestamps, headers)


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
