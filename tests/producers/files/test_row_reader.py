"""A record's timestamp is the file's time, to the millisecond, in whatever unit, type and zone the file has it."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import TidemarkError
from producers.files.request import Parts
from producers.files.row_reader import PartsReader
from schemas.values import UnfitError

LOCAL = {"type": "long", "logicalType": "local-timestamp-micros"}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 9}
NEW_YORK = ZoneInfo("America/New_York")


def reader(avro_type: Any, notes: list[str] | None = None, **parts: Any) -> PartsReader:
    schema = {"type": "record", "name": "R", "fields": [{"name": "at", "type": avro_type}]}
    return PartsReader(Parts(None, "at", **parts), json.loads(json.dumps(schema)), notes)


@given(st.integers(1, 253_402_300_799))
def test_epoch_seconds_are_exact_in_every_type(seconds: int) -> None:
    assert reader("long", unit="s").timestamp({"at": seconds}) == seconds * 1000
    assert reader("double", unit="s").timestamp({"at": float(seconds)}) == seconds * 1000
    assert reader(DECIMAL, unit="s").timestamp({"at": Decimal(seconds)}) == seconds * 1000


@given(st.integers(1, 253_402_300_799_999))
def test_fractions_of_a_second_are_exact_too(milliseconds: int) -> None:
    seconds = Decimal(milliseconds) / 1000
    assert reader("double", unit="s").timestamp({"at": float(seconds)}) == milliseconds
    assert reader(DECIMAL, unit="s").timestamp({"at": seconds}) == milliseconds


@pytest.mark.parametrize(
    ("avro_type", "unit", "value", "expected"),
    [
        ("long", "ms", 1_384_300_800_001, 1_384_300_800_001),
        ("long", "us", 1_384_300_800_001_999, 1_384_300_800_001),
        ("long", "ns", 1_384_300_800_001_999_999, 1_384_300_800_001),
        ("double", "s", 1384300800.0009, 1_384_300_800_000),
        ("int", "s", 2**31 - 1, 2_147_483_647_000),
        ("string", "ms", "2013-11-13T00:00:00.0019Z", 1_384_300_800_001),
        ({"type": "int", "logicalType": "date"}, "ms", 16_022, 1_384_300_800_000),
    ],
)
def test_what_is_finer_than_a_millisecond_is_cut_off(avro_type: Any, unit: str, value: Any, expected: int) -> None:
    assert reader(avro_type, unit=unit).timestamp({"at": value}) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.5])
def test_a_number_that_is_no_time_is_refused(value: float) -> None:
    with pytest.raises(UnfitError, match="field `at`"):
        reader("double", unit="s").timestamp({"at": value})


@pytest.mark.parametrize("avro_type", ["boolean", "float", "bytes", {"type": "array", "items": "long"}])
def test_a_field_that_cannot_be_the_event_time_is_named(avro_type: Any) -> None:
    with pytest.raises(TidemarkError, match=r"UNFIT_FIELD: field `at` is .* cannot be the event time"):
        reader(avro_type)


@given(st.integers(1, 10**30), st.sampled_from(["s", "ns"]))
def test_a_time_beyond_what_kafka_takes_is_refused(number: int, unit: str) -> None:
    milliseconds = number * 1000 if unit == "s" else number // 10**6
    parts = reader(DECIMAL, unit=unit)
    if 0 < milliseconds <= 1 << 52:
        assert parts.timestamp({"at": Decimal(number)}) == milliseconds
        return
    with pytest.raises(UnfitError, match=r"field `at`: .*timestamp"):
        parts.timestamp({"at": Decimal(number)})


def test_a_text_may_be_a_time_after_2262() -> None:
    assert reader("string").timestamp({"at": "2300-01-01T00:00:00.0019Z"}) == 10_413_792_000_001


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 2000), st.sampled_from(["", "local-"]))
def test_times_in_nanoseconds_have_a_key_each(value: int, apart: int, prefix: str) -> None:
    kind = {"type": "long", "logicalType": f"{prefix}timestamp-nanos"}
    schema = {"type": "record", "name": "R", "fields": [{"name": "at", "type": kind}]}
    parts = PartsReader(Parts("at", header_fields=["at"]), schema)
    assert parts.key({"at": value}) != parts.key({"at": value - apart})
    assert parts.headers({"at": value}) == [("at", parts.key({"at": value}))]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1_356_998_400_123_456_789, "2013-01-01T00:00:00.123456789Z"),
        (1_356_998_400_000_000_001, "2013-01-01T00:00:00.000000001Z"),
        (1_356_998_400_123_456_000, "2013-01-01T00:00:00.123456Z"),
        (1_356_998_400_000_000_000, "2013-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_the_key_of_a_time_has_the_digits_that_it_needs(value: int, text: str) -> None:
    schema = {"fields": [{"name": "at", "type": {"type": "long", "logicalType": "timestamp-nanos"}}]}
    assert PartsReader(Parts("at"), schema).key({"at": value}) == text


def local(*shown: int) -> int:
    return int((datetime(*shown, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 10**6  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(("ambiguous", "hour"), [("earlier", 5), ("later", 6)])
def test_a_local_time_shown_twice_is_taken_as_said_and_noted(ambiguous: str, hour: int) -> None:
    notes: list[str] = []
    found = reader(LOCAL, notes, zone=NEW_YORK, ambiguous=ambiguous).timestamp({"at": local(2013, 11, 3, 1, 30)})
    assert datetime.fromtimestamp(found / 1000, UTC) == datetime(2013, 11, 3, hour, 30, tzinfo=UTC)
    assert notes == [f"a time that the clocks of America/New_York showed twice, taken as the {ambiguous}"]


def test_a_local_time_that_never_was_is_refused_and_a_day_has_a_start_all_the_same() -> None:
    with pytest.raises(UnfitError, match=r"02:30:00 was never shown by the clocks of America/New_York"):
        reader(LOCAL, zone=NEW_YORK).timestamp({"at": local(2013, 3, 10, 2, 30)})
    # Beirut's clocks went from midnight to one o'clock.
    day = {"at": (datetime(2022, 3, 27) - datetime(1970, 1, 1)).days}
    found = reader({"type": "int", "logicalType": "date"}, zone=ZoneInfo("Asia/Beirut")).timestamp(day)
    assert datetime.fromtimestamp(found / 1000, ZoneInfo("Asia/Beirut")) == datetime(
        2022, 3, 27, 1, tzinfo=ZoneInfo("Asia/Beirut")
    )
