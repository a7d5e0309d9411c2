"""Encodes records of Python values as Avro in Confluent's framing, and decodes them again."""

import struct
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from fastavro import schemaless_reader, schemaless_writer

from conf.errors import TidemarkError
from schemas.registry import Registry
from schemas.validity import parse_text
from schemas.wire import DecodeError, DecodeLimits, compile_check

MAGIC = 0
HEADER = struct.Struct(">BI")
HEADER_LENGTH = HEADER.size
# What fastavro was seen to raise on values and bytes that do not fit; it has no error class of its own.
LIBRARY_ERRORS = (ValueError, TypeError, LookupError, AttributeError, EOFError, ArithmeticError, MemoryError)

Reader = Callable[[bytes], Any]


def frame(schema_id: int, payload: bytes) -> bytes:
    return HEADER.pack(MAGIC, schema_id) + payload


def unframe(value: bytes) -> tuple[int, bytes]:
    """Return the schema id and the Avro binary of a framed record value; raises TidemarkError NOT_FRAMED, where the
    header is cut short or does not start with the magic byte."""
    magic, schema_id = HEADER.unpack_from(value) if len(value) >= HEADER_LENGTH else (None, 0)
    if magic != MAGIC:
        what = f"a value starts with byte {magic}, not {MAGIC}"
        if magic is None:
            what = f"a value of {len(value)} bytes is shorter than the {HEADER_LENGTH}-byte header"
        raise TidemarkError("NOT_FRAMED", what, "the producer must write Confluent's wire format")
    return schema_id, value[HEADER_LENGTH:]


class CodecError(TidemarkError):
    """A value that its schema cannot hold: ENCODE_FAILED."""


class Encoder:
    """Encodes dicts as framed bytes, by one schema.

    A field that the schema does not name is an error, one that the dict lacks takes its default. As in fastavro, a
    timestamp may be given as int in the unit of the logical type, and numbers are not checked against their type: an
    int field takes True, 1.5 (as 1) and 2**40. Values of unknown origin go through `schemas.values` first.
    """

    def __init__(self, schema_id: int, text: str) -> None:
        self._schema = parse_text(text)
        self._header = HEADER.pack(MAGIC, schema_id)

    def __call__(self, value: Mapping[str, Any]) -> bytes:
        """Return the framed bytes of `value`; raises CodecError ENCODE_FAILED."""
        buffer = BytesIO()
        buffer.write(self._header)
        try:
            schemaless_writer(buffer, self._schema, value, strict_allow_default=True)
        except LIBRARY_ERRORS as exc:
            what = f"{type(exc).__name__}: {exc}"
            raise CodecError("ENCODE_FAILED", what, "make the value fit its schema") from exc
        return buffer.getvalue()


class Decoder:
    """Decodes framed bytes to dicts, by the writer schema that the bytes name.

    For tools, tests and notebooks. Bytes that are not one whole value are refused before a value is made of them;
    corruption that leaves a value of the schema, no decoder can find.
    """

    def __init__(self, registry: Registry, limits: DecodeLimits | None = None) -> None:
        self._registry, self._limits = registry, limits
        self._readers: dict[int, Reader] = {}

    def __call__(self, value: bytes) -> dict[str, Any]:
        """Return the record; raises TidemarkError NOT_FRAMED or UNKNOWN_SCHEMA_ID,
        DecodeError with one of its codes."""
        schema_id, payload = unframe(value)
        if schema_id not in self._readers:
            self._readers[schema_id] = reader(self._registry.schema(schema_id), self._limits)
        try:
            return dict(self._readers[schema_id](payload))
        except DecodeError as exc:
            raise DecodeError(exc.code, f"by schema id {schema_id}: {exc.message}") from exc


def reader(text: str, limits: DecodeLimits | None = None) -> Reader:
    """Return a callable from the bytes of one value of the schema `text`, without a header, to that value.

    Raises TidemarkError INVALID_SCHEMA; the callable raises DecodeError.
    """
    schema = parse_text(text)
    check = compile_check(schema, limits)

    def read(payload: bytes) -> Any:
        check(payload)
        try:
            return schemaless_reader(BytesIO(payload), schema, None)
        except LIBRARY_ERRORS as exc:
            raise DecodeError("UNREADABLE", f"{type(exc).__name__}: {exc}") from exc

    return read
