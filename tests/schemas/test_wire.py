"""Bytes that are not exactly one value of the schema are refused, by reason, before anything is made of them."""

import io
import json
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from schemas.codec import reader
from schemas.wire import DecodeError, DecodeLimits

ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
FIXED = {"type": "fixed", "name": "F", "size": 3, "logicalType": "decimal", "precision": 4, "scale": 2}
LONGS = {"type": "array", "items": "long"}
TREE = {
    "type": "record",
    "name": "T",
    "fields": [{"name": "v", "type": "int"}, {"name": "next", "type": ["null", "T"]}],
}


def logical(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "logicalType": name}


def written(schema: Any, value: Any) -> bytes:
    buffer = io.BytesIO()
    schemaless_writer(buffer, parse_schema(schema), value)
    return buffer.getvalue()


MALFORMED: list[tuple[Any, bytes, str]] = [
    ("int", b"", "BYTES_MISSING"),
    ("int", b"\x80", "BYTES_MISSING"),
    ("int", b"\0\0", "TRAILING_BYTES"),
    ("int", b"\xff\xff\xff\xff\x1f", "OUT_OF_RANGE"),
    ("int", written("long", 2**31), "OUT_OF_RANGE"),
    ("long", b"\xff" * 9 + b"\x02", "BAD_VARINT"),
    ("long", b"\x80" * 10 + b"\0", "BAD_VARINT"),
    ("boolean", b"\2", "BAD_BOOLEAN"),
    ("float", b"\0\0\0", "BYTES_MISSING"),
    ("string", b"\4\xc3\x28", "BAD_UTF8"),
    ("string", b"\6\xed\xa0\x80", "BAD_UTF8"),
    ("string", b"\1", "BAD_LENGTH"),
    ("bytes", written("long", -(2**63)), "BAD_LENGTH"),
    ("bytes", written("long", 2**62) + b"x", "BYTES_MISSING"),
    (ENUM, b"\1", "BAD_ENUM"),
    (ENUM, b"\4", "BAD_ENUM"),
    (ENUM, b"\x82\x80\x80\x80\x10", "BAD_VARINT"),
    (["null", "int"], b"\1", "BAD_UNION"),
    (["null", "int"], b"\4", "BAD_UNION"),
    (DECIMAL, b"\4\x27\x10", "BAD_DECIMAL"),
    (DECIMAL, b"\0", "BAD_DECIMAL"),
    (FIXED, b"\xff\xd8\xf0", "BAD_DECIMAL"),
    (logical("string", "uuid"), b"\4ab", "BAD_UUID"),
    (logical("int", "time-millis"), written("int", 86_400_000), "OUT_OF_RANGE"),
    (logical("long", "time-micros"), written("long", -1), "OUT_OF_RANGE"),
    (logical("int", "date"), written("int", 2**30), "OUT_OF_RANGE"),
    (logical("long", "timestamp-micros"), written("long", 2**60), "OUT_OF_RANGE"),
    (LONGS, b"\4\0\0", "BYTES_MISSING"),
    (LONGS, written("long", 1_000_000), "BYTES_MISSING"),
    (LONGS, b"\3\2\0\0\0", "BAD_BLOCK"),
    (LONGS, b"\3\1", "BAD_BLOCK"),
    (LONGS, b"\1\x10\0\0", "BAD_BLOCK"),
    (LONGS, written("long", -(2**63)) + b"\2\0\0", "BAD_BLOCK"),
    ({"type": "array", "items": "null"}, written("long", 2_000_000) + b"\0", "TOO_MANY_ITEMS"),
    ({"type": "map", "values": "null"}, b"\4\2a", "BYTES_MISSING"),
    ({"type": "map", "values": "null"}, b"\2\2\xff\0", "BAD_UTF8"),
    (TREE, b"\0\2" * 70 + b"\0\0", "TOO_DEEP"),
]


@pytest.mark.parametrize(("schema", "payload", "code"), MALFORMED, ids=lambda part: str(part)[:40])
def test_what_is_malformed_is_refused_with_its_reason(schema: Any, payload: bytes, code: str) -> None:
    with pytest.raises(DecodeError) as refused:
        reader(json.dumps(schema))(payload)
    assert refused.value.code == code


WELL_FORMED: list[tuple[Any, bytes]] = [
    ("int", b"\x80\x80\x80\x80\0"),
    ("int", written("int", -(2**31))),
    ("long", written("long", -(2**63))),
    ("boolean", b"\1"),
    (DECIMAL, b"\4\x27\x0f"),
    (FIXED, b"\xff\xd8\xf1"),
    (LONGS, b"\4\0\2\1\2\5\0"),
    (LONGS, b"\0"),
    ({"type": "array", "items": "null"}, written("long", 1_000_000) + b"\0"),
    ({"type": "map", "values": "long"}, b"\4\2a\0\2a\2\0"),
    (TREE, b"\0\2" * 60 + b"\0\0"),
    (logical("string", "uuid"), b"\x48" + b"a0b1c2d3-0000-4000-8000-00000000000F"),
    (logical("long", "timestamp-millis"), written("long", 253_402_300_799_999)),
    (logical("int", "date"), written("int", -719_162)),
]


@pytest.mark.parametrize(("schema", "payload"), WELL_FORMED, ids=lambda part: str(part)[:40])
def test_what_is_well_formed_is_read_as_fastavro_reads_it(schema: Any, payload: bytes) -> None:
    expected: Any = schemaless_reader(io.BytesIO(payload), parse_schema(schema), None)
    assert reader(json.dumps(schema))(payload) == expected


@pytest.mark.parametrize(
    ("budget", "payload", "code"),
    [
        (DecodeLimits(size=3), b"\4\0\0\0", "TOO_LARGE"),
        (DecodeLimits(items=1), b"\4\0\0\0", "TOO_MANY_ITEMS"),
        (DecodeLimits(items=1), b"\2\0\2\0\0", "TOO_MANY_ITEMS"),
        (DecodeLimits(depth=0), b"\0", "TOO_DEEP"),
    ],
)
def test_a_budget_is_kept_over_the_whole_value(budget: DecodeLimits, payload: bytes, code: str) -> None:
    with pytest.raises(DecodeError, match=code):
        reader(json.dumps(LONGS), budget)(payload)
