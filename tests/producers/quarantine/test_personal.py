"""What any version of a topic's schemas marks is hidden in every record of the topic, whichever version wrote it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from producers.quarantine import inspection
from producers.quarantine.inspection import HIDDEN
from producers.quarantine.records import Coordinates, Rejected
from producers.quarantine.worker import ask_person
from schemas.codec import Encoder, frame
from schemas.registry import FileRegistry

SECRET = "anna@x.example"
ID: dict[str, Any] = {"name": "id", "type": "int"}


def text(name: str, *aliases: str, kind: Any = "string", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **({"aliases": list(aliases)} if aliases else {}), **more}


def person(*fields: dict[str, Any], name: str = "Person") -> str:
    return json.dumps({"type": "record", "name": name, "fields": [ID, *fields]})


def shown(registry: FileRegistry, row: Rejected) -> str:
    """All that people and programs are shown of a record, and who resolves it by hand."""
    reading = inspection.read(row, registry)
    by_hand: list[str] = []
    ask_person(registry, lambda question: "r", by_hand.append)(row, 1)
    envelope = json.dumps(inspection.to_json(row, reading, None))
    return "\n".join([*inspection.lines(row, reading, None), *by_hand, envelope])


def rejected(schema_id: int, schema: str, value: dict[str, Any], topic: str = "people") -> Rejected:
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
    row = rejected(first, texts[0], value)
    found = inspection.read(row, registry)
    assert (found.fields, found.hides) == ({"id": -1, next(iter(value)): HIDDEN}, True)
    assert SECRET not in shown(registry, row)
    assert inspection.read(row, registry, personal=True).fields == {"id": -1, **value}


def test_a_schema_of_another_topic_is_hidden_whole_where_this_one_has_marks(registry: FileRegistry) -> None:
    registry.register("people-value", person(text("email", pii="hash")))
    other = person(text("note"), name="Other")
    row = rejected(registry.register("logs-value", other), other, {"note": SECRET})
    assert inspection.read(row, registry).fields == {"id": HIDDEN, "note": HIDDEN}
    assert SECRET not in shown(registry, row)


def test_a_schema_of_another_topic_has_the_marks_of_its_later_versions(registry: FileRegistry) -> None:
    registry.register("logs-value", person(text("note"), name="Other"))
    unmarked = person(text("email"))
    row = rejected(registry.register("people-value", unmarked), unmarked, {"email": SECRET}, topic="logs")
    assert not inspection.read(row, registry).hides
    registry.register("people-value", person(text("email", pii="hash")))
    assert inspection.read(row, registry).fields == {"id": -1, "email": HIDDEN}


def test_marks_of_a_topic_whose_name_begins_alike_are_its_own(registry: FileRegistry) -> None:
    registry.register("people-archive-value", person(text("email", pii="hash"), name="Archived"))
    plain = person(text("email"))
    row = rejected(registry.register("people-value", plain), plain, {"email": SECRET})
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
    row = rejected(registry.register("people-value", plain), plain, {"email": SECRET})
    registry.register("people-value", json.dumps({**json.loads(plain), mark: "hide"}))
    assert inspection.read(row, registry).fields == {"id": HIDDEN, "email": HIDDEN}


def test_a_schema_that_is_no_record_is_told(registry: FileRegistry) -> None:
    row = Rejected(Coordinates("people", 0, 1), None, frame(registry.register("people-value", '"string"'), b"\x08anna"))
    assert inspection.read(row, registry).problem == "its schema is no record"
