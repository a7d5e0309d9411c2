"""Which record keys name a row that a tombstone deletes, by the type of the field that keys the topic."""

import json
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from jobs.pipeline.tombstones import key_value
from schemas.spark_limits import event_schema

ARABIC_ONE = "\u0661"
UUID = "9e107d9d-372b-4c81-8f2a-0123456789AB"
UTC = {"type": "long", "logicalType": "timestamp-millis"}
LOCAL = {"type": "long", "logicalType": "local-timestamp-micros"}
# What names a value of which fields; no other field has one.
KEYS: dict[bytes | None, dict[str, Any]] = {
    None: {},
    b"": {"string": "", "bytes": b""},
    b"1": {"string": "1", "bytes": b"1", "int": 1, "long": 1, "decimal": Decimal("1.00"), "float": 1.0, "double": 1.0},
    b"-7": {
        "string": "-7",
        "bytes": b"-7",
        "int": -7,
        "long": -7,
        "decimal": Decimal(-7),
        "float": -7.0,
        "double": -7.0,
    },
    b"1.5": {"string": "1.5", "bytes": b"1.5", "decimal": Decimal("1.50"), "float": 1.5, "double": 1.5},
    b"1.005": {"string": "1.005", "bytes": b"1.005", "float": 1.0049999952316284, "double": 1.005},
    b"1e400": {"string": "1e400", "bytes": b"1e400"},
    b"NaN": {"string": "NaN", "bytes": b"NaN"},
    b"2147483648": {
        **{"string": "2147483648", "bytes": b"2147483648", "long": 2**31},
        **{"float": 2147483648.0, "double": 2147483648.0},
    },
    b"9223372036854775808": {
        **{"string": "9223372036854775808", "bytes": b"9223372036854775808"},
        **{"float": 9.223372036854775808e18, "double": 9.223372036854775808e18},
    },
    **{key: {"string": key.decode(), "bytes": key} for key in (b" 1", b"+1", b"01", b"1 ", b"1L", b"abc")},
    b"1\n": {"string": "1\n", "bytes": b"1\n"},
    **{key: {"bytes": key} for key in (b"a\x1fb", b"a\x7f")},
    ARABIC_ONE.encode(): {"string": ARABIC_ONE, "bytes": ARABIC_ONE.encode()},
    b"true": {"string": "true", "bytes": b"true", "boolean": True, "fixed": b"true"},
    b"yes": {"string": "yes", "bytes": b"yes"},
    b"red": {"string": "red", "bytes": b"red", "enum": "red"},
    b"2013-01-31": {"string": "2013-01-31", "bytes": b"2013-01-31", "date": date(2013, 1, 31)},
    **{
        key: {"string": key.decode(), "bytes": key}
        for key in (b"2013-02-30", b"0000-01-01", b"+10000-01-01", b"2013-1-1", b"2013-01-31T05:00:00+01:00")
    },
    b"2013-01-31T05:00:00Z": {
        **{"string": "2013-01-31T05:00:00Z", "bytes": b"2013-01-31T05:00:00Z"},
        "utc": datetime(2013, 1, 31, 5),
    },
    b"2013-01-31T05:00:00.000001": {
        **{"string": "2013-01-31T05:00:00.000001", "bytes": b"2013-01-31T05:00:00.000001"},
        "local": datetime(2013, 1, 31, 5, 0, 0, 1),
    },
    UUID.encode(): {"string": UUID, "bytes": UUID.encode(), "uuid": UUID.lower()},
    b"\0\0\0\0\0\0\0\2": {"bytes": b"\0\0\0\0\0\0\0\2"},
    b"\xff\xfe": {"bytes": b"\xff\xfe"},
}
TYPES: dict[str, Any] = {
    **{kind: kind for kind in ("string", "bytes", "float", "double", "boolean")},
    **{kind: ["null", kind] for kind in ("int", "long")},
    "decimal": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    "date": {"type": "int", "logicalType": "date"},
    "utc": UTC,
    "local": LOCAL,
    "uuid": {"type": "string", "logicalType": "uuid"},
    "enum": {"type": "enum", "name": "Colour", "symbols": ["red", "blue"]},
    "fixed": {"type": "fixed", "name": "Four", "size": 4},
}


def schema(**types: Any) -> Any:
    fields = [{"name": name, "type": kind} for name, kind in types.items()]
    return event_schema(json.dumps({"type": "record", "name": "Event", "fields": fields}))


def test_a_record_key_names_a_value_only_in_the_form_that_producers_write(spark: SparkSession) -> None:
    parsed = schema(**TYPES)
    keys = spark.createDataFrame([(number, key) for number, key in enumerate(KEYS)], "number int, key binary")
    values = keys.select("number", *(key_value("topic", parsed, name).alias(name) for name in TYPES))
    found = [
        {name: value for name, value in row.asDict().items() if name != "number" and value is not None}
        for row in values.orderBy("number").collect()
    ]
    assert dict(zip(KEYS, found, strict=True)) == KEYS


def test_a_time_in_nanoseconds_is_named_by_all_its_digits(spark: SparkSession) -> None:
    texts = ["2013-01-01T00:00:00.123456789", "2013-01-01T00:00:00.123456", "2013-01-01T00:00:00"]
    texts += ["1969-12-31T23:59:59.999999999", "2013-01-01T00:00:00.1234567", "9999-12-31T23:59:59.999999999"]
    expected = [1_356_998_400_123_456_789, 1_356_998_400_123_456_000, 1_356_998_400_000_000_000, -1, None, None]
    kinds = {"Z": "timestamp-nanos", "": "local-timestamp-nanos"}
    for offset, logical in kinds.items():
        keys = spark.createDataFrame(
            [(n, f"{text}{offset}".encode()) for n, text in enumerate(texts)], "n int, key binary"
        )
        value = key_value("topic", schema(at={"type": "long", "logicalType": logical}), "at")
        assert [row.value for row in keys.select("n", value.alias("value")).orderBy("n").collect()] == expected


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("id", "string", "compacted by `key`, and its events have no such field"),
        ("key", {"type": "array", "items": "int"}, "compacted by `key`, whose type no record key can be read as"),
        ("key", ["int", "string"], "compacted by `key`, whose type no record key can be read as"),
    ],
)
def test_a_key_field_that_no_record_key_can_name_is_refused(
    spark: SparkSession, name: str, kind: Any, expected: str
) -> None:
    with pytest.raises(TidemarkError, match=f"BAD_TOPICS: topic accounts is {expected}"):
        key_value("accounts", schema(**{name: kind}), "key")
