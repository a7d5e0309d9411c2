"""Between a record of Python values and its framed Avro bytes."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from fastavro import schemaless_reader, schemaless_writer
from fastavro.schema import parse_schema

from conf.errors import TidemarkError
from schemas.framing import HEADER, MAGIC, unframe
from schemas.registry import Registry
from schemas.validity import load_schema

# What fastavro was seen to raise on values and bytes that do not fit; it has no error class of its own.
LIBRARY_ERRORS = (ValueError, TypeError, LookupError, AttributeError, EOFError, ArithmeticError, MemoryError)


class CodecError(TidemarkError):
    """A value that its schema cannot hold (ENCODE_FAILED), or bytes that hold none (DECODE_FAILED)."""


def parsed(text: str) -> Any:
    """The schema in fastavro's parsed form; raises TidemarkError INVALID_SCHEMA."""
    return parse_schema(load_schema(text))


class Encoder:
    """dict -> framed bytes, for one schema.

    A field that the schema does not name is an error, one that the dict lacks takes its default. As in
    fastavro, a timestamp may be given as int in the unit of the logical type, and numbers are not checked
    against their type: an int field takes True, 1.5 (as 1) and 2**40. Values of unknown origin go through
    `schemas.values` first.
    """

    def __init__(self, schema_id: int, text: str) -> None:
        self._schema = parsed(text)
        self._header = HEADER.pack(MAGIC, schema_id)

    def __call__(self, value: Mapping[str, Any]) -> bytes:
        """The framed bytes of `value`; raises CodecError ENCODE_FAILED."""
        buffer = BytesIO()
        buffer.write(self._header)
        try:
            schemaless_writer(buffer, self._schema, value, strict_allow_default=True)
        except LIBRARY_ERRORS as exc:
            what = f"{type(exc).__name__}: {exc}"
            raise CodecError("ENCODE_FAILED", what, "make the value fit its schema") from exc
        return buffer.getvalue()


class Decoder:
    """framed bytes -> dict, by the writer schema that the bytes name.

    For tools, tests and notebooks. It finds unknown ids, truncated values and trailing bytes; corruption
    that leaves a value of the schema, no decoder can find.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._schemas: dict[int, Any] = {}

    def __call__(self, value: bytes) -> dict[str, Any]:
        """The record; raises TidemarkError NOT_FRAMED or UNKNOWN_SCHEMA_ID, CodecError DECODE_FAILED."""
        schema_id, payload = unframe(value)
        if schema_id not in self._schemas:
            self._schemas[schema_id] = parsed(self._registry.schema(schema_id))
        buffer = BytesIO(payload)
        try:
            record: Any = schemaless_reader(buffer, self._schemas[schema_id], None)
        except LIBRARY_ERRORS as exc:
            raise _undecodable(schema_id, f"{type(exc).__name__}: {exc}") from exc
        if buffer.tell() != len(payload):
            raise _undecodable(schema_id, f"{len(payload) - buffer.tell()} bytes follow the record")
        return dict(record)


def _undecodable(schema_id: int, what: str) -> CodecError:
    remedy = "the value is corrupt, or its producer framed it with the wrong schema id"
    return CodecError("DECODE_FAILED", f"by schema id {schema_id}: {what}", remedy)
