"""Looks into a rejected record: its framing, the fields that could be read, where that failed, the bytes there.

Personal data is hidden, by every version of the topic's schemas, not the record's own alone: a mark holds for records
of earlier versions too, which do not have it. So a field is hidden where any version marks it under its name or an
alias; names that a version calls aliases of each other are one field.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from typing import Any

from fastavro import schemaless_reader
from fastavro.schema import parse_schema

from conf.errors import TidemarkError
from producers.quarantine.records import Rejected
from schemas.codec import HEADER_LENGTH, LIBRARY_ERRORS, unframe
from schemas.pii_marks import ATTRIBUTE, pii_fields_of, seems_marked
from schemas.registry import RegisteredSchema, Registry
from schemas.validity import load_schema
from schemas.wire import DecodeError, compile_check

HIDDEN = "(personal data)"
CONTEXT_BYTES = 48
# What a registry says of an id that a record cannot be read by, and what is told of that; "": what it says.
UNREADABLE = {"UNKNOWN_SCHEMA_ID": "no schema with this id is registered", "UNSUPPORTED_SCHEMA": "", "BAD_SCHEMA": ""}
ROW_BYTES = 16


@dataclass(frozen=True)
class Reading:
    """A value as far as it can be read.

    Args:
        fields: those before the failure, by name.
        failed: the field that could not be read, "" where all could.
        at: the byte of the value where that is; its length where nothing is wrong.
        problem: in words, "" for none.
        hides: whether key, headers and bytes may hold personal data, and are not to be shown.
    """

    schema: str = ""
    fields: Mapping[str, Any] | None = None
    failed: str = ""
    at: int = 0
    problem: str = ""
    hides: bool = False


@dataclass(frozen=True)
class Hidden:
    """The fields of a record that are not to be shown: those of such `names`, or, where `everything` is, all."""

    names: frozenset[str] = frozenset()
    everything: bool = False

    def __bool__(self) -> bool:
        return self.everything or bool(self.names)

    def covers(self, name: str) -> bool:
        """Return whether that field is hidden."""
        return self.everything or name in self.names


def read(row: Rejected, registry: Registry, personal: bool = False) -> Reading:
    """Read a value by the schema that it names.

    Args:
        personal: whether to read personal data too. Otherwise such fields are HIDDEN; where there are any, the bytes
            are to be hidden too: what is broken may hold anything.
    """
    versions = _versions_of(row.at.topic, registry)
    schema, reading = _read(row, registry, versions)
    hidden = Hidden() if personal else _hidden_fields(versions, schema, registry)
    if not hidden:
        return reading
    values = {name: HIDDEN if hidden.covers(name) else value for name, value in (reading.fields or {}).items()}
    # Where a value does not fit, the problem may quote it.
    problem = HIDDEN if reading.failed and hidden.covers(reading.failed) else reading.problem
    return replace(reading, fields=None if reading.fields is None else values, problem=problem, hides=True)


def to_json(row: Rejected, reading: Reading, redriven: bool | None) -> dict[str, Any]:
    """Return the envelope with what could be read; values of its fields may be of types that JSON lacks."""
    described: dict[str, Any] = {"schema": reading.schema, "fields": reading.fields}
    described |= {"failed_field": reading.failed, "failed_at": reading.at}
    envelope = row.to_json()
    if reading.hides:
        headers = [[name, HIDDEN] for name, _ in row.headers]
        envelope |= {"key": row.key and HIDDEN, "value": row.value and HIDDEN, "headers": headers}
    return {**envelope, **described, "problem": reading.problem, "redriven": redriven}


def lines(row: Rejected, reading: Reading, redriven: bool | None) -> list[str]:
    """Return the record for people; `redriven` None, where that is not known, is left out."""
    quarantined = f"{row.quarantined_at} by {row.code_version or 'an older version'}"
    sent_again = {None: "", True: "yes", False: "no"}[redriven]
    head = [f"{row.at}  {row.error}{f' ({row.rule})' if row.rule else ''}: {row.reason}"]
    pairs = [
        ("redriven", sent_again),
        ("attempt", f"{row.attempt} of the event {row.origin}" if row.attempt else ""),
        ("quarantined", quarantined if row.quarantined_at else ""),
        ("key", HIDDEN if reading.hides and row.key else shown(row.key)),
        *(("header", f"{name} = {HIDDEN if reading.hides else shown(value)}") for name, value in row.headers),
        ("framing", reading.schema or "none"),
        *(
            ("field", f"{name} = {value if value is HIDDEN else repr(value)}")
            for name, value in (reading.fields or {}).items()
        ),
        ("failed", f"{reading.failed}, at byte {reading.at}" if reading.failed else ""),
        ("problem", reading.problem),
        ("bytes", f"{HIDDEN}: `--personal` shows them" if reading.hides and row.value else ""),
    ]
    described = [f"  {name:12}{text}" for name, text in pairs if text]
    content = b"" if reading.hides else row.value or b""
    return [*head, *described, *(f"  {line}" for line in hex_lines(content, reading.at))]


def shown(data: bytes | None) -> str:
    """Return the bytes as text where they are printable UTF-8, else in hexadecimal."""
    if data is None:
        return "null"
    text = data.decode(errors="replace")
    return repr(text) if text.isprintable() and "\ufffd" not in text else f"0x{data[:CONTEXT_BYTES].hex()}"


def hex_lines(value: bytes, at: int) -> list[str]:
    """Return the bytes around `at`, sixteen a line, that line with a mark."""
    first = max(0, at - CONTEXT_BYTES) // ROW_BYTES * ROW_BYTES
    lines = []
    for start in range(first, min(len(value), at + CONTEXT_BYTES), ROW_BYTES):
        row = value[start : start + ROW_BYTES]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        arrow = f"  <- byte {at}" if start <= at < start + ROW_BYTES and at < len(value) else ""
        lines.append(f"{start:6x}  {row.hex(' '):47}  {text}{arrow}")
    return lines


def _read(
    row: Rejected, registry: Registry, versions: Sequence[RegisteredSchema]
) -> tuple[RegisteredSchema | None, Reading]:
    """Return the schema that a value names, None where there is none, and all that can be read by it."""
    if row.value is None:
        return None, Reading(problem="there is no value")
    try:
        schema_id, payload = unframe(row.value)
    except TidemarkError as error:
        return None, Reading(problem=error.message)
    try:
        text = registry.schema(schema_id)
    except TidemarkError as error:
        if error.code not in UNREADABLE:
            raise
        problem = UNREADABLE[error.code] or error.message
        return None, Reading(f"schema id {schema_id}", at=1, problem=problem)
    known = next((version for version in versions if version.id == schema_id), None)
    known_as = f"{known.subject} version {known.version}" if known else f"which is none of topic {row.at.topic}"
    reading = _read_fields(f"schema id {schema_id}, {known_as}", load_schema(text), payload)
    return known or RegisteredSchema(schema_id, "", 0, text), reading


def _read_fields(name: str, schema: Any, payload: bytes) -> Reading:
    """Read more and more fields: a field may name a type that one before it defines."""
    if not isinstance(schema, dict) or "fields" not in schema:
        return Reading(name, at=HEADER_LENGTH, problem="its schema is no record")
    fields, read_to = schema["fields"], 0
    values: dict[str, Any] = {}
    for count in range(1, len(fields) + 1):
        buffer = BytesIO(payload)
        first_fields = parse_schema({**schema, "fields": fields[:count]}, {})
        try:
            _require_valid_beginning(first_fields, payload)
            record: Any = schemaless_reader(buffer, first_fields, None)
        except (TidemarkError, *LIBRARY_ERRORS) as exc:
            text = exc.message if isinstance(exc, TidemarkError) else f"{type(exc).__name__}: {exc}".rstrip(": ")
            problem = f"in the body, {text}"
            return Reading(name, values, fields[count - 1]["name"], HEADER_LENGTH + read_to, problem)
        values, read_to = dict(record), buffer.tell()
    left = len(payload) - read_to
    problem = f"{left} bytes follow the last field" if left else ""
    return Reading(name, values, "", HEADER_LENGTH + read_to, problem)


def _require_valid_beginning(schema: Any, payload: bytes) -> None:
    """Raise DecodeError, unless `payload` begins with a value of `schema`: the library would trust any length in it."""
    try:
        compile_check(schema)(payload)
    except DecodeError as exc:
        if exc.code != "TRAILING_BYTES":
            raise


def _versions_of(topic: str, registry: Registry) -> list[RegisteredSchema]:
    """Return every version of the topic's subjects: it has one for each type of its events."""
    # No name of a type has a dash: what has one belongs to a topic with a longer name.
    subjects = [
        name for name in registry.subjects() if name.startswith(f"{topic}-") and "-" not in name[len(topic) + 1 :]
    ]
    return [version for subject in subjects for version in registry.all_versions(subject)]


def _hidden_fields(versions: Sequence[RegisteredSchema], schema: RegisteredSchema | None, registry: Registry) -> Hidden:
    """Return what is hidden of a record of a topic with these `versions`, which is read by `schema`, if it can be."""
    hidden = _hidden_by([version.text for version in versions])
    if schema is None or any(version.id == schema.id for version in versions):
        return hidden
    if hidden:
        # Whatever the topic's marks are meant for may be in any field of another topic's schema.
        return Hidden(everything=True)
    subjects = map(registry.all_versions, registry.subjects())
    beside = [subject for subject in subjects if any(version.id == schema.id for version in subject)]
    return _hidden_by([schema.text, *(version.text for subject in beside for version in subject)])


def _hidden_by(texts: Iterable[str]) -> Hidden:
    marks = [_marks_of(text) for text in texts]
    if any(marked.everything for _, marked in marks):
        return Hidden(everything=True)
    names = set[str]().union(*(marked.names for _, marked in marks))
    fields = [field for fields, _ in marks for field in fields]
    before = -1
    while before < len(names):
        before = len(names)
        names.update(*(field for field in fields if field & names))
    return Hidden(frozenset(names))


@lru_cache(maxsize=1000)
def _marks_of(text: str) -> tuple[tuple[frozenset[str], ...], Hidden]:
    """Return a schema's fields, each by its name and aliases, and which of those are marked, or hold marks.

    Everything is marked in one whose marks make no sense.
    """
    try:
        schema = load_schema(text)
    except TidemarkError:
        return (), Hidden(everything=ATTRIBUTE in text.lower())
    try:
        marks = pii_fields_of(text)
    except TidemarkError:
        if seems_marked(schema):
            return (), Hidden(everything=True)
        marks = None
    declared = schema.get("fields", ()) if isinstance(schema, dict) else ()
    fields = {field["name"]: frozenset((field["name"], *field.get("aliases", ()))) for field in declared}
    marked = (names for name, names in fields.items() if marks is not None and marks.covers(name))
    return tuple(fields.values()), Hidden(frozenset().union(*marked))
