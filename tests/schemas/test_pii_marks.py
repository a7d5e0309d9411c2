"""What a schema marks as personal data is found wherever it lies, and a mark that makes no sense is refused."""

import json
from typing import Any

import pytest

from conf.errors import TidemarkError
from schemas.pii_marks import PiiFields, pii_fields_of


def record(*fields: dict[str, Any], name: str = "Person") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def marked(kind: Any, treatment: str = "hash", name: str = "email") -> dict[str, Any]:
    return {"name": name, "type": kind, "pii": treatment}


def test_a_schema_without_marks_has_none() -> None:
    assert not pii_fields_of(json.dumps(record({"name": "id", "type": "string"})))


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
    within = PiiFields({"email": "hash"})
    found = pii_fields_of(json.dumps(record(*fields, name="Order")))
    assert found == PiiFields({"one": within, "many": within, "by_name": within, "phone": "mask", "born": "drop"})
    assert {*found.treatments()} == {"drop", "hash", "mask"}


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (marked("string", "hide"), 'field email: `pii` is "hide"; known: drop, hash, mask'),
        (marked("int", "mask"), "field email: only text can be masked, and this is int; use hash or drop"),
        (marked({"type": "array", "items": "string"}), "field email: only one plain value can be hashed"),
        (marked(["string", "int"]), "only one plain value can be hashed, and this is int, string"),
        (
            {"name": "who", "type": [record(marked("string")), "string"]},
            "field who: a union of several types holds what is marked as personal",
        ),
        ({"name": "boss", "type": ["null", "Outer"]}, "field boss: record Outer holds itself"),
    ],
)
def test_a_mark_that_makes_no_sense_is_refused_with_its_field(field: dict[str, Any], expected: str) -> None:
    with pytest.raises(TidemarkError, match="BAD_SCHEMA") as refused:
        pii_fields_of(json.dumps(record(field, name="Outer")))
    assert expected in str(refused.value)


def test_marks_within_a_named_type_are_found_wherever_it_is_used_though_it_is_defined_in_a_dropped_field() -> None:
    address = record(marked("string", "mask", "street"), {"name": "zip", "type": "string"}, name="Address")
    order = record(marked(address, "drop", "billing"), {"name": "shipping", "type": "Address"}, name="Order")
    assert pii_fields_of(json.dumps(order)) == PiiFields({"billing": "drop", "shipping": PiiFields({"street": "mask"})})


def test_named_types_are_told_apart_by_their_namespaces() -> None:
    masked = {**record(marked("string", "mask", "street"), name="Address"), "namespace": "a"}
    plain = {**record({"name": "street", "type": "string"}, name="Address"), "namespace": "b"}
    uses = [("home", masked), ("site", plain), ("other", "a.Address"), ("work", "b.Address")]
    order = record(*({"name": name, "type": kind} for name, kind in uses), name="Order") | {"namespace": "x"}
    within = PiiFields({"street": "mask"})
    assert pii_fields_of(json.dumps(order)) == PiiFields({"home": within, "other": within})


def on_type(kind: str, treatment: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "pii": treatment, **more}


ENUM = on_type("enum", "hash", name="E", symbols=["A"])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (on_type("string", "hash"), "hash"),
        (["null", on_type("string", "mask")], "mask"),
        ({"type": "array", "items": on_type("string", "mask")}, "mask"),
        ({"type": "map", "values": ["null", on_type("long", "hash")]}, "hash"),
        ({"type": "array", "items": {"type": "array", "items": on_type("string", "hash")}}, "hash"),
        (on_type("array", "drop", items="string"), "drop"),
        (ENUM, "hash"),
        (on_type("fixed", "hash", name="F", size=2), "hash"),
        (on_type("record", "drop", name="Q", fields=[]), "drop"),
        (record(marked("string", "drop"), name="Q"), "drop"),
        ({"type": "array", "items": ["null", record(marked("int", "drop"), name="Q")]}, "drop"),
        (record(marked("string", "drop"), {"name": "k", "type": "int"}, name="Q"), PiiFields({"email": "drop"})),
    ],
)
def test_a_mark_on_a_type_holds_where_the_type_is_used(kind: Any, expected: Any) -> None:
    assert pii_fields_of(json.dumps(record({"name": "id", "type": "int"}, {"name": "f", "type": kind}))) == PiiFields(
        {"f": expected}
    )


def test_a_mark_on_a_named_type_holds_where_its_name_is_used() -> None:
    fields: list[dict[str, Any]] = [
        {"name": "one", "type": ENUM},
        {"name": "two", "type": ["null", "E"]},
        {"name": "id", "type": "int"},
    ]
    assert pii_fields_of(json.dumps(record(*fields))) == PiiFields({"one": "hash", "two": "hash"})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({"type": "array", "items": on_type("string", "drop")}, "what an array holds cannot be dropped from it"),
        ([on_type("string", "hash"), "int"], "a union of several types holds what is marked"),
        ([on_type("null", "hash"), "string"], "only one plain value can be hashed, and this is null"),
        (on_type("string", "HASH"), '`pii` is "HASH"; known: drop, hash, mask'),
        (on_type("enum", "mask", name="E", symbols=["A"]), "only text can be masked, and this is enum"),
        ({"type": "int", "pii": "mask", "logicalType": "date"}, "only text can be masked, and this is int"),
        (on_type("bytes", "mask"), "only text can be masked, and this is bytes"),
        (on_type("record", "hash", name="Q", fields=[]), "only one plain value can be hashed, and this is record"),
        ({"type": "string", "PII": "hash"}, "nothing treats the mark `PII` there"),
        ({"type": "string", "meta": [{"pii": "hash"}]}, "nothing treats the mark `pii` there"),
        ({"type": "string", "pii ": "hash"}, "nothing treats the mark `pii ` there"),
        ({"type": "string", "Pii_": "hash"}, "nothing treats the mark `Pii_` there"),
        ({"type": "string", "items": on_type("string", "hash")}, "nothing treats the mark `pii` there"),
        ({"type": "array", "items": "string", "values": {"PII": "hash"}}, "nothing treats the mark `PII` there"),
        ({"type": "map", "values": "string", "items": on_type("string", "hash")}, "nothing treats the mark `pii`"),
        (["null", {"type": "int", "fields": [marked("string")]}], "nothing treats the mark `pii` there"),
    ],
)
def test_a_mark_that_nothing_would_treat_is_refused(kind: Any, expected: str) -> None:
    text = json.dumps(record({"name": "id", "type": "int"}, {"name": "f", "type": kind}))
    with pytest.raises(TidemarkError, match="BAD_SCHEMA: field f: ") as refused:
        pii_fields_of(text)
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (record(marked("string")) | {"pii": "drop"}, "the event: nothing treats the mark `pii` there"),
        (record(marked("string", "drop")), "the event: every field is dropped"),
        (on_type("string", "hash"), "the event: nothing treats the mark"),
        (record({**marked(on_type("string", "hash")), "pii": "mask"}), "field email: it is marked mask, and its type"),
        (record({**marked("string"), "pii": None}), "field email: `pii` is null"),
    ],
)
def test_a_mark_on_the_whole_event_or_against_another_is_refused(schema: Any, expected: str) -> None:
    with pytest.raises(TidemarkError, match="BAD_SCHEMA") as refused:
        pii_fields_of(json.dumps(schema))
    assert expected in str(refused.value)


@pytest.mark.parametrize("spelt", ["pii ", " pii", "PII", "p-i-i"])
def test_a_mark_of_a_field_that_is_misspelt_is_refused(spelt: str) -> None:
    field = {"name": "f", "type": "string", spelt: "hash"}
    with pytest.raises(TidemarkError, match=f"BAD_SCHEMA: field f: nothing treats the mark `{spelt}` there"):
        pii_fields_of(json.dumps(record(field)))


def test_data_that_looks_like_a_mark_is_none() -> None:
    meta = record({"name": "pii", "type": "string"}, name="Meta")
    assert not pii_fields_of(json.dumps(record({"name": "meta", "type": meta, "default": {"pii": "hash"}})))
