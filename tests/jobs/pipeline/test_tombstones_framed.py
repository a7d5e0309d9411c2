"""A tombstone's key in any form but those that the topic has names no row; one in such a form names its own."""

import io
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.connectors.avro import decode
from jobs.pipeline.tombstones import BAD_KEY, DELETED_KEY, OTHER_KEY, with_deleted_keys
from schemas.codec import frame
from schemas.registry import RegisteredSchema

pytestmark = pytest.mark.slow

KEY_RECORD = {
    "type": "record",
    "name": "K",
    "namespace": "io.debezium",
    "fields": [{"name": "other", "type": "string"}],
}
PAIR = {"type": "record", "name": "P", "fields": [{"name": "a", "type": "string"}, {"name": "b", "type": "int"}]}
NULLABLE = {"type": "record", "name": "N", "fields": [{"name": "id", "type": ["null", "int"]}]}
ENUM = {"type": "enum", "name": "Colour", "symbols": ["red", "blue"]}
DATE = {"type": "int", "logicalType": "date"}
KEY_SCHEMAS: dict[int, Any] = {
    **{71: "string", 72: KEY_RECORD, 73: "int", 74: NULLABLE, 75: PAIR, 76: "long", 77: {**ENUM, "namespace": "k"}},
    **{78: DATE, 79: "double", 80: "bytes", 81: "boolean"},
}
OF_KEYS = [
    *(RegisteredSchema(id, "t-key", id, json.dumps(schema)) for id, schema in KEY_SCHEMAS.items()),
    RegisteredSchema(90, "t-key", 90, 'syntax = "proto3";', "PROTOBUF"),
    RegisteredSchema(91, "t-key", 91, '"x.Gone"', problem=("it refers to what is gone", "mend it")),
]
# By which of these schemas the keys of a field may be written.
FRAMED = {
    **{"string": {71, 72}, "int": {73, 74}, "long": {73, 74, 76}, "enum": {77}, "date": {78}, "double": {79}},
    **{"bytes": {80}, "boolean": {81}, "uuid": set[int]()},
}
FIELDS: dict[str, Any] = {
    **{kind: ["null", kind] for kind in ("string", "int", "long", "double", "bytes", "boolean")},
    **{"enum": ENUM, "date": DATE, "uuid": {"type": "string", "logicalType": "uuid"}},
}
TEXTS: dict[str, Callable[[Any], bytes]] = {"boolean": lambda value: str(value).lower().encode(), "bytes": bytes}


def avro(id: int, value: Any) -> bytes:
    schema, buffer = KEY_SCHEMAS[id], io.BytesIO()
    record = {schema["fields"][0]["name"]: value, "b": 1} if id in (72, 74, 75) else value
    schemaless_writer(buffer, parse_schema(json.loads(json.dumps(schema))), record)
    return frame(id, buffer.getvalue())


def framed() -> st.SearchStrategy[tuple[int | None, Any, bytes]]:
    ints, texts = st.integers(-(2**31), 2**31 - 1), st.text(max_size=9)
    values: dict[int, st.SearchStrategy[Any]] = {
        **{71: texts, 72: texts, 73: ints, 74: ints, 75: texts, 76: st.integers(-(2**63), 2**63 - 1)},
        **{77: st.sampled_from(ENUM["symbols"]), 78: st.dates(), 79: st.floats(allow_nan=False, allow_infinity=False)},
        **{80: st.binary(max_size=9), 81: st.booleans()},
    }
    by_schema = [made.map(lambda value, id=id: (id, value, avro(id, value))) for id, made in values.items()]  # type: ignore[misc]
    unknown = st.integers(1000, 2**31 - 1).flatmap(lambda id: texts.map(lambda text: frame(id, text.encode())))
    damaged = st.sampled_from([*KEY_SCHEMAS, 90, 91]).flatmap(
        lambda id: st.binary(max_size=3).map(lambda b: frame(id, b))
    )
    return st.one_of(*by_schema, unknown.map(lambda key: (0, None, key)), damaged.map(lambda key: (None, None, key)))


def numbers() -> st.SearchStrategy[bytes]:
    """As Java's serializers write them."""
    kinds = {">q": st.integers(-(2**63), 2**63 - 1), ">i": st.integers(-(2**31), 2**31 - 1), ">d": st.floats()}
    packed = [made.map(lambda value, form=form: struct.pack(form, value)) for form, made in kinds.items()]  # type: ignore[misc]
    return st.one_of(*packed, st.integers(0, 2**40).map(lambda value: struct.pack(">q", value)))


KEYS = st.one_of(
    framed(), numbers().map(lambda key: (0, None, key)), st.uuids().map(lambda each: (0, None, each.bytes))
)


@settings(max_examples=2, deadline=None)
@given(st.lists(KEYS, min_size=150, max_size=150))
def test_a_tombstone_in_another_form_deletes_nothing_and_is_kept_and_one_in_this_form_deletes_its_row(
    spark: SparkSession, made: list[tuple[int | None, Any, bytes]]
) -> None:
    for name, kind in FIELDS.items():
        event = json.dumps({"type": "record", "name": "Event", "fields": [{"name": "id", "type": kind}]})
        rows = [(number, key, None) for number, (_, _, key) in enumerate(made)]
        records = spark.createDataFrame(rows, "number int, key binary, value binary")
        decoded = decode.decode(records, [RegisteredSchema(1, "t-value", 1, event)], event)
        named = with_deleted_keys(decoded, "t", event, "id", OF_KEYS)
        assert named.columns == [*decoded.columns, DELETED_KEY, OTHER_KEY]
        found = named.select("number", "error", DELETED_KEY, OTHER_KEY).orderBy("number").collect()
        for (id, value, key), (_, error, deleted, other) in zip(made, found, strict=True):
            assert (error == BAD_KEY) == (deleted is None), (name, key)
            assert not other
            if id in FRAMED[name]:
                assert deleted == value, (name, key)
            elif deleted is not None and id is not None:
                # Nothing can tell that from a key that is written so; and nothing that begins with a zero is text.
                assert written(name, deleted) == key, (name, key)
                assert name == "bytes" or key[:1] >= b" " or key[:1] in b"\t\n\r", (name, key)


def written(name: str, value: Any) -> bytes:
    return TEXTS[name](value) if name in TEXTS else str(value).encode()


def test_an_events_own_record_key_is_held_against_its_field(spark: SparkSession) -> None:
    event = json.dumps({"type": "record", "name": "Event", "fields": [{"name": "id", "type": ["null", "string"]}]})
    buffer = io.BytesIO()
    schemaless_writer(buffer, parse_schema(json.loads(event)), {"id": "u1"})
    value, of_null = frame(1, buffer.getvalue()), frame(1, b"\0")
    keys = [b"u1", avro(71, "u1"), avro(72, "u1"), b'"u1"', b"u2", struct.pack(">q", 7), avro(73, 1), None]
    rows = [*((number, key, value) for number, key in enumerate(keys)), (8, b"x", of_null), (9, b"x", b"no event")]
    records = spark.createDataFrame(rows, "number int, key binary, value binary")
    decoded = decode.decode(records, [RegisteredSchema(1, "t-value", 1, event)], event)
    named = with_deleted_keys(decoded, "t", event, "id", OF_KEYS).where(F.col(OTHER_KEY))
    assert [row.number for row in named.orderBy("number").collect()] == [3, 4, 5, 6, 7]
