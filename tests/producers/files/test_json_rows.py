"""JSON as it comes: a value a line, an array, or values in many lines; each row with its line and its own text."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import TidemarkError
from producers.files.inputs import Opening, open_inputs
from producers.files.rows import NOT_UTF8, Row
from producers.files.schema import infer_schema

A, B = {"a": 1}, {"a": [{"b": ']}, \\"'}], "c": None}


def rows(path: Path, opening: Opening | None = None) -> list[Row]:
    return [row for each in open_inputs([path], opening or Opening()) for row in each.rows()]


def read(tmp_path: Path, data: str | bytes, name: str = "in.json") -> list[Row]:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return rows(path)


def lines(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def pretty(*values: Any) -> str:
    return "\n".join(json.dumps(value, indent=2) for value in values)


@pytest.mark.parametrize(
    "text",
    [
        lines(A, B),
        lines([A, B]),
        pretty([A, B]),
        pretty(A, B),
        json.dumps(A) + json.dumps(B),
        "\n\n" + pretty(A) + pretty(B) + "\n",
        "\ufeff" + pretty([A, B]),
        "[\r\n" + json.dumps(A) + ",\r\n" + json.dumps(B) + "\r\n]\r\n",
        "[" + lines(A) + "," + lines(B) + "]",
    ],
)
@pytest.mark.parametrize("name", ["in.json", "in.jsonl"])
def test_objects_are_read_however_they_are_laid_out(tmp_path: Path, text: str, name: str) -> None:
    assert [row.values for row in read(tmp_path, text, name)] == [A, B]


@pytest.mark.parametrize(
    ("text", "count"), [("[]", 0), ("[\n]\n", 0), ("", 0), (" \n\n", 0), (pretty(B), 1), ("{}", 1)]
)
def test_an_empty_array_has_no_rows_and_one_object_is_one(tmp_path: Path, text: str, count: int) -> None:
    assert len(read(tmp_path, text)) == count


def test_rows_know_their_line_and_their_text(tmp_path: Path) -> None:
    first, second, third = read(tmp_path, '[\n  {"a": 1,\n   "b": 2},\n\n  {"a": 3}, 5]')
    assert (first.line, first.raw) == (2, '{"a": 1,\n   "b": 2}')
    assert (second.line, second.raw) == (5, '{"a": 3}')
    assert (third.line, third.values, third.problem) == (5, None, "it is int, not an object")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (b'[{"a": 1},\n {"a": "\xff"}, {"a": 2}]', 2, NOT_UTF8),
        (b'[{"a": 1},\n {"a": 1, "a": 2}, {"a": 2}]', 2, "it is no JSON: `a` is there twice"),
        (b'[{"a": 1},\n null, {"a": 2}]', 2, "it is NoneType, not an object"),
    ],
)
def test_a_bad_element_is_a_row_of_its_own(tmp_path: Path, text: bytes, line: int, says: str) -> None:
    before, bad, after = read(tmp_path, text)
    assert (before.values, after.values) == ({"a": 1}, {"a": 2})
    assert (bad.line, bad.values, bad.problem) == (line, None, says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"a": 1},\n{"a": 1', "line 2: it is no JSON: Expecting ',' delimiter"),
        ('[{"a": 1}\n', "line 2: its array is not closed"),
        ('[{"a": 1},\n]', "line 2: a value is expected after the comma"),
        ('[{"a": 1}\n{"a": 1}]', "line 2: a comma is expected"),
        ('[\n{"a": 1}]\n{"a": 2', "line 3: there is more after the end of its array"),
        ('[{"a": 1},\n{"a": "x', "line 2: it is no JSON: Unterminated string"),
        ('{\n"a": 1}\n{"a": tru}', "line 3: it is no JSON: Expecting value"),
        ('[{"a": 1},\n{"a": ' + "[" * 100_000, "line 2: it is nested too deeply"),
    ],
)
def test_what_comes_after_the_damage_is_left_and_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "in.json").write_text(text)
    found = []
    with pytest.raises(TidemarkError, match=rf"BAD_FILE: .*in\.json: {says}"):
        for each in open_inputs([tmp_path / "in.json"], Opening()):
            for row in each.rows():
                found.append(row.values)
    assert found == [{"a": 1}]


def test_lines_of_which_the_first_is_bad_are_lines_all_the_same(tmp_path: Path) -> None:
    for first in ('{"a": ', '{"a": 1, "b": "x', "[1]", "[", "nonsense"):
        found = read(tmp_path, first + "\n" + lines(A, B) * 2) if first != "[" else []
        assert [row.values for row in found[1:]] == [A, B, A, B][: len(found[1:])], first
        assert found == [] or (len(found) == 5 and found[0].problem)


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x7f"])
def test_a_line_feed_alone_ends_a_line(tmp_path: Path, character: str) -> None:
    found = read(tmp_path, f'{{"a": "x{character}y"}}\n{{bad\n{{"a": "z"}}\n')
    assert [row.values for row in found] == [{"a": f"x{character}y"}, None, {"a": "z"}]


DEEP = '{"q": {"x": 1, "x": 2}, "d": ' + "[" * 100_000 + "]" * 100_000 + "}"


def test_what_is_wrong_with_one_row_is_not_said_of_the_next(tmp_path: Path) -> None:
    found = read(tmp_path, DEEP + '\n{"q": {"x": 1}}\n{"a": 1, "a": 2}\n{"q": {"x": 3}}\n')
    assert [row.problem for row in found] == ["it is nested too deeply", "", "it is no JSON: `a` is there twice", ""]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("number", ["1e-99999999999999999999", "1E+99999999999999999999"])
def test_a_number_that_nobody_can_read_is_a_bad_row(tmp_path: Path, number: str, exact: bool) -> None:
    values = [f'{{"a": {each}}}' for each in ("1", number, "2")]
    for text in ("\n".join(values), "[" + ",\n".join(values) + "]"):
        (tmp_path / "in.json").write_text(text)
        before, bad, after = rows(tmp_path / "in.json", Opening(exact=exact))
        assert (before.values, after.values) == ({"a": 1}, {"a": 2})
        assert (bad.line, bad.values) == (2, None)
        assert bad.problem == f"it is no JSON: '{number}' has an exponent of too many digits"


def test_a_whole_number_of_thousands_of_digits_is_read(tmp_path: Path) -> None:
    digits = "9" * 6_000
    assert read(tmp_path, f'[{{"a": {digits}}}]')[0].values == {"a": Decimal(digits)}


def test_a_row_that_cannot_be_shown_can_be_rejected() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert Row(1, "", {"a": deep}).text() == "a row that cannot be shown (RecursionError)"


def test_memory_holds_one_value_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.files.json_rows.LONGEST_LINE", 1 << 18)
    rows_of = [{"n": number, "text": "x" * 1000} for number in range(2_000)]
    assert len(read(tmp_path, pretty(rows_of))) == 2_000
    with pytest.raises(TidemarkError, match=r"BAD_FILE: .*line 1: a value is longer than 262,144 characters"):
        read(tmp_path, json.dumps([{"a": "x" * (1 << 20)}]))


JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=3)),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=3), JSON, max_size=3), min_size=1, max_size=4)
LAYOUTS: list[Callable[[list[Any]], str]] = [
    lambda values: lines(*values),
    json.dumps,
    lambda values: pretty(values),
    lambda values: pretty(*values),
    lambda values: "".join(map(json.dumps, values)),
    lambda values: json.dumps(values, ensure_ascii=False, indent="\t"),
]


@settings(max_examples=200, deadline=None)
@given(values=OBJECTS, layout=st.sampled_from(LAYOUTS), chunk=st.integers(1, 40))
def test_every_layout_of_the_same_objects_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], layout: Callable[[list[Any]], str], chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("producers.files.json_rows.CHUNK_BYTES", chunk)
        found = read(tmp_path_factory.mktemp("json"), layout(values).encode("utf-8", "surrogatepass"))
    assert repr([row.values for row in found]) == repr(values)


def test_a_file_of_which_no_row_can_be_read_says_why(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("name;n\nMüller;1\n".encode("latin-1"))
    with pytest.raises(
        TidemarkError, match=r"BAD_FILE: no row can be read: .*in\.csv line 2: it is not UTF-8; .* --encoding cp1252$"
    ):
        infer_schema("t", open_inputs([path], Opening()), frozenset())
