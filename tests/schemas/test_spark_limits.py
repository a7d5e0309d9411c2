"""A schema whose events no table could hold is refused with its field, before a job runs."""

import json
from typing import Any

import pytest

from conf.errors import TidemarkError
from schemas.contracts import contract, contract_names, require_event
from schemas.spark_limits import COLUMNS, READER_COLUMNS, event_schema
from tests.schemas.hostile_schemas import array, field, fixed, inner, record

ID = {"name": "id", "type": "int"}


def decimal(precision: int, kind: Any = "bytes", **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": "decimal", "precision": precision, **more}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("string", "an event must be a record"),
        (record({"name": "l", "type": inner(field(decimal(50)))}), "field l.a: a decimal of 50 digits"),
        (record(field(array(["null", decimal(39, scale=4)]))), "field a: a decimal of 39 digits"),
        (record(field({**fixed(20), **decimal(40, "fixed")})), "field a: a decimal of 40 digits"),
        (record(ID, {"name": "ID", "type": "int"}), "`R` has two fields `id` that differ in case alone"),
        (record(field(inner(ID, {"name": "Id", "type": "int"}))), "field a: `Q` has two fields `id`"),
        (record(field(["null", "R"])), "field a: record `R` holds itself"),
        (record(field(array("null"))), "field a: array of items that take no bytes"),
        (record({"name": "tidemark_end", "type": "int"}), "field tidemark_end: silver has a column"),
        *(
            (
                record({"name": name.upper(), "type": "int"}),
                f"field {name.upper()}: Spark's reader of tables has a column",
            )
            for name in sorted(READER_COLUMNS)
        ),
        (record(field(fixed(1, namespace="tidemark.wire"))), "field a: `tidemark.wire.F` is in a namespace"),
        (record(field(["string", "boolean"], default=True)), "field a: its default is a boolean of a union"),
        (record(field(array(["boolean", "string"]), default=["x"])), "field a: its default is a string of a union"),
    ],
)
def test_what_no_table_can_hold_is_refused_with_its_field(schema: Any, says: str) -> None:
    with pytest.raises(TidemarkError, match="BAD_SCHEMA: ") as refused:
        event_schema(json.dumps(schema))
    assert says in str(refused.value)


NULL = {"name": "n", "type": "null"}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (record(ID, field([])), "field a: nothing but null can be there"),
        (record(ID, field(["null"])), "field a: nothing but null can be there"),
        (record(ID, field(array(["null"]))), "field a: nothing but null can be there"),
        (record(ID, field(inner())), "field a: record `Q` has no fields that hold anything"),
        (record(ID, field(["null", "int", inner()])), "field a: record `Q` has no fields"),
        (record(ID, field(inner(NULL))), "field a: record `Q` has no fields"),
        (record(ID, field(inner(ID, {"name": "b", "type": {**inner(), "name": "P"}}))), "field a.b: record `P` has no"),
        (record(ID, field(array(inner(ID, NULL)))), "field a.n: nothing but null can be there"),
    ],
)
def test_what_delta_has_no_column_for_is_refused_with_its_field(schema: Any, says: str) -> None:
    with pytest.raises(TidemarkError, match="BAD_SCHEMA: ") as refused:
        require_event("rs-value", json.dumps(schema))
    assert says in str(refused.value)


@pytest.mark.parametrize("name", [*sorted(COLUMNS), "_Offset", "_TOPIC"])
def test_a_field_named_like_a_column_of_silver_is_refused_whatever_its_case(name: str) -> None:
    text = json.dumps(record({"name": name, "type": "int"}, ID))
    with pytest.raises(TidemarkError, match=f"BAD_SCHEMA: rs-value: field {name}: silver has a column"):
        require_event("rs-value", text)


@pytest.mark.parametrize(
    "schema",
    [
        record(field(decimal(38, scale=38)), {"name": "offset", "type": "int"}, {"name": "__deleted", "type": "int"}),
        record(field(inner({"name": "_offset", "type": "int"}))),
        record(field({"type": "bytes", "logicalType": "decimal", "precision": 64, "scale": 127})),
        record({"name": "offset", "type": "int", "aliases": ["_offset"]}),
        record(ID, NULL, field(inner(ID, NULL)), {"name": "b", "type": array(["null", {**fixed(0), "name": "F"}])}),
        record(),
    ],
)
def test_what_a_table_can_hold_is_taken(schema: Any) -> None:
    require_event("rs-value", json.dumps(schema))


@pytest.mark.parametrize("name", contract_names())
def test_the_contracts_are_events(name: str) -> None:
    require_event("any-value", contract(name))
