"""A value fits its type exactly, or is refused with its field and the reason."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from schemas.codec import Decoder, Encoder
from schemas.registry import FileRegistry
from schemas.timestamps import Ambiguous
from schemas.values import Reading, UnfitError, record_converter

TEXT, TYPED = Reading(from_text=True), Reading()
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
LOCAL = {"type": "long", "logicalType": "local-timestamp-micros"}
DATE = {"type": "int", "logicalType": "date"}
TIME = {"type": "int", "logicalType": "time-millis"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
UUID = {"type": "string", "logicalType": "uuid"}
SIZE = {"type": "enum", "name": "Size", "symbols": ["S", "M"]}
FIXED = {"type": "fixed", "name": "Three", "size": 3}
POINT = {"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}]}
MOMENT = 1_357_034_400_250_000  # 2013-01-01T10:00:00.25Z


def schema(avro_type: Any, **attributes: Any) -> str:
    return json.dumps({"type": "record", "name": "R", "fields": [{"name": "v", "type": avro_type, **attributes}]})


def nanoseconds(count: int) -> Any:
    """What Arrow makes of a timestamp in nanoseconds: a datetime that knows more digits."""
    return pa.scalar(count, pa.timestamp("ns", "UTC")).as_py()


def convert(avro_type: Any, value: Any, reading: Reading = TYPED) -> Any:
    return record_converter(schema(avro_type), reading)({"v": value})["v"]


@pytest.mark.parametrize(
    ("avro_type", "text", "expected"),
    [
        ("int", "-2147483648", -(2**31)),
        ("long", " 9223372036854775807 ", 2**63 - 1),
        ("long", "9223372036854775807.00", 2**63 - 1),
        ("long", "1e3", 1000),
        ("int", "5.", 5),
        ("long", "0e99999", 0),
        ("bytes", "é", "é".encode()),
        (FIXED, "abc", b"abc"),
        ("double", "10.357019999999999", 10.357019999999999),
        ("double", "-Infinity", float("-inf")),
        ("float", "1e-3", 0.001),
        ("boolean", "TRUE", True),
        ("string", " NA ", " NA "),
        (DATE, "1970-01-11", 10),
        (TIME, "00:00:01.5", 1500),
        (MICROS, "2013-01-01T10:00:00.25Z", MOMENT),
        (MICROS, "2013-01-01 05:00:00.250-0500", MOMENT),
        (LOCAL, "2013-01-01 10:00:00.25", MOMENT),
        (MONEY, "-9999.9", Decimal("-9999.90")),
        (UUID, "9B2E1C7E-0F5B-4F8C-9D1E-3C9E4B7A2A11", "9b2e1c7e-0f5b-4f8c-9d1e-3c9e4b7a2a11"),
        (SIZE, "M", "M"),
        (POINT, '{"x": 1}', {"x": 1}),
        ({"type": "array", "items": ["null", "long"]}, "[1, null]", [1, None]),
        (["null", "long"], "", None),
    ],
)
def test_text_that_fits_is_converted(avro_type: Any, text: str, expected: Any) -> None:
    assert convert(avro_type, text, TEXT) == expected


@pytest.mark.parametrize(
    ("avro_type", "text", "says"),
    [
        ("int", "2147483648", "out of the range of int"),
        ("long", "9" * 5000, "out of the range of long"),
        ("long", "1_000", "'1_000' is no long"),
        ("long", "1.5", "'1.5' is no long"),
        ("long", "1e-3", "'1e-3' is no long"),
        ("int", "1e99999999999999999999", "has an exponent of too many digits"),
        ("double", "1e-99999999999999999999", "has an exponent of too many digits"),
        ("long", "9223372036854775808.0", "is no long|out of the range"),
        ("long", "", "a value is required"),
        ("double", "1,5", "'1,5' is no double"),
        ("double", "1e999", "out of the range of double"),
        ("float", "1e39", "out of the range of float"),
        ("double", "12345678901234567890", "has more digits than double holds"),
        ("double", "1e-400", "has more digits than double holds"),
        ("float", "0.123456789", "has more digits than float holds"),
        ("float", "16777217", "has more digits than float holds"),
        ("boolean", "yes", "'yes' is no boolean"),
        (DATE, "2013-02-30", "is no date"),
        (MILLIS, "2013-01-01T10:00:00.0005Z", "is finer than its type, which holds millis"),
        (MILLIS, "01/02/2013", "is no time"),
        (LOCAL, "2013-01-01T10:00:00Z", "has an offset"),
        (TIME, "24:00:00", "is no time of day"),
        (MONEY, "0.001", r"does not fit decimal\(6, 2\)"),
        (MONEY, "12345.00", r"does not fit decimal\(6, 2\)"),
        (MONEY, "1_000", r"does not fit decimal\(6, 2\): it is no number"),
        (MONEY, "\u0661", r"does not fit decimal\(6, 2\): it is no number"),
        (MONEY, "NaN", r"does not fit decimal\(6, 2\)"),
        (UUID, "9b2e", "is no UUID"),
        (FIXED, "ab", "is not 3 bytes"),
        (SIZE, "XL", "is none of S, M"),
        (POINT, "{x: 1}", "is no JSON"),
    ],
)
def test_text_that_does_not_fit_is_refused(avro_type: Any, text: str, says: str) -> None:
    with pytest.raises(UnfitError, match=f"field `v`: .*{says}"):
        convert(avro_type, text, TEXT)


@pytest.mark.parametrize(
    ("avro_type", "value", "expected"),
    [
        ("double", 3, 3.0),
        ("double", 10**23, 1e23),
        ("float", 0.1, 0.1),
        ("float", 0.10000000149011612, 0.10000000149011612),
        (["null", "float", "double"], 0.1, ("double", 0.1)),
        (["null", MONEY, "long"], 5, ("long", 5)),
        (["null", MILLIS, "string"], "2013-01-01T00:00Z", ("string", "2013-01-01T00:00Z")),
        (MICROS, datetime(2013, 1, 1, 10, 0, 0, 250_000, UTC), MOMENT),
        (MICROS, datetime(2013, 1, 1, 10, 0, 0, 250_000), MOMENT),
        (MILLIS, 1_357_034_400_250, 1_357_034_400_250),
        (MICROS, nanoseconds(1_357_034_400_250_000_000), MOMENT),
        (DATE, date(1969, 12, 31), -1),
        (TIME, time(0, 0, 1), 1000),
        (MONEY, 12.5, Decimal("12.50")),
        (MONEY, b"\x00\x80", Decimal("1.28")),
        ({"type": "map", "values": "int"}, [("a", 1)], {"a": 1}),
        (["null", "long", "string"], "x", ("string", "x")),
        ("long", 1.0, 1),
        ("long", Decimal("1e3"), 1000),
        ("long", 1e18, 10**18),
        (["long", "double"], 1.0, ("double", 1.0)),
        (["long", MONEY], Decimal("1.00"), ("bytes", Decimal("1.00"))),
        (["null", DATE, "long"], 5, ("long", 5)),
        (["null", DATE, "double"], 5, ("double", 5.0)),
        (["null", DATE, MICROS], datetime(1970, 1, 2, tzinfo=UTC), ("long", 86_400_000_000)),
        (["null", UUID, {"type": "enum", "name": "E", "symbols": ["A"]}], "A", ("E", "A")),
    ],
)
def test_a_typed_value_that_fits_is_converted(avro_type: Any, value: Any, expected: Any) -> None:
    assert convert(avro_type, value) == expected


@pytest.mark.parametrize(
    ("avro_type", "value"),
    [
        ("int", True),
        ("long", 1.5),
        ("long", float("nan")),
        ("long", 2.0**60),
        ("int", 2.0**31),
        ("long", "1"),
        ("long", "1.0"),
        ("double", "1.5"),
        ("double", 2**53 + 1),
        ("double", 10**400),
        ("double", Decimal("0.1234567890123456789")),
        ("float", 0.123456789),
        ("float", 2**24 + 1),
        (["null", "float"], 1e-50),
        ("double", True),
        ("string", 1),
        ("string", None),
        ("bytes", "x"),
        (MICROS, nanoseconds(1)),
        (MONEY, True),
        (DATE, datetime(2013, 1, 1, 10)),
        (DATE, 2**31),
        (DATE, 2**22),
        (MILLIS, 253_402_300_800_000),
        (MICROS, -62_135_596_800_000_001),
        ({"type": "long", "logicalType": "timestamp-nanos"}, 2**63),
        (TIME, 86_400_000),
        ({"type": "map", "values": "int"}, [("a", 1), ("a", 2)]),
        ({"type": "array", "items": "int"}, "abc"),
        ({"type": "fixed", "name": "F", "size": 2}, b"abc"),
        (["null", "long", "string"], 1.5),
    ],
)
def test_a_typed_value_of_another_kind_is_refused(avro_type: Any, value: Any) -> None:
    with pytest.raises(UnfitError, match="field `v`"):
        convert(avro_type, value)


def test_a_time_without_offset_is_read_in_the_given_zone() -> None:
    new_york = Reading(from_text=True, zone=ZoneInfo("America/New_York"))
    assert convert(MICROS, "2013-01-01T05:00:00.25", new_york) == MOMENT
    assert convert(MICROS, "2013-01-01T10:00:00.25Z", new_york) == MOMENT


NEW_YORK = ZoneInfo("America/New_York")
TWICE, NEVER = "2013-11-03 01:30:00", "2013-03-10 02:30:00"


@pytest.mark.parametrize(("ambiguous", "hour"), [("earlier", 5), ("later", 6)])
@pytest.mark.parametrize("typed", [False, True])
def test_a_time_that_the_clocks_showed_twice_is_taken_as_said_and_noted(
    ambiguous: Ambiguous, hour: int, typed: bool
) -> None:
    notes: list[str] = []
    reading = Reading(zone=NEW_YORK, from_text=not typed, ambiguous=ambiguous)
    value = datetime.fromisoformat(TWICE) if typed else TWICE
    found = record_converter(schema(MICROS), reading, notes)({"v": value})["v"]
    assert found == datetime(2013, 11, 3, hour, 30, tzinfo=UTC).timestamp() * 1_000_000
    assert notes == [f"a time that the clocks of America/New_York showed twice, taken as the {ambiguous}"]


@pytest.mark.parametrize("shown", [TWICE, NEVER])
def test_a_time_that_never_was_or_was_twice_is_refused(shown: str) -> None:
    reading = Reading(zone=NEW_YORK, from_text=True, ambiguous="reject")
    with pytest.raises(UnfitError, match=r"field `v`: 2013-\d+-\d+ 0\d:30:00 was (never shown|shown twice) by"):
        convert(MICROS, shown, reading)


def test_a_time_with_an_offset_has_one_meaning_in_every_zone() -> None:
    notes: list[str] = []
    reading = Reading(zone=NEW_YORK, from_text=True, ambiguous="reject")
    found = record_converter(schema(MICROS), reading, notes)
    for text in ("2013-11-03 01:30:00-04:00", "2013-11-03 01:30:00-05:00", "2013-03-10 02:30:00Z"):
        assert found({"v": text})["v"] == datetime.fromisoformat(text).timestamp() * 1_000_000
    assert notes == []


def test_the_path_of_a_nested_field_is_named() -> None:
    nested = {"type": "array", "items": POINT}
    with pytest.raises(UnfitError, match=r"field `v\.x`: 'a' is no int"):
        convert(nested, [{"x": 1}, {"x": "a"}])


def test_missing_and_unknown_fields_are_refused_unless_a_default_or_the_caller_says_otherwise() -> None:
    strict = record_converter(schema("int"), Reading())
    with pytest.raises(UnfitError, match="field `v`: it is missing"):
        strict({})
    with pytest.raises(UnfitError, match="the schema has no field `w`"):
        strict({"v": 1, "w": 2})
    assert record_converter(schema("int"), Reading(ignore_extra=True))({"v": 1, "w": 2}) == {"v": 1}
    assert record_converter(schema(["null", "int"], default=None), Reading())({}) == {}


def test_a_field_is_found_by_its_source_name() -> None:
    converter = record_converter(schema("int", source="Unit price"), Reading())
    assert converter({"Unit price": 3}) == {"v": 3}


def test_a_json_string_takes_anything_as_json_text() -> None:
    converter = record_converter(schema(["null", {"type": "string", "json": True}]), Reading())
    exact = {"b": [True, Decimal("0.1234567890123456789"), 2**70, {}]}
    values = [converter({"v": value})["v"] for value in (None, "a", 1, exact)]
    assert values == [None, "a", "1", '{"b": [true, 0.1234567890123456789, 1180591620717411303424, {}]}']


def test_a_record_nested_too_deeply_is_refused() -> None:
    linked = '{"type": "record", "name": "R", "fields": [{"name": "v", "type": ["null", "R"]}]}'
    deep: dict[str, Any] = {"v": None}
    for _ in range(5000):
        deep = {"v": deep}
    with pytest.raises(UnfitError, match="too deeply"):
        record_converter(linked, Reading())(deep)


@pytest.mark.parametrize("value", [5, "five", {"x": 1}, None, 2.5])
def test_the_branch_that_fits_is_the_branch_that_is_written(tmp_path: Path, value: Any) -> None:
    text = schema(["null", "double", "long", "string", POINT])
    registry = FileRegistry(tmp_path)
    encode = Encoder(registry.register("r-value", text), text)
    decoded = Decoder(registry)(encode(record_converter(text, Reading())({"v": value})))["v"]
    assert decoded == value


BROKEN_IDS = [
    "12345678-1234-5678-1234-56781234567 ",
    "1234_678-1234-5678-1234-567812345678",
    "+2345678-1234-5678-1234-567812345678",
    "\uff112345678-1234-5678-1234-56781234567",
    "{12345678-1234-5678-1234-567812345678",
]


@pytest.mark.parametrize("text", BROKEN_IDS)
@pytest.mark.parametrize("reading", [TEXT, TYPED], ids=["cell", "value"])
def test_a_damaged_uuid_does_not_become_another(text: str, reading: Reading) -> None:
    with pytest.raises(UnfitError, match="is no UUID"):
        convert(UUID, text, reading)


@pytest.mark.parametrize("text", ["{%s}", "urn:uuid:%s", " %s "])
def test_a_uuid_may_be_written_in_several_ways(text: str) -> None:
    found = "9b2e1c7e-0f5b-4f8c-9d1e-3c9e4b7a2a11"
    for digits in (found, found.upper(), found.replace("-", "")):
        assert convert(UUID, text % digits, TEXT) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", ("long", 7)),
        ("-7", ("long", -7)),
        ("007", ("string", "007")),
        ("+7", ("string", "+7")),
        (" 7", ("string", " 7")),
        ("1.5", ("double", 1.5)),
        ("1.0", ("double", 1.0)),
        ("1.10", ("string", "1.10")),
        ("1e3", ("string", "1e3")),
        ("1e+22", ("double", 1e22)),
        ("0.1234567890123456789", ("string", "0.1234567890123456789")),
    ],
)
def test_a_cell_of_a_union_with_text_becomes_a_number_that_says_all_of_it(text: str, expected: Any) -> None:
    assert convert(["null", "long", "double", "string"], text, TEXT) == expected


def test_without_text_in_its_union_a_cell_is_the_number() -> None:
    numbers = [convert(["null", "long", "double"], text, TEXT) for text in ("007", "1.10", "1e3", "1.0")]
    assert numbers == [("long", 7), ("double", 1.1), ("double", 1000.0), ("double", 1.0)]


def test_of_a_union_the_branch_is_taken_that_leaves_out_least() -> None:
    fields = {name: [{"name": each, "type": "long"} for each in name] for name in ("x", "xy", "xyz")}
    records = [{"type": "record", "name": name.upper(), "fields": each} for name, each in fields.items()]
    notes: list[str] = []
    union = ["null", *records]
    converter = record_converter(schema(union), Reading(ignore_extra=True), notes)
    assert converter({"v": {"x": 1, "y": 2}})["v"] == ("XY", {"x": 1, "y": 2})
    assert notes == []
    assert converter({"v": {"x": 1, "y": 2, "w": 3}})["v"] == ("XY", {"x": 1, "y": 2})
    assert len(notes) == 1


@pytest.mark.parametrize("avro_type", ["bytes", FIXED])
def test_bytes_of_json_are_a_character_each(avro_type: Any) -> None:
    json_values = Reading(from_json=True)
    assert convert(avro_type, "a\0\xff", json_values) == b"a\0\xff"
    with pytest.raises(UnfitError, match=r"is no bytes: in JSON, each is a character up to U\+00FF"):
        convert(avro_type, "ab\u0100", json_values)


@pytest.mark.parametrize(
    ("avro_type", "text", "says"),
    [
        ("double", "[12345678901234567890.5]", "has more digits than double holds"),
        ("double", "[1e400]", "has more digits than double holds"),
        ("double", "[1e-99999999999999999999]", "has an exponent of too many digits"),
        ({"type": "map", "values": "long"}, '[{"x": 1, "x": 2}]', "`x` is there twice"),
        (MONEY, "[0.001]", r"does not fit decimal\(6, 2\)"),
        ("long", "[" * 100_000, "nested too deeply"),
    ],
)
def test_json_in_a_cell_keeps_its_digits_and_its_names(avro_type: Any, text: str, says: str) -> None:
    listed = {"type": "array", "items": avro_type}
    with pytest.raises(UnfitError, match=says):
        convert(listed, text, TEXT)
    exact = {"type": "array", "items": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 19}}
    assert convert(exact, "[0.1234567890123456789]", TEXT) == [Decimal("0.1234567890123456789")]


@pytest.mark.parametrize("value", [b"bytes", {1: Decimal}, [{"a": b""}]])
def test_a_value_that_nobody_foresaw_is_refused_with_its_field(value: Any) -> None:
    with pytest.raises(UnfitError, match=r"field `v`: its value cannot be converted \(TypeError\)"):
        convert({"type": "string", "json": True}, value)


def seconds_of(avro_type: Any, value: Any, reading: Reading = TYPED) -> Any:
    return convert(avro_type, value, replace(reading, number_ns={"v": 10**9}))


@pytest.mark.parametrize("reading", [TEXT, TYPED], ids=["cell", "value"])
@pytest.mark.parametrize("avro_type", [MILLIS, ["null", MILLIS]], ids=str)
def test_numbers_for_times_are_in_the_unit_that_was_named(avro_type: Any, reading: Reading) -> None:
    form = str if reading.from_text else lambda value: value
    assert seconds_of(avro_type, form(1_384_300_800), reading) == 1_384_300_800_000
    assert seconds_of(avro_type, form(1384300800.25), reading) == 1_384_300_800_250
    assert seconds_of(avro_type, "2013-11-13T00:00:00Z", reading) == 1_384_300_800_000
    for wrong in (1384300800.0001, 10**20, 1e300, float("nan")):
        with pytest.raises(UnfitError, match="field `v`"):
            seconds_of(avro_type, form(wrong), reading)


def test_numbers_for_days_are_in_the_unit_that_was_named() -> None:
    assert seconds_of(DATE, 86_400 * 16_022) == seconds_of(DATE, date(2013, 11, 13)) == 16_022
    with pytest.raises(UnfitError, match="is finer than its type, which holds days"):
        seconds_of(DATE, 86_401)


def test_a_decimal_of_minus_zero_is_zero() -> None:
    decimal = {"type": "fixed", "name": "D", "size": 5, "logicalType": "decimal", "precision": 9, "scale": 2}
    assert not convert(decimal, Decimal("-0.00")).is_signed()
