"""One rejected record, looked into: its framing, the fields that could be read, where that failed, the bytes there."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from fastavro import schemaless_reader
from fastavro.schema import parse_schema

from conf.errors import TidemarkError
from producers.quarantine.records import Rejected
from schemas.codec import LIBRARY_ERRORS
from schemas.framing import HEADER_LENGTH, unframe
from schemas.registry import Registry
from schemas.strict import compile_check
from schemas.validity import load_schema
from schemas.wire import DecodeError

CONTEXT_BYTES = 48
ROW_BYTES = 16


@dataclass(frozen=True)
class Reading:
    """A value as far as it can be read.

    Args:
        fields: those before the failure, by name.
        failed: the field that could not be read, "" where all could.
        at: the byte of the value where that is; its length where nothing is wrong.
        problem: in words, "" for none.
    """

    schema: str = ""
    fields: Mapping[str, Any] | None = None
    failed: str = ""
    at: int = 0
    problem: str = ""


def read(row: Rejected, registry: Registry) -> Reading:
    """Read a value by the schema that it names."""
    if row.value is None:
        return Reading(problem="there is no value")
    try:
        schema_id, payload = unframe(row.value)
    except TidemarkError as error:
        return Reading(problem=error.message)
    try:
        text = registry.schema(schema_id)
    except TidemarkError as error:
        if error.code != "UNKNOWN_SCHEMA_ID":
            raise
        return Reading(f"schema id {schema_id}", at=1, problem="no schema with this id is registered")
    return _read_fields(
        f"schema id {schema_id}{_known_as(row.at.topic, schema_id, registry)}", load_schema(text), payload
    )


def _known_as(topic: str, schema_id: int, registry: Registry) -> str:
    """The id's version under a subject of the topic, which has one for each type of its events."""
    subjects = [subject for subject in registry.subjects() if subject.startswith(f"{topic}-")]
    found = [each for subject in subjects for each in registry.versions(subject) if each.id == schema_id]
    return f", {found[0].subject} version {found[0].version}" if found else f", which is none of topic {topic}"


def _read_fields(name: str, schema: Any, payload: bytes) -> Reading:
    """Read more and more fields: a field may name a type that one before it defines."""
    fields, read_to = schema["fields"], 0
    values: dict[str, Any] = {}
    for count in range(1, len(fields) + 1):
        buffer = BytesIO(payload)
        begun = parse_schema({**schema, "fields": fields[:count]}, {})
        try:
            _require_sound(begun, payload)
            found: Any = schemaless_reader(buffer, begun, None)
        except (TidemarkError, *LIBRARY_ERRORS) as exc:
            told = exc.message if isinstance(exc, TidemarkError) else f"{type(exc).__name__}: {exc}".rstrip(": ")
            problem = f"in the body, {told}"
            return Reading(name, values, fields[count - 1]["name"], HEADER_LENGTH + read_to, problem)
        values, read_to = dict(found), buffer.tell()
    left = len(payload) - read_to
    problem = f"{left} bytes follow the last field" if left else ""
    return Reading(name, values, "", HEADER_LENGTH + read_to, problem)


def _require_sound(begun: Any, payload: bytes) -> None:
    """Raise DecodeError, unless `payload` begins with a value of `begun`: the library would trust any length in it."""
    try:
        compile_check(begun)(payload)
    except DecodeError as exc:
        if exc.code != "TRAILING_BYTES":
            raise


def to_json(row: Rejected, reading: Reading, redriven: bool | None) -> dict[str, Any]:
    """The envelope with what could be read; fields as text where JSON has no such type."""
    fields = None if reading.fields is None else {name: _plain(value) for name, value in reading.fields.items()}
    told = {"schema": reading.schema, "fields": fields, "failed_field": reading.failed, "failed_at": reading.at}
    return {**row.to_json(), **told, "problem": reading.problem, "redriven": redriven}


def lines(row: Rejected, reading: Reading, redriven: bool | None) -> list[str]:
    """The record for people; `redriven` None, where that is not known, is left out."""
    quarantined = f"{row.quarantined_at} by {row.code_version or 'an older version'}"
    sent_again = {None: "", True: "yes", False: "no"}[redriven]
    head = [f"{row.at}  {row.error}{f' ({row.rule})' if row.rule else ''}: {row.reason}"]
    pairs = [
        ("redriven", sent_again),
        ("attempt", f"{row.attempt} of the event {row.origin}" if row.attempt else ""),
        ("quarantined", quarantined if row.quarantined_at else ""),
        ("key", shown(row.key)),
        *(("header", f"{name} = {shown(value)}") for name, value in row.headers),
        ("framing", reading.schema or "none"),
        *(("field", f"{name} = {value!r}") for name, value in (reading.fields or {}).items()),
        ("failed", f"{reading.failed}, at byte {reading.at}" if reading.failed else ""),
        ("problem", reading.problem),
    ]
    told = [f"  {name:12}{text}" for name, text in pairs if text]
    return [*head, *told, *(f"  {line}" for line in hex_lines(row.value or b"", reading.at))]


def shown(data: bytes | None) -> str:
    """Bytes as text where they are printable UTF-8, else in hexadecimal."""
    if data is None:
        return "null"
    text = data.decode(errors="replace")
    return repr(text) if text.isprintable() and "\ufffd" not in text else f"0x{data[:CONTEXT_BYTES].hex()}"


def hex_lines(value: bytes, at: int) -> list[str]:
    """The bytes around `at`, sixteen a line, that line with a mark."""
    first = max(0, at - CONTEXT_BYTES) // ROW_BYTES * ROW_BYTES
    told = []
    for start in range(first, min(len(value), at + CONTEXT_BYTES), ROW_BYTES):
        row = value[start : start + ROW_BYTES]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        mark = f"  <- byte {at}" if start <= at < start + ROW_BYTES and at < len(value) else ""
        told.append(f"{start:6x}  {row.hex(' '):47}  {text}{mark}")
    return told


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
