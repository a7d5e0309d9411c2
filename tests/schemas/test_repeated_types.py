"""What goes over a schema goes over each named type once, however often it is named, or refuses it by a bound."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from conf.errors import TidemarkError
from jobs.connectors.avro.spark_schema import HEADER, promoted_ints, wire_schema, wire_text
from producers.files.avro_resolution import resolution
from producers.files.avro_rows import stored_schema
from producers.files.schema import AvroTypes, _check_decimals, topic_schema
from schemas.codec import Encoder, reader
from schemas.columnar import ColumnarEncoder
from schemas.compatibility import conflicts
from schemas.contracts import require_event, with_fields
from schemas.pii_marks import pii_fields_of
from schemas.spark_limits import EXPANDED, event_schema, require_expandable, require_finite
from schemas.validity import DEPTH, is_valid, load_schema, parse_text, without_unfit_defaults
from schemas.values import Reading, record_converter
from schemas.wire import compile_check
from tests.schemas.hostile_schemas import array
from tests.schemas.repeated_types import KINDS, NUMBER, doubling, field, named


@dataclass(frozen=True)
class Version:
    text: str
    version: int = 1


def other(text: str) -> str:
    """The schema with other types at its leaves."""
    return text.replace('"int"', '"string"').replace("1}", '"1"}')


def of_wire(text: str) -> None:
    schema = parse_text(text)
    wire_text(wire_schema(schema), HEADER)
    wire_text(wire_schema(schema, lambda place: True))


def inferred(text: str) -> None:
    types = AvroTypes()
    types.schema = json.loads(text)
    _check_decimals(types.schema, "")
    types.inferred("file", [])


def stored(text: str) -> Any:
    schema = stored_schema(json.loads(text))
    require_finite(schema)  # as readers of files do before all else
    return schema


WALKS: dict[str, Callable[[str], object]] = {
    "load": load_schema,
    "unfit defaults": lambda text: without_unfit_defaults(json.loads(text)),
    "encoder": lambda text: Encoder(1, text),
    "reader": lambda text: reader(text)(bytes(100)),
    "check": lambda text: compile_check(parse_text(text)),
    "event": event_schema,
    "contract": lambda text: require_event("t-value", text),
    "finite": lambda text: require_finite(parse_text(text)),
    "personal data": lambda text: list(pii_fields_of(text).treatments()),
    "compared with itself": lambda text: conflicts(text, [Version(text)], "full"),
    "compared with another": lambda text: conflicts(text, [Version(other(text))], "full"),
    "converter": lambda text: record_converter(text, Reading()),
    "converter of cells": lambda text: record_converter(text, Reading(from_text=True)),
    "columnar": lambda text: ColumnarEncoder(1, text),
    "narrowed": lambda text: with_fields(text, ["id"]),
    "wire form": of_wire,
    "promoted": lambda text: promoted_ints(parse_text(text), parse_text(text)),
    "promoted from another": lambda text: promoted_ints(parse_text(other(text)), parse_text(text)),
    "header of a file": lambda text: topic_schema(json.loads(text)),
    "inferred of a file": inferred,
    "resolved of a file": lambda text: resolution(stored(text), text, []),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("walk", WALKS)
def test_no_walk_over_a_schema_takes_longer_than_its_text(walk: str, kind: str) -> None:
    try:
        WALKS[walk](KINDS[kind])
    except TidemarkError as refused:
        assert "\n" not in str(refused)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "defaults"])
def test_what_only_an_expanded_type_can_hold_is_refused_with_the_bound(kind: str) -> None:
    assert is_valid(KINDS[kind])
    with pytest.raises(TidemarkError, match=rf"BAD_SCHEMA: t-value: its types, .* {EXPANDED:,} are the most; refer to"):
        require_event("t-value", KINDS[kind])


@pytest.mark.parametrize("kind", ["nothing", "nulls", "nothing in an array"])
def test_records_that_no_byte_of_a_file_tells_of_are_bounded(kind: str) -> None:
    with pytest.raises(
        TidemarkError, match=r"BAD_SCHEMA: .*(values that take no bytes, and 10,000|take no bytes; say)"
    ):
        require_finite(parse_text(KINDS[kind]))
    for other_kind in ("numbers", "nullable", "in arrays"):
        require_finite(parse_text(KINDS[other_kind]))


def test_defaults_that_are_made_of_defaults_without_end_are_refused_with_the_bound() -> None:
    with pytest.raises(TidemarkError, match=r"INVALID_SCHEMA: .* its defaults, .*, hold more than 200,000 values"):
        load_schema(KINDS["defaults"])
    assert is_valid(json.dumps(doubling(field("n", "int", default=1), levels=10, default={})))


def test_types_that_are_named_often_but_not_too_often_are_an_event() -> None:
    require_event("t-value", json.dumps(doubling(NUMBER, levels=9)))
    with pytest.raises(TidemarkError, match="BAD_SCHEMA"):
        require_event("t-value", json.dumps(doubling(NUMBER, levels=12)))


def test_levels_count_through_names() -> None:
    def chain(levels: int) -> str:
        inner = [field(f"f{n}", named(f"R{n}", field("a", f"R{n - 1}"))) for n in range(1, levels)]
        return json.dumps(named("Top", field("f0", named("R0", NUMBER)), *inner))

    require_expandable(parse_text(chain(DEPTH - 1)))
    with pytest.raises(TidemarkError, match=rf"BAD_SCHEMA: its types lie {DEPTH + 1} levels .* {DEPTH} are the most"):
        event_schema(chain(DEPTH))


def test_a_type_that_holds_itself_is_counted_once() -> None:
    tree = named("Tree", field("left", ["null", "Tree"]), field("right", ["null", array("Tree")]))
    require_expandable(parse_text(json.dumps(tree)))


def test_problems_of_a_type_are_told_wherever_it_is_used_with_their_places() -> None:
    text = json.dumps(doubling(NUMBER, levels=2))
    found = [each.incompatibility.path for each in conflicts(text, [Version(other(text))], "backward")]
    assert found == ["f0.n", "f1.a.n", "f1.b.n", "f2.a.a.n", "f2.a.b.n", "f2.b.a.n", "f2.b.b.n"]


def test_places_lead_through_lists_and_maps_and_what_holds_itself() -> None:
    def schema(kind: str) -> str:
        inner = named("In", field("n", kind), field("again", ["null", "In"]))
        values = {"type": "map", "values": "In"}
        return json.dumps(named("Top", field("a", array(inner)), field("b", values), field("c", "In")))

    found = conflicts(schema("int"), [Version(schema("string"))], "backward")
    assert [each.incompatibility.path for each in found] == ["a[].n", "b{}.n", "c.n"]
