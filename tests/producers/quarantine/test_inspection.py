"""A rejected record is read as far as it can be, and the bytes where that ends are shown."""

import io
import json
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer

from conf.topics import subject_of
from producers.quarantine import inspection
from schemas.codec import frame
from tests.producers.quarantine.ward import Ward, printed_objects, rejected

PLACE = {"type": "record", "name": "Place", "fields": [{"name": "code", "type": "string"}]}
FIELDS = [
    {"name": "id", "type": "string"},
    {"name": "origin", "type": PLACE},
    {"name": "destination", "type": "Place"},
    {"name": "minutes", "type": "int"},
]
FLIGHT = {"type": "record", "name": "Flight", "fields": FIELDS}
VALUE = {"id": "a1", "origin": {"code": "JFK"}, "destination": {"code": "LAX"}, "minutes": 3}


def encoded(value: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    schemaless_writer(buffer, parse_schema(FLIGHT), value)
    return buffer.getvalue()


@pytest.fixture
def schema_id(ward: Ward) -> int:
    return ward.registry.register(subject_of(ward.topic), json.dumps(FLIGHT))


def reading(ward: Ward, value: bytes | None) -> inspection.Reading:
    return inspection.read(rejected(ward.topic, 1, value=value), ward.registry)


def test_fields_before_the_failing_byte_are_read_and_the_failing_one_is_named(ward: Ward, schema_id: int) -> None:
    found = reading(ward, frame(schema_id, encoded(VALUE)[:-3]))
    assert found.fields == {"id": "a1", "origin": {"code": "JFK"}}
    assert (found.failed, found.at) == ("destination", 5 + 3 + 4)
    assert found.schema == f"schema id {schema_id}, {ward.topic}-value version 1"


def test_bytes_after_the_last_field_are_counted(ward: Ward, schema_id: int) -> None:
    whole = encoded(VALUE)
    found = reading(ward, frame(schema_id, whole + b"more"))
    assert (found.fields, found.failed) == (VALUE, "")
    assert (found.at, found.problem) == (5 + len(whole), "4 bytes follow the last field")


def test_a_whole_value_has_no_problem(ward: Ward, schema_id: int) -> None:
    assert reading(ward, frame(schema_id, encoded(VALUE))).problem == ""


def test_what_cannot_even_begin_is_told(ward: Ward, schema_id: int) -> None:
    assert reading(ward, None).problem == "there is no value"
    assert reading(ward, b"{}").problem == "a value of 2 bytes is shorter than the 5-byte header"
    unknown = reading(ward, frame(schema_id + 7, b""))
    assert (unknown.schema, unknown.problem) == (
        f"schema id {schema_id + 7}",
        "no schema with this id is registered",
    )


def test_a_schema_of_another_topic_is_told(ward: Ward) -> None:
    other = ward.registry.register("others-value", json.dumps(FLIGHT))
    assert reading(ward, frame(other, encoded(VALUE))).schema.endswith(f", which is none of topic {ward.topic}")


def test_the_bytes_around_the_failure_are_shown_with_a_mark() -> None:
    lines = inspection.hex_lines(b"0123456789abcdef" * 10, 100)
    assert len(lines) == 7
    assert lines[3] == "    60  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef  <- byte 100"
    assert lines[0].startswith("    30  ")


def test_the_command_shows_records_in_their_order_page_by_page(
    ward: Ward, schema_id: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ward.reject(*({"offset": offset} for offset in (3, 1)))
    ward.reject({"offset": 2, "value": frame(schema_id, encoded(VALUE)[:-3]), "error": "UNDECODABLE"})
    assert ward.run("inspect", "--limit", "2", "--skip", "1", "--json") == 0
    second, third = printed_objects(capsys.readouterr().out)
    assert (second["offset"], second["failed_field"], second["fields"]["id"]) == (2, "destination", "a1")
    assert (third["offset"], third["problem"], third["redriven"]) == (
        3,
        "a value of 1 bytes is shorter than the 5-byte header",
        False,
    )


def test_people_get_all_that_is_known_of_a_record(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    ward.reject({"offset": 1, "key": b"\x00\xff", "headers": [{"key": "trace", "value": b"abc"}]})
    ward.run("redrive", "--all")
    capsys.readouterr()
    assert ward.run("inspect", f"{ward.topic}/0/1") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{ward.topic}/0/1  BAD_FRAMING: for a test",
        "  redriven    yes",
        "  quarantined 2026-03-01T12:00:00+00:00 by 0.1.0+test",
        "  key         0x00ff",
        "  header      trace = 'abc'",
        "  framing     none",
        "  problem     a value of 1 bytes is shorter than the 5-byte header",
        "       0  76                                               v  <- byte 0",
        "",
    ]


def test_a_claim_of_a_billion_items_costs_nothing(ward: Ward) -> None:
    listing = {
        "type": "record",
        "name": "Listing",
        "fields": [{"name": "n", "type": {"type": "array", "items": "null"}}],
    }
    schema_id = ward.registry.register(f"{ward.topic}-value", json.dumps(listing))
    found = reading(ward, frame(schema_id, b"\x80\xa8\xd6\xb9\x07"))
    assert (found.failed, found.problem) == ("n", "in the body, 1000000000 items are claimed before byte 5")


def test_what_a_schema_marks_as_personal_is_not_shown_nor_the_bytes_unless_it_is_asked_for(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    marked = {
        "type": "record",
        "name": "Flight",
        "fields": [{"name": "id", "type": "string", "pii": "hash"}, *FIELDS[1:]],
    }
    schema_id = ward.registry.register(subject_of(ward.topic), json.dumps(marked))
    value = encoded(VALUE | {"id": "anna@example.org"})
    header = {"key": "trace", "value": b"anna"}
    ward.reject({"offset": 1, "value": frame(schema_id, value[:-3]), "key": b"anna", "headers": [header]})
    ward.reject({"offset": 2, "value": b"anna, without framing", "key": None})
    ward.reject({"offset": 3, "value": frame(schema_id, value[:4]), "key": b"anna"})
    for options in ((), ("--json",)):
        assert ward.run("inspect", *options) == 0
        out = capsys.readouterr().out
        assert "anna" not in out
        assert b"anna".hex(" ") not in out
        assert "YW5uY" not in out  # as base64 has it
        assert "JFK" in out
        assert out.count("(personal data)") >= 6
    assert ward.run("inspect", "--personal") == 0
    assert capsys.readouterr().out.count("anna") >= 5
