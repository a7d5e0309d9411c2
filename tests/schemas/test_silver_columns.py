"""What a table's columns cannot follow is refused by the gate, by name, and each remedy is one that it takes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import TidemarkError
from conf.sections import CompatibilityLevel
from schemas.cli import main
from schemas.compatibility import conflicts, obstacles
from schemas.contracts import contract
from schemas.registry import FileRegistry, RegisteredSchema
from schemas.silver_columns import column_conflicts, columns_over

LEVEL: CompatibilityLevel = "backward_transitive"


def event(*fields: dict[str, Any]) -> str:
    return json.dumps({"type": "record", "name": "E", "fields": [{"name": "id", "type": "int"}, *fields]})


def field(kind: Any, name: str = "f", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def part(name: str, *fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields or [field("string", "x")]), **more}


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def registered(*texts: str) -> list[RegisteredSchema]:
    return [RegisteredSchema(number, "e-value", number, text) for number, text in enumerate(texts, 1)]


def refused(*texts: str) -> list[str]:
    return [f"{found.what}; {found.remedy}" for found in obstacles(texts[-1], registered(*texts[:-1]), LEVEL)]


PAID, LOST, NEW = part("Paid"), part("Lost"), part("New")
KEEP = "keep the type of version 1, or give the changed field a name that no version has"
PLACES = "keep the types of version 1 in their places, with new ones behind them"
REFUSED: list[tuple[str, Any, Any, str]] = [
    ("text becomes bytes", "string", "bytes", f"f: silver's column cannot follow: it is string, .* binary; {KEEP}"),
    ("bytes become text", "bytes", "string", "it is binary, which cannot become string"),
    ("long becomes double", "long", "double", "it is bigint, which cannot become double"),
    ("int becomes float", "int", "float", "it is int, which cannot become float"),
    ("long becomes float", "long", "float", "it is bigint, which cannot become float"),
    ("a type becomes several", "string", ["string", "long"], r"cannot become a struct of the union's types \(string"),
    ("a nullable one does", ["null", "int"], ["null", "int", "string"], "cannot become a struct"),
    ("an item does", array("int"), array(["int", "string"]), r"f\[\]: silver's column cannot follow: it is int"),
    ("a value does", {"type": "map", "values": "int"}, {"type": "map", "values": "float"}, r"f\{\}: silver's column"),
    ("a field within", part("P", field("int", "n")), part("P", field("float", "n")), r"f\.n: silver's column cannot"),
    ("a member", ["string", "long"], ["string", "double"], "f: .* `long` is its member1, and the union has `double`"),
    ("two numbers become several", ["int", "long"], ["int", "long", "string"], "it is bigint, which cannot become"),
    ("members change places", [PAID, LOST], [LOST, PAID], f"`Paid` is its member0, and .* has `Lost` .*; {PLACES}"),
    ("one comes before", [PAID, LOST], [NEW, PAID, LOST], "`Paid` is its member0, and the union has `New`"),
    ("text and a symbol change places", ["string", {"type": "enum", "name": "S", "symbols": ["A"]}], [], "`string` is"),
    ("members within an array", array([PAID, LOST]), array([LOST, PAID]), r"f\[\]: silver's column cannot follow"),
]
REFUSED = [(name, old, new or old[::-1], says) for name, old, new, says in REFUSED]
FOLLOWED: list[tuple[str, Any, Any]] = [
    *(("wider", "int", "long"), ("wide", "int", "double"), ("wider float", "float", "double")),
    *(("nullable", "string", ["null", "string"]), ("no longer null alone", "null", ["null", "string"])),
    ("null moves", ["null", PAID, LOST], [PAID, "null", LOST]),
    ("one comes behind", [PAID, LOST], [PAID, LOST, NEW]),
    ("a member is widened", ["int", "string"], ["long", "string"]),
    ("a member is renamed", [PAID, LOST], [PAID, part("Gone", aliases=["Lost"])]),
    ("a member gets a field", [PAID, LOST], [PAID, part("Lost", field("string", "x"), field("int", "y", default=0))]),
    ("another namespace", [part("x.P"), part("y.P")], [part("x.P"), part("y.P")]),
    ("both numbers", "float", ["float", "double"]),
]


@pytest.mark.parametrize(("old", "new", "says"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_change_that_avro_reads_and_no_column_follows_is_refused(
    old: Any, new: Any, says: str, tmp_path: Path
) -> None:
    texts = event(field(old)), event(field(new))
    assert conflicts(texts[1], registered(texts[0]), LEVEL) == []
    registry = FileRegistry(tmp_path, LEVEL)
    registry.register("e-value", texts[0])
    with pytest.raises(TidemarkError, match=rf"INCOMPATIBLE_SCHEMA: e-value version 1: .*{says}"):
        registry.register("e-value", texts[1])
    # The remedies: as it was; another name, the old one among its aliases, or a default.
    assert refused(texts[0], texts[0]) == []
    assert refused(texts[0], event(field(new, "g", aliases=["f"]))) == []
    assert FileRegistry(tmp_path).register("e-value", texts[1]) == 2  # asked to check nothing
    # What is there already is no change, and hinders no other one.
    assert refused(*texts, event(field(new), field("int", "more", default=0))) == []


@pytest.mark.parametrize(("old", "new"), [row[1:] for row in FOLLOWED], ids=[row[0] for row in FOLLOWED])
def test_a_change_that_columns_follow_passes(old: Any, new: Any) -> None:
    assert refused(event(field(old)), event(field(new))) == []


def test_the_type_that_the_column_has_may_come_back() -> None:
    assert refused(event(field("string")), event(field("bytes")), event(field("string"))) == []


def test_a_place_stays_taken_when_its_type_has_left_the_union() -> None:
    three = event(field([PAID, LOST, NEW]))
    assert column_conflicts(event(field([PAID, LOST])), registered(three)) == []
    [left_out] = column_conflicts(event(field([PAID, NEW])), registered(three))
    assert "`Lost` is its member1, and the union has `New` in that place" in left_out.what
    taken = registered(three, event(field([PAID, LOST])))
    assert column_conflicts(event(field([PAID, LOST, part("Other")])), taken) != []


def test_a_column_of_a_field_that_was_dropped_is_still_there_whatever_the_level() -> None:
    dropped = registered(event(field("string")), event())
    assert conflicts(event(field("long", default=0)), dropped, "backward") == []
    [found] = obstacles(event(field("long", default=0)), dropped, "backward")
    assert found.what == "version 1: f: silver's column cannot follow: it is string, which cannot become bigint"
    assert list(obstacles(event(field("long", default=0)), dropped, "none")) == []


@pytest.mark.parametrize("kind", ["string", "long"])
def test_another_case_is_no_other_name_to_a_table(kind: str) -> None:
    found = refused(
        event(field("string", "Total")), event(), event(field(kind, "total", default=0 if kind == "long" else ""))
    )
    assert any(
        "it is called `Total`, and `total` is no other name to it; spell it as version 1" in each for each in found
    )


def test_schemas_check_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads(contract("departure"))
    next(each for each in before["fields"] if each["name"] == "flight_id")["type"] = "bytes"
    FileRegistry(tmp_path).register("departures-value", json.dumps(before))
    assert main(["check", "--against", str(tmp_path)]) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if "version 1" in line]
    assert said == [
        "departures-value version 1: flight_id: silver's column cannot follow: it is binary, which cannot become "
        f"string; {KEEP}"
    ]


@st.composite
def histories(draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[list[Any]]:
    """Unions of records that come, go and change places, from version to version."""
    kinds = [part(name) for name in "ABCDF"]
    unions = st.lists(st.sampled_from(kinds), min_size=2, unique_by=lambda kind: kind["name"])
    return list(draw(st.lists(unions, min_size=1)))


@settings(deadline=None)
@given(histories())
def test_a_type_of_a_union_keeps_the_place_that_it_came_to(unions: list[list[Any]]) -> None:
    texts = [event(field(union)) for union in unions]
    seen: dict[str, int] = {}
    for count in range(1, len(texts) + 1):
        columns = columns_over(texts[:count])
        assert columns is not None
        now = {member.name: place for place, member in enumerate(columns.fields["f"][1].members)}
        assert now.items() >= seen.items()
        seen = now
    assert seen.keys() == {kind["name"] for union in unions for kind in union}
