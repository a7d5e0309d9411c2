"""Framing and codec: what goes in comes out, and what does not fit is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from conf.errors import TidemarkError
from schemas.codec import HEADER_LENGTH, CodecError, Decoder, Encoder, frame, unframe
from schemas.registry import FileRegistry
from schemas.wire import DecodeError

FIELDS = [
    {"name": "station", "type": "string"},
    {"name": "degrees", "type": "int"},
    {"name": "note", "type": ["null", "string"], "default": None},
]
TEXT = json.dumps({"type": "record", "name": "Reading", "fields": FIELDS})


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path)


@pytest.fixture
def schema_id(registry: FileRegistry) -> int:
    return registry.register("readings-value", TEXT)


def test_a_frame_is_a_zero_byte_a_big_endian_id_and_the_payload() -> None:
    assert frame(258, b"xy") == b"\x00\x00\x00\x01\x02xy"
    assert unframe(frame(2**32 - 1, b"")) == (2**32 - 1, b"")


@pytest.mark.parametrize("value", [b"", b"\x00\x00\x00\x01", b"\x01\x00\x00\x00\x01x", b'{"a": 1}'])
def test_what_is_not_framed_is_refused(value: bytes) -> None:
    with pytest.raises(TidemarkError, match="NOT_FRAMED"):
        unframe(value)


def test_a_field_that_is_left_out_takes_its_default(registry: FileRegistry, schema_id: int) -> None:
    value = Encoder(schema_id, TEXT)({"station": "JFK", "degrees": -4})
    assert Decoder(registry)(value) == {"station": "JFK", "degrees": -4, "note": None}


@pytest.mark.parametrize(
    "value",
    [
        {"station": "JFK"},
        {"station": "JFK", "degrees": None},
        {"station": "JFK", "degrees": "4"},
        {"station": 4, "degrees": 4},
        {"station": "JFK", "degrees": 2**70},
        {"station": "JFK", "degrees": 4, "unknown": 1},
        {"station": "JFK\udcff", "degrees": 4},
    ],
)
def test_a_value_that_does_not_fit_is_one_error_with_its_cause(value: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="ENCODE_FAILED") as caught:
        Encoder(1, TEXT)(value)
    assert caught.value.__cause__ is not None


def test_every_cut_and_every_trailing_byte_is_refused(registry: FileRegistry, schema_id: int) -> None:
    value = Encoder(schema_id, TEXT)({"station": "JFK", "degrees": 4, "note": "fog"})
    for length in range(HEADER_LENGTH, len(value)):
        with pytest.raises(DecodeError, match="BYTES_MISSING"):
            Decoder(registry)(value[:length])
    with pytest.raises(DecodeError, match=r"TRAILING_BYTES.*2 bytes follow"):
        Decoder(registry)(value + b"\x00\x00")


def test_bytes_that_are_no_such_value_are_one_error_that_names_the_schema_id(
    registry: FileRegistry, schema_id: int
) -> None:
    with pytest.raises(DecodeError, match=f"BAD_UTF8: by schema id {schema_id}"):
        Decoder(registry)(frame(schema_id, b"\x04\xff\xfe\x02\x00"))


def test_an_id_that_is_registered_later_is_decoded_without_a_restart(registry: FileRegistry) -> None:
    decode = Decoder(registry)
    value = Encoder(1, TEXT)({"station": "JFK", "degrees": 4})
    with pytest.raises(TidemarkError, match="UNKNOWN_SCHEMA_ID"):
        decode(value)
    registry.register("readings-value", TEXT)
    assert decode(value)["station"] == "JFK"
