"""Confluent's wire format: a zero byte, the schema id as four bytes big-endian, then the Avro binary."""

import struct

from conf.errors import TidemarkError

MAGIC = 0
HEADER = struct.Struct(">BI")
HEADER_LENGTH = HEADER.size


def frame(schema_id: int, payload: bytes) -> bytes:
    """The framed record value."""
    return HEADER.pack(MAGIC, schema_id) + payload


def unframe(value: bytes) -> tuple[int, bytes]:
    """The schema id and the Avro binary of a framed record value.

    Raises:
        TidemarkError: NOT_FRAMED, where the header is cut short or does not start with the magic byte.
    """
    if len(value) < HEADER_LENGTH:
        raise _not_framed(f"a value of {len(value)} bytes is shorter than the {HEADER_LENGTH}-byte header")
    magic, schema_id = HEADER.unpack_from(value)
    if magic != MAGIC:
        raise _not_framed(f"a value starts with byte {magic}, not {MAGIC}")
    return schema_id, value[HEADER_LENGTH:]


def _not_framed(what: str) -> TidemarkError:
    return TidemarkError("NOT_FRAMED", what, "the producer must write Confluent's wire format")
