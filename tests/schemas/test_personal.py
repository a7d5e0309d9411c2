"""What a schema marks as personal data is found wherever it lies, and a mark that makes no sense is refused."""

import json
from typing import Any

import pytest

from conf.errors import TidemarkError
from schemas.personal import Marks, marks_of


def record(*fields: dict[str, Any], name: str = "Person") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def marked(kind: Any, treatment: str = "hash", name: str = "email") -> dict[str, Any]:
    return {"name": name, "type": kind, "pii": treatment}


def test_a_schema_without_marks_has_none() -> None:
    assert not marks_of(json.dumps(record({"name": "id", "type": "string"})))


def test_marks_are_found_in_records_arrays_maps_and_unions_with_null_and_by_name() -> None:
    person = record(marked("string"))
    fields: list[dict[str, Any]] = [
        {"name": "one", "type": person},
        {"name": "many", "type": {"type": "array", "items": "Person"}},
        {"name": "by_name", "type": ["null", {"type": "map", "values": "Person"}]},
        {"name": "plain", "type": {"type": "array", "items": "string"}},
        marked(["null", "string"], "mask", "phone"),
        marked({"type": "long", "logicalType": "timestamp-millis"}, "drop", "born"),
    ]
    within = Marks({"email": "hash"})
    found = marks_of(json.dumps(record(*fields, name="Order")))
    assert found == Marks({"one": within, "many": within, "by_name": within, "phone": "mask", "born": "drop"})
    assert sorted(found.treatments()) == ["drop", "hash", "hash", "hash", "mask"]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (marked("string", "hide"), 'field email: `pii` is "hide"; known: drop, hash, mask'),
        (marked("int", "mask"), "field email: only text can be masked, and this is int; use hash or drop"),
        (marked({"type": "array", "items": "string"}), "field email: only one plain value can be hashed"),
        (marked(["string", "int"]), "only one plain value can be hashed, and this is int, string"),
        (
            {"name": "who", "type": [record(marked("string")), "string"]},
            "field who: a union of several types holds fields marked as personal",
        ),
        ({"name": "boss", "type": ["null", "Outer"]}, "field boss: record Outer holds itself"),
    ],
)
def test_a_mark_that_makes_no_sense_is_refused_with_its_field(field: dict[str, Any], expected: str) -> None:
    with pytest.raises(TidemarkError, match="BAD_SCHEMA") as refused:
        marks_of(json.dumps(record(field, name="Outer")))
    assert expected in str(refused.value)
