"""The types of a union stay in the members that they came to; columns are those that the gate takes them for."""

import json
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql.types import (
    BinaryType,
    BooleanType,
    DataType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    NullType,
    StringType,
)

from conf.errors import TidemarkError
from jobs.connectors.avro import decode
from jobs.connectors.avro.spark_schema import moves, promoted_ints
from jobs.connectors.delta.schema_evolution import is_widening
from schemas.silver_columns import Column, column_of, columns_over, conflicts_of
from schemas.spark_limits import NamedTypes
from schemas.validity import parse_text
from tests.jobs.connectors.avro.framed import accepted, framed, records, version
from tests.jobs.connectors.avro.test_property import examples
from tests.jobs.connectors.avro.test_property import records as drawn_records
from tests.schemas.test_silver_columns import array, event, field, part

MILLIS, MICROS = ({"type": "long", "logicalType": f"timestamp-{unit}"} for unit in ("millis", "micros"))


def decimal(scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": scale}


def by_members(column: Column) -> str:
    """A column as Spark's `simpleString` has it."""
    if column.type == "struct":
        return f"struct<{','.join(f'{name}:{by_members(inner)}' for name, inner in column.fields.values())}>"
    if column.type == "members":
        return f"struct<{','.join(f'member{n}:{by_members(each.column)}' for n, each in enumerate(column.members))}>"
    inner = by_members(column.inner) if column.inner else ""
    return {"array": f"array<{inner}>", "map": f"map<string,{inner}>"}.get(column.type, column.type)


@examples(3)
@given(drawn_records().filter(lambda drawn: '["null"]' not in json.dumps(drawn[0])))
def test_each_type_becomes_the_column_that_the_gate_takes_it_for(spark: SparkSession, example: Any) -> None:
    # A union of null alone is none that can be stored.
    text = json.dumps(example[0])
    there = columns_over([text])
    assert there is not None
    schema = decode.decode(records(spark, []), [version(1, text)], text).schema
    assert schema["event"].dataType.simpleString() == by_members(there)


LEAVES: dict[str, DataType] = {
    **{"boolean": BooleanType(), "int": IntegerType(), "long": LongType(), "float": FloatType()},
    **{"double": DoubleType(), "string": StringType(), "bytes": BinaryType(), "null": NullType()},
}


@pytest.mark.parametrize(("old", "new"), [*product(LEAVES, LEAVES)])
def test_the_gate_lets_pass_what_silver_widens(old: str, new: str) -> None:
    there, then = (column_of(kind, NamedTypes(kind), 1) for kind in (old, new))
    assert (old == new or is_widening(LEAVES[old], LEAVES[new])) == (not [*conflicts_of(there, then)])


PAID, LOST, NEW = part("Paid"), part("Lost"), part("New")
SHAPES: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
    (lambda kind: kind, lambda value: value),
    (lambda kind: ["null", *kind], lambda value: value),
    (array, lambda value: [value]),
    (lambda kind: {"type": "map", "values": kind}, lambda value: {"k": value}),
    (lambda kind: part("Holder", field(array(kind), "u")), lambda value: {"u": [value]}),
    (lambda kind: [part("Holder", field(kind, "u")), "int"], lambda value: {"u": value}),
]


@pytest.mark.parametrize(("kind", "value"), SHAPES)
def test_a_type_is_in_the_same_member_whatever_version_wrote_it(
    kind: Callable[[Any], Any], value: Callable[[Any], Any], spark: SparkSession
) -> None:
    unions = [[PAID, LOST], [LOST, PAID], [NEW, LOST, PAID], [NEW, PAID]]
    writers = [version(n, event(field(kind(union)))) for n, union in enumerate(unions, 1)]
    sent = [framed(writer, {"id": writer.id, "f": value(("Paid", {"x": "p"}))}) for writer in writers]
    for count in range(1, len(writers) + 1):
        found = [row["f"] for row in accepted(spark, sent[:count], *writers[:count])]
        assert len(found) == count
        assert all(row == found[0] for row in found)
        assert "'member0': {'x': 'p'}" in str(found[0])


def test_nothing_is_moved_where_the_places_are_those_of_the_newest() -> None:
    texts = [event(field([PAID, LOST])), event(field([PAID, LOST, NEW]))]
    assert moves(parse_text(texts[1]), [version(n, text) for n, text in enumerate(texts, 1)]) == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["null", MILLIS], ["null", MICROS, "string"]),
        (["null", decimal(2)], ["null", decimal(4), "string"]),
        (["string", MILLIS], ["null", MICROS, "string"]),
        (array(MILLIS), array(["string", MICROS])),
        ([part("A", field(MILLIS, "at")), "null"], ["string", part("A", field(MICROS, "at"))]),
        ([part("A", field(MILLIS, "at")), part("B")], [part("B"), part("C", field(MICROS, "at"), aliases=["A"])]),
        ({"type": "int", "logicalType": "date"}, ["null", MILLIS, "string"]),
    ],
)
def test_a_meaning_that_changes_within_unions_of_other_types_is_refused_by_name(old: Any, new: Any) -> None:
    with pytest.raises(TidemarkError, match=r"BAD_SCHEMA: field `(f|at)` of `[EA]` was"):
        promoted_ints(parse_text(event(field(old))), parse_text(event(field(new))))


@pytest.mark.parametrize("units", [(MILLIS, MICROS), (decimal(2), decimal(4)), ("long", "int")])
def test_records_that_change_places_are_compared_by_their_names(units: tuple[Any, Any], spark: SparkSession) -> None:
    kinds = [part(name, field(unit, "at")) for name, unit in zip("AB", units, strict=True)]
    versions = [version(n, event(field(union))) for n, union in enumerate((kinds, kinds[::-1]), 1)]
    at = 0 if units[0] == "long" else None
    null = [{**kind, "fields": [field(["null", kind["fields"][0]["type"]], "at")]} for kind in kinds]
    nullable = [version(n, event(field(union))) for n, union in enumerate((null, null[::-1]), 1)]
    writers = versions if at == 0 else nullable
    sent = [framed(writer, {"id": 1, "f": ("B", {"at": at})}) for writer in writers]
    assert accepted(spark, sent, *writers) == [{"id": 1, "f": {"member0": None, "member1": {"at": at}}}] * 2


@given(st.permutations(["int", "string", "boolean", "bytes"]), st.booleans())
def test_ints_are_found_in_unions_of_any_order(order: list[str], is_wider: bool) -> None:
    """Where the union was changed they stay as they are written, since they share their place with other types."""
    new = ["long" if kind == "int" and is_wider else kind for kind in order]
    same = promoted_ints(parse_text(event(field(order))), parse_text(event(field(new))))
    assert (("E", "f") in same.written) != is_wider
    other = promoted_ints(parse_text(event(field(order))), parse_text(event(field(new[::-1]))))
    assert ("E", "f") not in other.written | other.promoted
