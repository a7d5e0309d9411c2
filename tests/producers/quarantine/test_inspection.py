"""A rejected record is read as far as it can be; what any version of its topic's schemas marks is hidden."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer

from conf.topics import subject_of
from producers.quarantine import inspection
from producers.quarantine.inspection import HIDDEN
from producers.quarantine.records import Coordinates, Rejected
from producers.quarantine.worker import ask_person
from schemas.codec import Encoder, frame
from schemas.registry import FileRegistry
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


SECRET = "anna@x.example"
ID: dict[str, Any] = {"name": "id", "type": "int"}


def text(name: str, *aliases: str, kind: Any = "string", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **({"aliases": list(aliases)} if aliases else {}), **more}


def person(*fields: dict[str, Any], name: str = "Person") -> str:
    return json.dumps({"type": "record", "name": name, "fields": [ID, *fields]})


def all_shown(registry: FileRegistry, row: Rejected) -> str:
    """All that people and programs are shown of a record, and who resolves it by hand."""
    reading = inspection.read(row, registry)
    by_hand: list[str] = []
    ask_person(registry, lambda question: "r", by_hand.append)(row, 1)
    envelope = json.dumps(inspection.to_json(row, reading, None), default=str)
    return "\n".join([*inspection.lines(row, reading, None), *by_hand, envelope])


def person_record(schema_id: int, schema: str, value: dict[str, Any], topic: str = "people") -> Rejected:
    row = {"id": -1, **value}
    return Rejected(Coordinates(topic, 0, schema_id), SECRET.encode(), Encoder(schema_id, schema)(row))


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "registry")


CONTACT = {"type": "record", "name": "Contact", "fields": [text("email")]}
MARKED_CONTACT = {"type": "record", "name": "Contact", "fields": [text("email", pii="hash")]}


@pytest.mark.parametrize(
    ("versions", "value"),
    [
        ([[text("email")], [text("email", pii="hash")]], {"email": SECRET}),
        ([[text("email", pii="hash")], [text("email")]], {"email": SECRET}),
        ([[text("email")], [text("mail", "email", pii="mask")]], {"email": SECRET}),
        ([[text("email")], [text("mail", "email")], [text("address", "mail", pii="drop")]], {"email": SECRET}),
        ([[text("who", kind=CONTACT)], [text("who", kind=MARKED_CONTACT)]], {"who": {"email": SECRET}}),
        ([[text("who", kind=CONTACT)], [text("whom", "who", kind=MARKED_CONTACT)]], {"who": {"email": SECRET}}),
        ([[text("email")], [text("email", kind={"type": "string", "pii": "hash"})]], {"email": SECRET}),
    ],
)
def test_a_field_that_another_version_marks_is_hidden_under_each_of_its_names(
    versions: Sequence[Sequence[dict[str, Any]]], value: dict[str, Any], registry: FileRegistry
) -> None:
    texts = [person(*fields) for fields in versions]
    first, *_ = [registry.register("people-value", each) for each in texts]
    row = person_record(first, texts[0], value)
    found = inspection.read(row, registry)
    assert (found.fields, found.hides) == ({"id": -1, next(iter(value)): HIDDEN}, True)
    assert SECRET not in all_shown(registry, row)
    assert inspection.read(row, registry, personal=True).fields == {"id": -1, **value}


def test_a_schema_of_another_topic_is_hidden_whole_where_this_one_has_marks(registry: FileRegistry) -> None:
    registry.register("people-value", person(text("email", pii="hash")))
    other = person(text("note"), name="Other")
    row = person_record(registry.register("logs-value", other), other, {"note": SECRET})
    assert inspection.read(row, registry).fields == {"id": HIDDEN, "note": HIDDEN}
    assert SECRET not in all_shown(registry, row)


def test_a_schema_of_another_topic_has_the_marks_of_its_later_versions(registry: FileRegistry) -> None:
    registry.register("logs-value", person(text("note"), name="Other"))
    unmarked = person(text("email"))
    row = person_record(registry.register("people-value", unmarked), unmarked, {"email": SECRET}, topic="logs")
    assert not inspection.read(row, registry).hides
    registry.register("people-value", person(text("email", pii="hash")))
    assert inspection.read(row, registry).fields == {"id": -1, "email": HIDDEN}


def test_marks_of_a_topic_whose_name_begins_alike_are_its_own(registry: FileRegistry) -> None:
    registry.register("people-archive-value", person(text("email", pii="hash"), name="Archived"))
    plain = person(text("email"))
    row = person_record(registry.register("people-value", plain), plain, {"email": SECRET})
    assert inspection.read(row, registry).fields == {"id": -1, "email": SECRET}


def test_the_problem_that_may_quote_a_value_is_hidden_with_its_field(registry: FileRegistry) -> None:
    unmarked = person(text("email"))
    schema_id = registry.register("people-value", unmarked)
    registry.register("people-value", person(text("email", pii="hash")))
    row = Rejected(Coordinates("people", 0, 1), None, frame(schema_id, b"\x01\x0c\xff\xffanna"))
    found = inspection.read(row, registry)
    assert (found.failed, found.problem) == ("email", HIDDEN)
    assert inspection.read(row, registry, personal=True).problem.startswith("in the body, ")


@pytest.mark.parametrize("mark", ["pii", "PII", "pii ", "\u0050ii"])
def test_marks_that_make_no_sense_hide_everything(mark: str, registry: FileRegistry) -> None:
    plain = person(text("email"))
    row = person_record(registry.register("people-value", plain), plain, {"email": SECRET})
    registry.register("people-value", json.dumps({**json.loads(plain), mark: "hide"}))
    assert inspection.read(row, registry).fields == {"id": HIDDEN, "email": HIDDEN}


def test_a_schema_that_is_no_record_is_told(registry: FileRegistry) -> None:
    row = Rejected(Coordinates("people", 0, 1), None, frame(registry.register("people-value", '"string"'), b"\x08anna"))
    assert inspection.read(row, registry).problem == "its schema is no record"
