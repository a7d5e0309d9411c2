"""Framed Avro on the JVM: each record by its own schema, and nothing accepted that fastavro would not read."""

import json
import random
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from jobs.connectors.avro import decode
from schemas.codec import frame
from tests.jobs.connectors.avro.framed import (
    accepted,
    body,
    decoded,
    events_of,
    fastavro_reads,
    framed,
    record,
    records,
    version,
)
from tests.schemas.repeated_types import KINDS

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


@pytest.mark.parametrize(("wider", "largest"), [("long", 2**31 - 1), ("float", 2.0**31), ("double", 2.0**31 - 1)])
def test_the_largest_and_smallest_int_are_read_in_a_wider_type(wider: str, largest: float, spark: SparkSession) -> None:
    first, second = version(1, record(("n", "int"))), version(2, record(("n", wider)))
    values = [framed(first, {"n": number}) for number in (2**31 - 1, -(2**31))]
    assert accepted(spark, values, first, second) == [{"n": largest}, {"n": -(2**31)}]


REJECTS: list[tuple[bytes | None, str, int | None]] = [
    (None, decode.NO_VALUE, None),
    (b"", decode.BAD_FRAMING, None),
    (b"\0\0\0\0", decode.BAD_FRAMING, None),
    (b'{"id": 7}', decode.BAD_FRAMING, None),
    (GOOD[5:], decode.BAD_FRAMING, None),
    (b"\1" + GOOD[1:], decode.BAD_FRAMING, None),
    (b"\0\xff\xff\xff\xff" + GOOD[5:], decode.UNKNOWN_SCHEMA_ID, -1),
    (frame(2, GOOD[5:]), decode.UNKNOWN_SCHEMA_ID, 2),
    (frame(2**31 - 1, GOOD[5:]), decode.UNKNOWN_SCHEMA_ID, 2**31 - 1),
    (frame(1, b""), decode.UNDECODABLE, 1),
    (GOOD + b"\0", decode.UNDECODABLE, 1),
    (GOOD + GOOD, decode.UNDECODABLE, 1),
    (GOOD.replace(b"rope", b"ro\xffe"), decode.UNDECODABLE, 1),
]


def test_what_is_no_event_is_rejected_with_the_reason(spark: SparkSession) -> None:
    good, *bad = decoded(spark, [GOOD, *(value for value, _, _ in REJECTS)], ORDER)
    assert (good.error, good.schema_id, good.event.item) == (None, 1, "rope")
    found = [(value, row.error, row.schema_id) for (value, _, _), row in zip(REJECTS, bad, strict=True)]
    assert found == REJECTS


def rejected(decoded_: DataFrame) -> DataFrame:
    return decoded_.where(F.col("error").isNotNull()).drop("event")


def test_rejected_and_accepted_rows_are_apart_and_none_is_lost(spark: SparkSession) -> None:
    frame = decode.decode(records(spark, [GOOD, None, b"x", GOOD]), [ORDER], ORDER.text)
    assert [row["row"] for row in events_of(frame, F.col("row")).orderBy("row").collect()] == [0, 3]
    bad = rejected(frame).orderBy("row")
    assert bad.columns == ["row", "value", "schema_id", "error"]
    assert [tuple(row) for row in bad.collect()] == [
        (1, None, None, decode.NO_VALUE),
        (2, bytearray(b"x"), None, decode.BAD_FRAMING),
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
    assert [row.error for row in found[2:]] == [decode.UNDECODABLE] * (len(cut) + len(longer))


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
        *({"type": "array", "items": items} for items in ("long", "string")),
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
    assert [row.error for row in found] == [decode.UNDECODABLE] * len(claims)


def test_a_record_is_decoded_once_however_often_its_event_is_used(spark: SparkSession) -> None:
    frame_ = decode.decode(records(spark, [GOOD]), [ORDER], ORDER.text)
    kept = events_of(frame_, F.col("row")).where("price > 1 AND item LIKE 'r%'").select("id", "item", "price", "row")
    for used in (kept, rejected(frame_)):
        plan = used._jdf.queryExecution().executedPlan().toString()
        assert plan.count("from_avro(") == 1, plan


def test_an_event_whose_fields_are_used_is_not_made_whole_before(spark: SparkSession) -> None:
    writer = version(1, record(*((f"n{number}", "int") for number in range(20))))
    fields = events_of(decode.decode(records(spark, []), [writer], writer.text))
    plan = fields._jdf.queryExecution().executedPlan().toString()
    assert "n19" in plan and "struct(" not in plan, plan


def test_a_stage_too_long_for_the_compiler_is_compiled_all_the_same(spark: SparkSession) -> None:
    beans = spark._jvm.java.lang.management.ManagementFactory.getPlatformMXBeans(  # type: ignore[union-attr]
        spark._jvm.java.lang.Class.forName("com.sun.management.HotSpotDiagnosticMXBean")  # type: ignore[union-attr]
    )
    assert beans[0].getVMOption("DontCompileHugeMethods").getValue() == "false"


def test_without_a_registered_schema_nothing_can_be_decoded(spark: SparkSession) -> None:
    with pytest.raises(TidemarkError, match="UNKNOWN_SUBJECT"):
        decode.decode(records(spark, [GOOD]), [], ORDER.text)


def test_an_event_must_be_a_record(spark: SparkSession) -> None:
    with pytest.raises(TidemarkError, match="BAD_SCHEMA"):
        decode.decode(records(spark, [GOOD]), [version(1, '"string"')], '"string"')


def test_a_writer_that_java_s_reader_would_expand_without_end_is_refused(spark: SparkSession) -> None:
    hostile = version(1, KINDS["numbers"])
    with pytest.raises(TidemarkError, match="BAD_SCHEMA: its types, each as often as it is referred to, are "):
        decode.decode(records(spark, [GOOD]), [hostile], record(("id", "string"), name="Top"))
