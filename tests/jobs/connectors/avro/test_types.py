"""Every Avro type on the JVM, held against fastavro value for value.

What Spark has no type for comes out plain: time-millis and time-micros as a number of those, timestamp-nanos as one of
nanoseconds, a duration as its 12 bytes, and a union of several types as a struct with one field a type.
"""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import inf, nan
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from jobs.connectors.avro import decode
from jobs.connectors.avro.encode import encode
from schemas.codec import frame, reader
from schemas.registry import RegisteredSchema
from tests.jobs.connectors.avro.framed import accepted, body, events_of, fastavro_reads, record, records, version


def logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


def fixed(size: int, **more: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": "Fixed", "size": size, **more}


INNER = json.loads(record(("x", "int"), ("y", ["null", "string"]), name="Inner"))
AT = datetime(2013, 3, 10, 6, 59, 59, 123000, tzinfo=UTC)
OLD = datetime(1066, 10, 14, 9, 0, 0, 1000, tzinfo=UTC)
TYPES: dict[str, tuple[Any, list[Any]]] = {
    "null": ("null", [None]),
    "boolean": ("boolean", [True, False]),
    "int": ("int", [0, -1, 2**31 - 1, -(2**31)]),
    "long": ("long", [0, 2**63 - 1, -(2**63)]),
    "float": ("float", [0.0, 1.5, -3.25, inf, -inf, nan]),
    "double": ("double", [0.1, -1e308, 5e-324, inf, nan]),
    "bytes": ("bytes", [b"", b"\0\xff"]),
    "string": ("string", ["", "ü 🛫", "a\0b"]),
    "record": (INNER, [{"x": 1, "y": None}, {"x": -1, "y": "z"}]),
    "enum": ({"type": "enum", "name": "E", "symbols": ["late", "very_late"]}, ["late", "very_late"]),
    "array": ({"type": "array", "items": ["null", "string"]}, [[], ["a", None]]),
    "array of records": ({"type": "array", "items": INNER}, [[{"x": 1, "y": "b"}, {"x": 2, "y": None}]]),
    "map": ({"type": "map", "values": "long"}, [{}, {"a": 1, "ö": -2}]),
    "union with null": (["null", "int"], [None, 5]),
    "union with null last": (["string", "null"], [None, "s"]),
    "union of int and long": (["int", "long"], [5, 2**40]),
    "union of float and double": (["float", "double"], [0.5]),
    "fixed": (fixed(4), [b"\0\1\2\3"]),
    "decimal on bytes": (
        logical("bytes", "decimal", precision=38, scale=9),
        [Decimal("0E-9"), Decimal("-1.000000001"), Decimal("99999999999999999999999999999.999999999")],
    ),
    "decimal on fixed": (fixed(8, logicalType="decimal", precision=18, scale=2), [Decimal("-0.01"), Decimal("12.30")]),
    "date": (logical("int", "date"), [date(1970, 1, 1), date(1066, 10, 14), date(9999, 12, 31)]),
    "timestamp-millis": (logical("long", "timestamp-millis"), [AT, OLD]),
    "timestamp-micros": (logical("long", "timestamp-micros"), [AT + timedelta(microseconds=1), OLD]),
    "local-timestamp-millis": (logical("long", "local-timestamp-millis"), [AT.replace(tzinfo=None)]),
    "local-timestamp-micros": (logical("long", "local-timestamp-micros"), [OLD.replace(tzinfo=None)]),
}


def plain(value: Any) -> Any:
    """A value that compares as wanted: bytes of either kind are equal, NaN is NaN, an instant is its UTC clock time."""
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_decoded_to_fastavros_value_and_encoded_so_that_fastavro_reads_it(
    kind: str, spark: SparkSession
) -> None:
    avro_type, values = TYPES[kind]
    writer = version(258, record(("value", avro_type), ("end", "string")))
    expected = [plain({"value": value, "end": "z"}) for value in values]
    payloads = [body(writer.text, {"value": value, "end": "z"}) for value in values]
    events = decode_all(spark, writer, payloads).withColumn("again", encode(F.struct("value", "end"), writer))
    if kind.startswith("timestamp"):
        # Collected, an instant would come in this machine's time zone.
        events = events.withColumn("value", F.col("value").cast("timestamp_ntz"))
    rows = [row.asDict(recursive=True) for row in events.collect()]
    again = [bytes(row.pop("again")) for row in rows]
    assert [plain(fastavro_reads(writer.text, payload)) for payload in payloads] == expected
    assert [plain(row) for row in rows] == expected
    assert {value[:5] for value in again} == {b"\0\0\0\1\2"}
    assert [plain(fastavro_reads(writer.text, value[5:])) for value in again] == expected


def decode_all(spark: SparkSession, writer: RegisteredSchema, payloads: Sequence[bytes]) -> DataFrame:
    values = records(spark, [frame(writer.id, payload) for payload in payloads])
    return events_of(decode.decode(values, [writer], writer.text))


@pytest.mark.parametrize(
    ("avro_type", "value", "sql_type", "expected"),
    [
        (logical("int", "time-millis"), time(0, 0, 1), "int", 1000),
        (logical("long", "time-micros"), time(0, 0, 1), "bigint", 1_000_000),
        (logical("long", "timestamp-nanos"), 7, "bigint", 7),
        (fixed(12, logicalType="duration"), bytes(12), "binary", bytes(12)),
        (["int", "string"], "s", "struct<member0:int,member1:string>", {"member0": None, "member1": "s"}),
        (["null", "int", "string"], 5, "struct<member0:int,member1:string>", {"member0": 5, "member1": None}),
    ],
)
def test_what_spark_has_no_type_for_comes_out_plain(
    avro_type: Any, value: Any, sql_type: str, expected: Any, spark: SparkSession
) -> None:
    writer = version(1, record(("value", avro_type)))
    events = decode_all(spark, writer, [body(writer.text, {"value": value})])
    assert events.schema["value"].dataType.simpleString() == sql_type
    assert plain(events.collect()[0].asDict(recursive=True)) == {"value": expected}


TREE = {"type": "record", "name": "Tree", "fields": [{"name": "next", "type": ["null", "Tree"]}]}


@pytest.mark.parametrize(
    ("avro_type", "what"),
    [
        (TREE, "field value.next: record `Tree` holds itself"),
        ({"type": "array", "items": "null"}, "field value: array of items that take no bytes"),
        (
            json.loads(record(("x", "int"), ("X", "int"), name="Two")),
            "field value: `Two` has two fields `x`",
        ),
    ],
)
def test_what_spark_cannot_read_as_what_it_is_is_refused_by_name(
    avro_type: Any, what: str, spark: SparkSession
) -> None:
    with pytest.raises(TidemarkError, match=f"BAD_SCHEMA: {what}"):
        decode_all(spark, version(1, record(("value", avro_type))), [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (logical("long", "timestamp-millis"), logical("long", "timestamp-micros")),
        (
            logical("bytes", "decimal", precision=9, scale=2),
            ["null", logical("bytes", "decimal", precision=9, scale=3)],
        ),
        ("long", "int"),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}),
    ],
)
def test_a_version_whose_bytes_mean_something_else_to_the_newest_is_refused_by_name(
    old: Any, new: Any, spark: SparkSession
) -> None:
    versions = [version(1, record(("at", old))), version(2, record(("at", new)))]
    with pytest.raises(TidemarkError, match="BAD_SCHEMA: field `at` of `Order` was"):
        decode.decode(records(spark, []), versions, versions[-1].text)


MALFORMED: list[tuple[Any, bytes]] = [
    ("boolean", b"\2"),
    (["null", "boolean"], b"\2\xff"),
    ({"type": "array", "items": "boolean"}, b"\4\1\3\0"),
    ({"type": "map", "values": "boolean"}, b"\2\2a\3\0"),
    ("int", b"\xff\xff\xff\xff\x1f"),
    ({"type": "array", "items": ["null", "int"]}, b"\2\2\xff\xff\xff\xff\x1f\0"),
    (["int", "string"], b"\0\xff\xff\xff\xff\x1f"),
    (logical("bytes", "decimal", precision=4, scale=2), b"\x14\1" + bytes(9)),
    (logical("bytes", "decimal", precision=4, scale=2), b"\4\x27\x10"),
    (fixed(9, logicalType="decimal", precision=4, scale=2), b"\1" + bytes(8)),
    (logical("string", "uuid"), b"\4ab"),
    (logical("int", "time-millis"), b"\1"),
    (logical("long", "time-micros"), b"\1"),
    (logical("int", "date"), body(record(("a", "int")), {"a": 2**30})),
    (logical("long", "timestamp-micros"), body(record(("a", "long")), {"a": 2**60})),
    (logical("long", "local-timestamp-millis"), body(record(("a", "long")), {"a": -(2**53)})),
    ({"type": "map", "values": "int"}, b"\2\2\xff\0\0"),
]


@pytest.mark.parametrize(("avro_type", "payload"), MALFORMED, ids=str)
def test_bytes_that_sparks_reader_would_take_for_another_value_are_rejected(
    avro_type: Any, payload: bytes, spark: SparkSession
) -> None:
    writer = version(1, record(("value", avro_type)))
    frame_ = decode.decode(records(spark, [frame(1, payload)]), [writer], writer.text)
    assert frame_.select("error").collect() == [(decode.UNDECODABLE,)]


# Entries of longs: in one block, in two, in one that says its size, and a key that is empty.
TWICE = [
    (b"\6\2a\2\2b\4\2a\6\0", {"a": 3, "b": 2}),
    (b"\4\2a\2\2b\4\2\2a\6\0", {"a": 3, "b": 2}),
    (b"\3\x0c\2a\2\2b\4\1\6\2a\6\2\2a\x08\0", {"a": 4, "b": 2}),
    (b"\4\0\2\0\4\0", {"": 2}),
]


def test_of_a_maps_entries_with_the_same_key_the_last_one_stays_as_with_fastavro(spark: SparkSession) -> None:
    within = {"type": "record", "name": "Within", "fields": [{"name": "by", "type": {"type": "map", "values": "long"}}]}
    writer = version(1, record(("m", {"type": "map", "values": "long"}), ("l", {"type": "array", "items": within})))
    payloads = [map_bytes + b"\2" + map_bytes + b"\0" for map_bytes, _ in TWICE]
    expected = [{"m": said, "l": [{"by": said}]} for _, said in TWICE]
    assert [fastavro_reads(writer.text, payload) for payload in payloads] == expected
    assert [reader(writer.text)(payload) for payload in payloads] == expected
    assert accepted(spark, [frame(1, payload) for payload in payloads], writer) == expected
