"""Types that lie under other subjects of a registry are put into a schema's text as if they had been there always."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastavro.schema import to_parsing_canonical_form
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import TidemarkError
from schemas import schema_text
from schemas.schema_text import RawSchema, inlined, referenced_texts
from schemas.validity import parse_text

Find = Callable[[str, int], RawSchema | None]
SPACES = ("", "x", "x.y")


def record(name: str, **types: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": field, "type": kind} for field, kind in types.items()]}


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, list[tuple[str, list[str]]]]:
    """A schema as one text, and the same cut into documents, each with the names of those that it refers to; the last
    is the event. All are in one namespace or another, spelt out or taken from what is around."""
    count = draw(st.integers(2, 6))
    space = draw(st.sampled_from(SPACES[1:]))
    names = [f"{draw(st.sampled_from(SPACES[1:]))}.T{number}" for number in range(count - 1)] + [f"{space}.Event"]
    uses = [draw(st.lists(st.integers(0, number - 1), max_size=3)) if number else [] for number in range(count)]

    def written(number: int, of_inner: Callable[[int, str], Any]) -> dict[str, Any]:
        own, _, short = names[number].rpartition(".")
        wraps: list[Callable[[Any], Any]] = [
            lambda kind: kind,
            lambda kind: {"type": "array", "items": kind},
            lambda kind: ["null", kind],
            lambda kind: {"type": "map", "values": kind},
        ]
        fields = {f"f{at}": wraps[(number + at) % 4](of_inner(used, own)) for at, used in enumerate(uses[number])}
        named = {"name": short, "namespace": own} if number % 2 else {"name": names[number]}
        return {**record("", own="int", **fields), **named}

    placed: set[int] = set()

    def whole(number: int, own: str) -> Any:
        if number in placed:
            return names[number]
        placed.add(number)
        return written(number, whole)

    def named(used: int, own: str) -> str:
        other, _, short = names[used].rpartition(".")
        return short if other == own and used % 2 else names[used]

    cut = [(json.dumps(written(number, named)), [names[used] for used in uses[number]]) for number in range(count)]
    return json.dumps(whole(count - 1, "")), cut


@given(documents())
def test_a_schema_that_was_cut_into_documents_is_the_same_again(
    made: tuple[str, list[tuple[str, list[str]]]],
) -> None:
    whole, cut = made
    names = {f"{parsed_name(text)}": RawSchema(text, "AVRO", refers(uses)) for text, uses in cut}
    event = list(names.values())[-1]
    text = inlined(event.text, referenced_texts(event, lambda subject, version: names[subject]))
    assert to_parsing_canonical_form(parse_text(text)) == to_parsing_canonical_form(parse_text(whole))


def parsed_name(text: str) -> str:
    schema = json.loads(text)
    return f"{schema['namespace']}.{schema['name']}" if "namespace" in schema else schema["name"]


def refers(names: list[str]) -> tuple[schema_text.Reference, ...]:
    return tuple((name, name, 1) for name in names)


def test_a_type_keeps_its_namespace_wherever_it_is_put() -> None:
    """What was written without one has none, though the event has; Java finds it from there, and Avro's text cannot
    name it a second time."""
    plain = json.dumps(record("Addr", city=record("City", n="int"), again="City"))
    event = {**record("Event", addr="Addr"), "namespace": "x"}
    schema = parse_text(inlined(json.dumps(event), [plain]))
    assert [schema["fields"][0]["type"][part] for part in ("name", "type")] == ["Addr", "record"]
    twice = {**record("Event", addr="Addr", city="City"), "namespace": "x"}
    with pytest.raises(TidemarkError, match=r"BAD_SCHEMA: it uses `City`, which has no namespace, .* x again"):
        inlined(json.dumps(twice), [plain])


def test_a_type_within_another_is_defined_where_it_is_first_used() -> None:
    outer = json.dumps({**record("Outer", inner=record("Inner", n="int")), "namespace": "x"})
    schema = parse_text(inlined(json.dumps(record("Event", first="x.Inner", then="x.Outer")), [outer]))
    first, then = (field["type"] for field in schema["fields"])
    assert (first["name"], then["fields"][0]["type"]) == ("x.Inner", "x.Inner")


def test_of_two_versions_by_one_name_the_first_stands_for_both() -> None:
    stored = {
        ("a", 1): RawSchema('"a1"'),
        ("a", 2): RawSchema('"a2"'),
        ("b", 1): RawSchema('"b1"', references=(("A", "a", 2),)),
    }
    event = RawSchema('"E"', references=(("A", "a", 1), ("B", "b", 1)))
    assert referenced_texts(event, lambda subject, version: stored[subject, version]) == ['"a1"', '"b1"']


def test_schemas_that_refer_to_each_other_in_a_circle_are_read_once() -> None:
    stored = {"a": RawSchema('"a"', references=(("B", "b", 1),)), "b": RawSchema('"b"', references=(("A", "a", 1),))}
    assert referenced_texts(stored["a"], lambda subject, _: stored[subject]) == ['"a"', '"b"']


@pytest.mark.parametrize(
    ("text", "declared", "kind"),
    [
        ('syntax = "proto3";', "PROTOBUF", "PROTOBUF"),
        ('syntax = "proto3";', "AVRO", schema_text.NON_AVRO),
        (json.dumps(record("R")), "PROTOBUF", "AVRO"),
        (json.dumps(record("R")), "AVRO", "AVRO"),
        ('{"type": "object"}', "JSON", "JSON"),
        ('{"type": "string"}', "JSON", "JSON"),
        ("{", "JSON", "JSON"),
        ("{", "AVRO", "AVRO"),
        ('"string"', "AVRO", "AVRO"),
    ],
)
def test_a_text_is_what_it_is_though_the_registry_has_one_type_for_all_of_a_subject(
    text: str, declared: str, kind: str
) -> None:
    assert schema_text.kind_of(text, declared) == kind


def endless(subject: str, version: int) -> RawSchema:
    return RawSchema('"int"', references=((f"n{version}", subject, version + 1),))


def many(subject: str, version: int) -> RawSchema:
    return RawSchema('"int"')


@pytest.mark.parametrize(
    ("event", "find", "says"),
    [
        (endless("a", 0), endless, r"more than 1,000 schemas, or 32 behind each other"),
        (RawSchema("", references=tuple((f"n{n}", "a", n) for n in range(1001))), many, r"more than 1,000 schemas"),
        (RawSchema("", references=(("A", "a", 3),)), lambda *_: None, r"version 3 of subject a, as `A`, which the reg"),
        (RawSchema("", references=(("A", "a", 3),)), lambda *_: RawSchema("", "JSON"), r"which is of type JSON"),
    ],
)
def test_what_cannot_be_followed_is_named(event: RawSchema, find: Find, says: str) -> None:
    with pytest.raises(TidemarkError, match=f"BAD_SCHEMA: it refers to .*{says}"):
        referenced_texts(event, find)
