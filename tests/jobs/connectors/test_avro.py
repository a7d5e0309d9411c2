"""Framed Avro on the JVM, held against fastavro: the same values, and nothing that fastavro would not read.

What Spark has no type for comes out plain: time-millis as a number of milliseconds, timestamp-nanos as one of
nanoseconds, a duration as its 12 bytes, and a union of several types as a struct with one field a type.
"""

import io
import json
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import inf, nan
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from jobs.connectors import avro
from schemas.framing import frame
from schemas.registry import RegisteredSchema


def record(*fields: tuple[str, Any] | tuple[str, Any, Any], name: str = "Order") -> str:
    """A record schema of `(name, type)` and `(name, type, default)`."""
    listed = [dict(zip(("name", "type", "default"), field, strict=False)) for field in fields]
    return json.dumps({"type": "record", "name": name, "fields": listed})


def version(id: int, text: str) -> RegisteredSchema:
    return RegisteredSchema(id, "orders-value", id, text)


def body(text: str, value: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    schemaless_writer(buffer, parse_schema(json.loads(text)), value, strict=True)
    return buffer.getvalue()


def framed(writer: RegisteredSchema, value: Mapping[str, Any]) -> bytes:
    return frame(writer.id, body(writer.text, value))


def records(spark: SparkSession, values: Sequence[bytes | None]) -> DataFrame:
    rows = [(number, None if value is None else bytearray(value)) for number, value in enumerate(values)]
    return spark.createDataFrame(rows, "row int, value binary").coalesce(1)


def decoded(spark: SparkSession, values: Sequence[bytes | None], *writers: RegisteredSchema) -> list[Row]:
    return avro.decode(records(spark, values), writers, reader=writers[-1].text).orderBy("row").collect()


def accepted(spark: SparkSession, values: Sequence[bytes | None], *writers: RegisteredSchema) -> list[dict[str, Any]]:
    events = avro.accepted(avro.decode(records(spark, values), writers, reader=writers[-1].text), F.col("row"))
    rows = [row.asDict(recursive=True) for row in events.orderBy("row").collect()]
    return [{name: value for name, value in row.items() if name != "row"} for row in rows]


ORDER = version(1, record(("id", "long"), ("item", "string"), ("price", ["null", "double"])))
GOOD = framed(ORDER, {"id": 7, "item": "rope", "price": 2.5})


def test_each_record_is_decoded_by_the_schema_it_names_into_the_newest(spark: SparkSession) -> None:
    first = version(1, record(("id", "int"), ("item", "string")))
    second = version(
        2, record(("item", "string"), ("id", "long"), ("note", ["null", "string"], None), ("count", "int", 1))
    )
    values = [
        framed(first, {"id": 2**31 - 1, "item": "old"}),
        framed(second, {"id": 2**40, "item": "new", "note": "text", "count": 9}),
    ]
    assert accepted(spark, values, first, second) == [
        {"item": "old", "id": 2**31 - 1, "note": None, "count": 1},
        {"item": "new", "id": 2**40, "note": "text", "count": 9},
    ]


def test_a_field_that_the_newest_version_has_dropped_or_renamed_is_read_so(spark: SparkSession) -> None:
    first = version(5, record(("id", "int"), ("item", "string"), ("dropped", "string")))
    fields = [{"name": "number", "aliases": ["id"], "type": "int"}, {"name": "item", "type": "string"}]
    second = version(300, json.dumps({"type": "record", "name": "Order", "fields": fields}))
    values = [framed(first, {"id": 1, "item": "old", "dropped": "x"}), framed(second, {"number": 2, "item": "new"})]
    assert accepted(spark, values, first, second) == [{"number": 1, "item": "old"}, {"number": 2, "item": "new"}]


REJECTS: list[tuple[bytes | None, str, int | None]] = [
    (None, avro.NO_VALUE, None),
    (b"", avro.BAD_FRAMING, None),
    (b"\0\0\0\0", avro.BAD_FRAMING, None),
    (b'{"id": 7}', avro.BAD_FRAMING, None),
    (GOOD[5:], avro.BAD_FRAMING, None),
    (b"\1" + GOOD[1:], avro.BAD_FRAMING, None),
    (b"\0\xff\xff\xff\xff" + GOOD[5:], avro.BAD_FRAMING, None),
    (frame(2, GOOD[5:]), avro.UNKNOWN_SCHEMA_ID, 2),
    (frame(2**31 - 1, GOOD[5:]), avro.UNKNOWN_SCHEMA_ID, 2**31 - 1),
    (frame(1, b""), avro.UNDECODABLE, 1),
    (GOOD + b"\0", avro.UNDECODABLE, 1),
    (GOOD + GOOD, avro.UNDECODABLE, 1),
    (GOOD.replace(b"rope", b"ro\xffe"), avro.UNDECODABLE, 1),
]


def test_what_is_no_event_is_rejected_with_the_reason(spark: SparkSession) -> None:
    good, *bad = decoded(spark, [GOOD, *(value for value, _, _ in REJECTS)], ORDER)
    assert (good.error, good.schema_id, good.event.item) == (None, 1, "rope")
    found = [(value, row.error, row.schema_id) for (value, _, _), row in zip(REJECTS, bad, strict=True)]
    assert found == REJECTS


def test_rejected_and_accepted_rows_are_apart_and_none_is_lost(spark: SparkSession) -> None:
    frame = avro.decode(records(spark, [GOOD, None, b"x", GOOD]), [ORDER], ORDER.text)
    assert [row["row"] for row in avro.accepted(frame, F.col("row")).orderBy("row").collect()] == [0, 3]
    rejected = avro.rejected(frame).orderBy("row")
    assert rejected.columns == ["row", "value", "schema_id", "error"]
    assert [tuple(row) for row in rejected.collect()] == [
        (1, None, None, avro.NO_VALUE),
        (2, bytearray(b"x"), None, avro.BAD_FRAMING),
    ]


NULLABLE = version(
    1, record(*((name, ["null", kind], None) for name, kind in (("a", "long"), ("b", "string"), ("c", "double"))))
)


def test_a_schema_without_required_fields_rejects_every_body_cut_short_or_too_long(spark: SparkSession) -> None:
    whole = framed(NULLABLE, {"a": 300, "b": "text", "c": 1.5})
    empty = framed(NULLABLE, {"a": None, "b": None, "c": None})
    cut = [whole[:length] for length in range(5, len(whole))] + [empty[:length] for length in range(5, len(empty))]
    longer = [whole + bytes(count) for count in range(1, 5)]
    found = decoded(spark, [whole, empty, *cut, *longer], NULLABLE)
    assert [row.error for row in found[:2]] == [None, None]
    assert [row.error for row in found[2:]] == [avro.UNDECODABLE] * (len(cut) + len(longer))


def fastavro_reads(text: str, payload: bytes) -> dict[str, Any] | None:
    """The record, where fastavro reads one and nothing is left over; None otherwise."""
    buffer = io.BytesIO(payload)
    try:
        value: Any = schemaless_reader(buffer, parse_schema(json.loads(text)), None)
    except (ValueError, LookupError, EOFError, MemoryError, TypeError):
        return None
    return dict(value) if buffer.tell() == len(payload) else None


def test_random_and_damaged_bytes_are_accepted_only_where_fastavro_reads_the_same_value(spark: SparkSession) -> None:
    text = record(("a", "int"), ("b", "string"), ("c", ["null", "long"]), ("d", {"type": "array", "items": "string"}))
    writer, chance = version(1, text), random.Random(20130101)
    payloads = []
    for _ in range(600):
        value = {
            "a": chance.randint(-100, 100),
            "b": "x" * chance.randint(0, 3),
            "c": chance.choice([None, 5]),
            "d": ["é"],
        }
        damaged = bytearray(body(text, value))
        for _ in range(chance.randint(0, 2)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        payloads += [bytes(damaged), chance.randbytes(chance.randint(0, 8))]
    found = decoded(spark, [frame(1, payload) for payload in payloads], writer)
    rejected = 0
    for payload, row in zip(payloads, found, strict=True):
        expected = fastavro_reads(text, payload)
        event = row.event.asDict(recursive=True) if row.error is None else None
        rejected += event is None
        assert event is None or {name: event[name] for name in "abcd"} == expected, payload
        # Avro's varints hold 64 bits, Python's numbers more.
        if expected and abs(expected["a"]) < 2**31 and abs(expected["c"] or 0) < 2**63:
            assert event is not None, payload
    assert 600 < rejected < 1100


@pytest.mark.parametrize(
    "kind",
    [
        "string",
        "bytes",
        {"type": "map", "values": "int"},
        *({"type": "array", "items": items} for items in ("long", "null", "string")),
    ],
    ids=str,
)
def test_bytes_that_claim_a_huge_value_are_one_rejected_record_and_not_the_end_of_the_jvm(
    kind: Any, spark: SparkSession
) -> None:
    claims = (10**8, 2**31 - 1, 2**40, -5, -(2**31), -(2**62))
    # A record of one long is in Avro's encoding that number alone: a length or a count.
    values = [frame(1, body(record(("a", "long")), {"a": claimed}) + b"\2\2\2") for claimed in claims]
    found = decoded(spark, values, version(1, record(("a", kind))))
    assert [row.error for row in found] == [avro.UNDECODABLE] * len(claims)


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
    "time-micros": (logical("long", "time-micros"), [time(0, 0), time(23, 59, 59, 999999)]),
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
    events = decode_all(spark, writer, payloads).withColumn("again", avro.encode(F.struct("value", "end"), writer))
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
    return avro.accepted(avro.decode(values, [writer], writer.text))


@pytest.mark.parametrize(
    ("avro_type", "value", "sql_type", "expected"),
    [
        (logical("int", "time-millis"), time(0, 0, 1), "int", 1000),
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


def test_a_record_is_decoded_once_however_often_its_event_is_used(spark: SparkSession) -> None:
    frame_ = avro.decode(records(spark, [GOOD]), [ORDER], ORDER.text)
    kept = (
        avro.accepted(frame_, F.col("row")).where("price > 1 AND item LIKE 'r%'").select("id", "item", "price", "row")
    )
    for used in (kept, avro.rejected(frame_)):
        plan = used._jdf.queryExecution().executedPlan().toString()
        assert plan.count("from_avro(") == 1, plan


def test_without_a_registered_schema_nothing_can_be_decoded(spark: SparkSession) -> None:
    with pytest.raises(TidemarkError, match="UNKNOWN_SUBJECT"):
        avro.decode(records(spark, [GOOD]), [], ORDER.text)


def test_an_event_must_be_a_record(spark: SparkSession) -> None:
    with pytest.raises(TidemarkError, match="BAD_SCHEMA"):
        avro.decode(records(spark, [GOOD]), [version(1, '"string"')], '"string"')
