"""Random schemas, values and newer versions: what the JVM makes of the bytes is what fastavro makes of them."""

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import SchemaParseException
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from schemas.codec import reader as strict_reader
from tests.jobs.connectors.avro.avro_examples import collected, fields, fixed_size, in_spark, named, types, values
from tests.jobs.connectors.avro.framed import accepted, body, framed, version

FIELDS, VALUES = 16, 12
DEFAULTS: list[tuple[Any, Any]] = [
    ("boolean", True),
    ("int", -7),
    ("string", "ü"),
    ("bytes", "\u00ff"),
    ({"type": "enum", "name": "New", "symbols": ["X", "Y"]}, "Y"),
    ({"type": "array", "items": "boolean"}, [True, False]),
    ({"type": "map", "values": "int"}, {"k": 1}),
    ({"type": "record", "name": "Part", "fields": [{"name": "ok", "type": "boolean"}]}, {"ok": True}),
    (["null", "string"], None),
]
WIDER = {"int": ["long", "float", "double"], "long": ["float", "double"], "float": ["double"]}


def examples(count: int) -> Callable[[Any], Any]:
    # Every example is a Spark job of its own: fields and values are many, examples few, and none is tried again. They
    # are the same whenever the same modules are loaded: Hypothesis draws some values out of the constants in them, so
    # that a run of this file alone may see others than a run of all tests.
    phases = (Phase.explicit, Phase.generate)
    off = list(HealthCheck)
    return settings(
        max_examples=count, deadline=None, database=None, phases=phases, suppress_health_check=off, derandomize=True
    )


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Collected, an instant comes in this machine's time zone."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@st.composite
def records(draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A record's schema, and values of it."""
    kinds = draw(st.lists(types(), min_size=FIELDS, max_size=FIELDS))
    schema = named({"type": "record", "fields": fields(kinds)}, "Event")
    return schema, draw(st.lists(values(schema), min_size=VALUES, max_size=VALUES))


def check(spark: SparkSession, writer: Any, events: Sequence[dict[str, Any]], reader: Any) -> None:
    old, new = version(1, json.dumps(writer)), version(2, json.dumps(reader))
    bodies = [body(old.text, event) for event in events]
    expected = [read(payload, writer, reader) for payload in bodies]
    strict = strict_reader(old.text)
    assert [collected(strict(payload)) for payload in bodies] == [
        collected(read(each, writer, writer)) for each in bodies
    ]
    found = accepted(spark, [framed(old, event) for event in events], old, new)
    assert [collected(row) for row in found] == [in_spark(value, reader) for value in expected]


def read(payload: bytes, writer: Any, reader: Any) -> Any:
    return schemaless_reader(io.BytesIO(payload), parse_schema(writer), parse_schema(reader))


@pytest.mark.parametrize("precision", range(1, 39))
def test_a_fixed_of_the_smallest_size_that_is_drawn_holds_its_decimal_and_none_is_smaller(precision: int) -> None:
    fixed = {"type": "fixed", "name": "F", "logicalType": "decimal", "precision": precision}
    parse_schema({**fixed, "size": fixed_size(precision)})
    with pytest.raises(SchemaParseException, match="doesn't fit"):
        parse_schema({**fixed, "size": fixed_size(precision) - 1})


@examples(2)
@given(records())
def test_every_value_of_every_type_is_fastavros(spark: SparkSession, example: Any) -> None:
    schema, events = example
    check(spark, schema, events, schema)


@pytest.mark.exhaustive
@pytest.mark.slow
@examples(30)
@given(records())
def test_every_value_of_many_more_schemas_is_fastavros(spark: SparkSession, example: Any) -> None:
    schema, events = example
    check(spark, schema, events, schema)


@st.composite
def newer(draw: Callable[[st.SearchStrategy[Any]], Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A later version: fields added with defaults, dropped, renamed, moved, promoted, made optional."""
    kept = [_changed(draw, field) for field in schema["fields"] if draw(st.integers(0, 4))]
    chosen = draw(st.lists(st.sampled_from(range(len(DEFAULTS))), unique=True, max_size=4))
    added = [{"name": f"new{n}", "type": DEFAULTS[n][0], "default": DEFAULTS[n][1]} for n in chosen]
    return {**schema, "fields": draw(st.permutations([*kept, *added]))}


def _changed(draw: Callable[[st.SearchStrategy[Any]], Any], field: dict[str, Any]) -> dict[str, Any]:
    kind = field["type"]
    if isinstance(kind, str) and kind in WIDER:
        kind = draw(st.sampled_from([kind, *WIDER[kind]]))
    if isinstance(kind, dict) and kind["type"] == "enum":
        kind = {**kind, "symbols": ["D", "A"], "default": "D"}
    if kind != "null" and not isinstance(kind, list) and draw(st.booleans()):
        kind = ["null", kind]
    named_anew = {"name": f"{field['name']}_new", "aliases": [field["name"]]} if draw(st.booleans()) else {}
    return {**field, "type": kind, **named_anew}


@st.composite
def evolved(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    # fastavro reads bytes as the first branch that they can be promoted to, text too; Java as the branch that they are.
    writer, events = draw(records().filter(lambda drawn: not mixes_text_and_bytes(drawn[0])))
    return writer, events, draw(newer(writer))


def mixes_text_and_bytes(schema: Any) -> bool:
    """Whether some union anywhere in `schema` has both a branch of text and one of bytes."""
    if isinstance(schema, list):
        kinds = {branch["type"] if isinstance(branch, dict) else branch for branch in schema}
        return kinds >= {"string", "bytes"} or any(mixes_text_and_bytes(branch) for branch in schema)
    if not isinstance(schema, dict):
        return False
    inner = [field["type"] for field in schema.get("fields", [])] + [schema.get("items"), schema.get("values")]
    return mixes_text_and_bytes(schema["type"]) or any(mixes_text_and_bytes(each) for each in inner)


def test_a_union_of_text_and_bytes_is_found_wherever_it_is() -> None:
    union = ["null", {"type": "string", "logicalType": "uuid"}, "bytes"]
    record = {"type": "record", "name": "R", "fields": [{"name": "f", "type": {"type": "map", "values": union}}]}
    assert mixes_text_and_bytes(record)
    assert not mixes_text_and_bytes({**record, "fields": [{"name": "f", "type": ["null", "string", "int"]}]})


@examples(2)
@given(evolved())
def test_every_value_in_a_newer_version_is_fastavros(spark: SparkSession, example: Any) -> None:
    check(spark, *example)


@pytest.mark.exhaustive
@pytest.mark.slow
@examples(30)
@given(evolved())
def test_every_value_in_many_more_newer_versions_is_fastavros(spark: SparkSession, example: Any) -> None:
    check(spark, *example)
