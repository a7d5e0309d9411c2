"""Only what every reader accepts is a schema."""

import json
from typing import Any

import pytest

from conf.errors import TidemarkError
from schemas.contracts import contract, contract_names
from schemas.schema_text import normalized
from schemas.validity import is_valid, load_schema, parse_text
from tests.schemas.hostile_schemas import IGNORED, RAW_REFUSED, REFUSED, SOUND
from tests.schemas.hostile_schemas import field as field_
from tests.schemas.hostile_schemas import record as record_


def record(*fields: Any) -> str:
    return json.dumps({"type": "record", "name": "R", "fields": list(fields)})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "JSONDecodeError"),
        ("7", "7 is no type"),
        ('{"type": "recrod"}', "recrod"),
        ('{"type": "record", "name": "R"}', "record `R` has no list of fields"),
        ('{"type": "record", "name": "1R", "fields": []}', "`1R` is no Avro name"),
        (record({"name": "a b", "type": "int"}), "field `a b` of `R`: this is no Avro name"),
        (
            record({"name": "a", "type": "int"}, {"name": "a", "type": "int"}),
            "field `a` of `R` is there twice",
        ),
        (record({"name": "a", "type": ["int", "int"]}), "repeats a type: int, int"),
        (
            record({"name": "a", "type": ["int", "null"], "default": "x"}),
            'the default "x" is of none of the union\'s types',
        ),
        (record({"name": "a", "type": "int", "default": "x"}), 'the default "x" is none that int can hold'),
        (record({"name": "a", "type": {"type": "array"}}), "items"),
        (record({"name": "a", "type": {"type": "array", "items": ["int", "int"]}}), "repeats a type"),
    ],
)
def test_a_schema_that_java_would_refuse_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(TidemarkError, match=f"INVALID_SCHEMA: .*({says})"):
        load_schema(text)


@pytest.mark.parametrize("name", [*REFUSED, *RAW_REFUSED])
def test_what_some_reader_refuses_or_takes_for_something_else_is_refused_with_the_place(name: str) -> None:
    text, says = RAW_REFUSED[name] if name in RAW_REFUSED else (json.dumps(REFUSED[name][0]), REFUSED[name][1])
    with pytest.raises(TidemarkError, match=r"INVALID_SCHEMA: not a valid Avro schema: ") as refused:
        load_schema(text)
    assert says in str(refused.value)
    assert not is_valid(text)


@pytest.mark.parametrize("name", SOUND)
def test_what_every_reader_takes_is_a_schema(name: str) -> None:
    text = json.dumps(SOUND[name])
    assert load_schema(text) == SOUND[name]
    assert json.loads(normalized(text)) == SOUND[name]


@pytest.mark.parametrize("name", IGNORED)
def test_a_logical_type_that_means_nothing_where_it_stands_is_ignored_and_is_part_of_the_text(name: str) -> None:
    kind, _ = IGNORED[name]
    text = json.dumps(record_(field_(kind)))
    plain = {key: value for key, value in kind.items() if key != "logicalType"}
    assert load_schema(text) == record_(field_(plain))
    assert "logicalType" not in str(parse_text(text))
    assert "logicalType" in normalized(text)


@pytest.mark.parametrize(
    "kind",
    [
        {"type": "bytes", "logicalType": "decimal", "precision": 64, "scale": 64},
        {"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 4},
        {"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"},
        {"type": "long", "logicalType": "timestamp-nanos"},
    ],
)
def test_a_logical_type_that_means_something_stays(kind: Any) -> None:
    assert load_schema(json.dumps(record_(field_(kind)))) == record_(field_(kind))


@pytest.mark.parametrize("name", contract_names())
def test_the_contracts_are_valid(name: str) -> None:
    assert load_schema(contract(name)) == json.loads(contract(name))


def test_normalizing_keeps_docs_defaults_and_the_order_of_fields() -> None:
    text = record({"type": "int", "name": "b", "doc": "é"}, {"name": "a", "type": "int", "default": 0})
    assert normalized(text) == (
        '{"fields":[{"doc":"é","name":"b","type":"int"},{"default":0,"name":"a","type":"int"}],'
        '"name":"R","type":"record"}'
    )
