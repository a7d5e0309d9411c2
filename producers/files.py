"""Any CSV, JSON-lines, Parquet or Avro file into any topic.

A row becomes a record, or a reject: what does not fit the schema exactly, lacks its key or its event time, or is
too large for the topic is written down with file, line and reason, and the rest goes on. Every row is counted.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from conf import state_dir
from conf.errors import TidemarkError
from conf.settings import Settings
from conf.topics import Topic, load_topics, subject_of
from producers.delivery import Report
from producers.file_schema import find_schema, infer_and_write
from producers.inputs import Opening, open_inputs, require_files
from producers.interrupt import Interrupt
from producers.preflight import Limits, create_topic
from producers.progress import Progress
from producers.publisher import Batch, Headers, Publisher, connection_config
from producers.record_parts import Parts, PartsReader
from producers.rejects import RejectLimit, Rejects, numbered
from producers.rows import Input, Row
from schemas.codec import CodecError, Encoder
from schemas.contracts import FOLDER
from schemas.registry import open_registry
from schemas.validity import load_schema
from schemas.values import Reading, UnfitError, record_converter, source_name

BATCH_ROWS = 2_000
# What a record costs in its batch besides key and value, at most.
RECORD_OVERHEAD_BYTES = 256

# Value, key, timestamp, headers.
Event = tuple[bytes, str | bytes | None, int, Headers]


@dataclass(frozen=True)
class FileRequest:
    """What to publish, and how; `parts` and `reading` say how rows are read, `opening` how files are."""

    topic: str
    paths: Sequence[Path]
    parts: Parts
    schema: Path | None = None
    reading: Reading = field(default_factory=Reading)
    opening: Opening = field(default_factory=Opening)
    rejects: Path | None = None
    limit: RejectLimit = field(default_factory=RejectLimit)
    create_partitions: int | None = None


def infer_only(request: FileRequest, folder: Path = FOLDER) -> None:
    """Infer the schema, and write it to the place named, or to `<topic>.avsc` in `folder`."""
    path = request.schema or folder / f"{request.topic}.avsc"
    if path.exists():
        raise TidemarkError("SCHEMA_EXISTS", f"{path} is there already", "remove it to infer the schema anew")
    infer_and_write(request.topic, open_inputs(request.paths, request.opening), request.reading.nulls, path)


def publish_files(settings: Settings, request: FileRequest, interrupt: Interrupt, folder: Path = FOLDER) -> Report:
    """Publish every row that fits, and print the accounts of rows.

    Raises:
        TidemarkError: of the broker (NO_BROKER, BROKER_UNREACHABLE, NO_TOPIC), the files, the schema, the registry,
            and UNKNOWN_FIELD or UNFIT_FIELD; all before anything is sent. What comes later is the report's cause.
    """
    require_files(request.paths)
    declared = load_topics().get(request.topic)
    if request.create_partitions:
        _create(settings, declared or Topic(request.topic, request.create_partitions, key="", schema=""))
    publisher = Publisher(settings.kafka, settings.producer, [request.topic])
    text = find_schema(request.topic, request.schema, declared, folder)
    if text is None:
        inputs = open_inputs(request.paths, request.opening)
        text = infer_and_write(request.topic, inputs, request.reading.nulls, folder / f"{request.topic}.avsc")
    reader = RowReader(text, request)
    schema_id = open_registry(settings.registry).register(subject_of(request.topic), text)
    candidates = iter([request.rejects]) if request.rejects else numbered(state_dir() / "rejects", request.topic)
    rejects = Rejects(candidates, request.limit)
    rows = FileRows(request, reader, Encoder(schema_id, text), publisher.limits[request.topic], rejects)
    with interrupt:
        report = publisher.publish(rows.batches(), interrupt, Progress())
    rejects.close()
    where = f" (see {rejects.path})" if rejects.path else ""
    print(f"read {rows.read:,} rows = {rows.accepted:,} accepted + {rejects.count:,} rejected{where}")
    return report


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


class FileRows:
    """The rows of all files of a request, accepted or rejected; counted as they are read."""

    def __init__(
        self, request: FileRequest, reader: RowReader, encode: Encoder, limits: Limits, rejects: Rejects
    ) -> None:
        self._request, self._reader, self._encode, self._rejects = request, reader, encode, rejects
        self._limits = limits
        self.read = 0
        self.accepted = 0

    def batches(self) -> Iterator[Batch]:
        """The accepted rows; raises TidemarkError of the files, and TOO_MANY_REJECTS, after the rows before it."""
        events: list[Event] = []
        cause = None
        try:
            for each, row in self._rows():
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
            self.accepted += 1
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


def _create(settings: Settings, topic: Topic) -> None:
    admin = AdminClient(connection_config(settings.kafka, lambda error: None))
    if create_topic(admin, topic, settings.kafka.replication_factor):
        kept = "forever" if topic.retention_ms < 0 else f"for {topic.retention_ms:,} ms"
        print(f"topic: created {topic.name}, {topic.partitions} partitions, records kept {kept}")


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
