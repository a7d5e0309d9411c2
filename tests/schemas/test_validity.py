"""Only what every reader accepts is a schema."""

import json
from typing import Any

import pytest

from conf.errors import TidemarkError
from schemas.contracts import contract, contract_names
from schemas.validity import load_schema, normalized


def record(*fields: Any) -> str:
    return json.dumps({"type": "record", "name": "R", "fields": list(fields)})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "JSONDecodeError"),
        ("7", "TypeError|SchemaParseException|AttributeError"),
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
            record({"name": "a", "type": ["int", "null"], "default": None}),
            "must be of the union's first type, int",
        ),
        (
            record({"name": "a", "type": ["null", "int"], "default": 3}),
            "must be of the union's first type, null",
        ),
        (record({"name": "a", "type": "int", "default": "x"}), "must match schema type"),
        (record({"name": "a", "type": {"type": "array"}}), "items"),
        (record({"name": "a", "type": {"type": "array", "items": ["int", "int"]}}), "repeats a type"),
    ],
)
def test_a_schema_that_java_would_refuse_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(TidemarkError, match=f"INVALID_SCHEMA: .*({says})"):
        load_schema(text)


@pytest.mark.parametrize("name", contract_names())
def test_the_contracts_are_valid(name: str) -> None:
    assert load_schema(contract(name)) == json.loads(contract(name))


def test_normalizing_keeps_docs_defaults_and_the_order_of_fields() -> None:
    text = record({"type": "int", "name": "b", "doc": "é"}, {"name": "a", "type": "int", "default": 0})
    assert normalized(text) == (
        '{"fields":[{"doc":"é","name":"b","type":"int"},{"default":0,"name":"a","type":"int"}],'
        '"name":"R","type":"record"}'
    )
