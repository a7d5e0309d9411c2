"""A column of text becomes numbers only where each of its texts can be told from the number again."""

import csv
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.files.text_types import Column
from tests.producers.files.read_back import both_ways, inferred, read_back


def column(*cells: str) -> Column:
    made = Column()
    made.add(pa.array(cells, pa.string()))
    return made


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([".097", "-.5", "1.5"], "double"),
        (["5.", "6."], "double"),
        (["1.0", "2.5", "10.0"], "double"),
        (["10", "2.5"], "double"),
        (["1e-05", "0.5", "2", "1e+16"], "double"),
        (["1.0E-5", "2.0"], "double"),
        (["-0", "0"], "double"),
        (["0.30000000000000004"], "double"),
        (["1.50", "22.25"], decimal(18, 2)),
        (["999999999999999.99"], decimal(38, 2)),
        ([".100", ".097"], decimal(18, 3)),
        (["3.10", "3.11"], decimal(18, 2)),
        (["3.10", "3.9"], "string"),
        (["3.10", "3.1"], "string"),
        (["4E5", "7E2"], "string"),
        (["12E12"], "string"),
        (["1.0", "1"], "string"),
        ([".5", "0.5"], "string"),
        (["5.", "5"], "string"),
        (["1e-05", "1e-5"], "string"),
        (["1e-05", "0.00001"], "string"),
        (["1.5E3", "1500"], "string"),
        (["1e400", "1"], "string"),
        (["-0.00", "1.50"], "string"),
        (["1.50", "NaN"], "string"),
        (["Nan", "inf"], "string"),
        (["0." + "1" * 39], "string"),
    ],
)
def test_the_type_is_one_that_keeps_every_text(cells: list[str], expected: Any) -> None:
    assert column(*cells).avro() == expected
    # In whatever order and pieces the values come.
    pieces = Column()
    for cell in reversed(cells):
        pieces.add(pa.array([cell], pa.string()))
    assert pieces.avro() == expected


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (["00501", "10001"], "a leading zero, as '00501'"),
        (["+1"], "a plus sign, as '+1'"),
        (["3.10", "3.1"], "a trailing zero, as '3.10'"),
        (["4E5"], "an exponent, as '4E5'"),
        (["12345678901234567890"], "more digits than a double holds, as '12345678901234567890'"),
        (["1.0", "1"], "numbers are written in two ways, as '1.0' and '1'"),
        (["1.50"], "decimal(18, 2): all its numbers have 2 digits behind the point"),
    ],
)
def test_a_column_that_looks_like_numbers_and_is_none_is_pointed_out(cells: list[str], says: str) -> None:
    assert says in str(column(*cells).note("v"))


DIGITS = st.text("0123456789", max_size=4)
WRITTEN = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(["", "", "", "-", "+"]),
    st.one_of(DIGITS, st.sampled_from(["0", "1", "9007199254740993", "999999999999999"])),
    st.sampled_from(["", "."]),
    DIGITS,
    st.sampled_from(["", "", "", "", "e5", "E-5", "e-05", "e+16", "E12", "e300", "E400"]),
)
PRINTED: list[Callable[[float], str]] = [repr, lambda x: f"{x:.2f}", lambda x: f"{x:g}", lambda x: f"{x:.3e}"]
CELLS = st.one_of(
    st.lists(WRITTEN.filter(bool), min_size=1, max_size=4),
    st.builds(
        lambda numbers, show: list(map(show, numbers)),
        st.lists(st.floats(), min_size=1, max_size=4),
        st.sampled_from(PRINTED),
    ),
)


@settings(max_examples=400, deadline=None)
@given(cells=CELLS)
def test_what_a_cell_said_is_read_back_whatever_was_inferred(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "in.csv"
    write(path, cells)
    found = [row["v"] for row in read_back(path)]
    assert len(found) == len(cells)
    written: dict[str, str] = {}
    for cell, value in zip(cells, found, strict=True):
        assert says_the_same(cell, value), (cell, value)
        # No two texts become one number.
        if isinstance(value, float | Decimal) and value == value:
            assert written.setdefault(repr(value), cell) == cell


def write(path: Path, cells: list[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["v", "w"], *([cell, "x"] for cell in cells)])


def says_the_same(cell: str, value: Any) -> bool:
    if isinstance(value, str):
        return value == cell
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return cell.lower().lstrip("+-")[:3] in ("nan", "inf") and repr(float(cell)) == repr(value)
    return not isinstance(value, bool) and Decimal(str(value)) == Decimal(cell)


GIVEN = st.sampled_from(["float", "double", "int", "long", decimal(9, 2), decimal(38, 10)])


@settings(max_examples=400, deadline=None)
@given(cells=CELLS, kind=GIVEN)
def test_with_a_schema_given_a_cell_is_read_back_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str], kind: Any
) -> None:
    path = tmp_path_factory.mktemp("csv") / "in.csv"
    write(path, cells)
    schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": kind}, {"name": "w", "type": "string"}]}
    for cell, result in zip(cells, read_back(path, json.dumps(schema)), strict=True):
        if isinstance(result, dict):
            value = result["v"]
            assert says_the_same(cell, value) or (kind == "float" and says_the_same(cell, as_written(value, cell)))


def as_written(value: float, cell: str) -> float:
    """A float, printed with as many digits as the number has."""
    return float(f"{value:.{digits(cell)}g}")


def digits(cell: str) -> int:
    """How many significant digits a number was written with, zeros at its end apart."""
    return max(1, len(cell.lower().partition("e")[0].strip("+-").replace(".", "").strip("0")))


DAYS = ["2013-01-31", "2013-02-28", "2013-02-29", "2012-02-29", "2013-04-31", "0000-01-01", "0001-01-01", "9999-12-31"]
DAYS += ["2013-01-31\n", "\n2013-01-31", "\u0662\u0660\u0661\u0663-01-31"]
CLOCKS = ["T10:00", " 23:00:00", " 24:00:00", "T29:00", "T10:00Z\n", "T23:59:59.999999Z", "T10:00:00.1234567Z"]
OFFSETS = ["+05", "-0530", "+05:75", "+23:59", "+24:00", "+29", "-01:00"]
TIMES = DAYS + [day + clock for day in DAYS for clock in CLOCKS]
TIMES += [f"{day}T23:30:00{offset}" for day in DAYS for offset in OFFSETS]
OTHERS = ["true", "FALSE", "fal\u017fe", "1", "1\n", "-5", "999999999999999999", "9999999999999999999", "1.5", "1.50\n"]
OTHERS += ["1e400", "nan", "\u0131nf", "Infinity\n", "5.", ".5", "\uff15", "1_0", " 1", "0x10", "x", "true\n"]
POOLS = st.sampled_from([DAYS, TIMES, OTHERS, TIMES + OTHERS])
ANY_CELLS = POOLS.flatmap(lambda pool: st.lists(st.sampled_from(pool), min_size=1, max_size=4))


@settings(max_examples=150, deadline=None)
@given(cells=ANY_CELLS)
def test_a_type_that_was_inferred_takes_every_value_that_it_was_inferred_from(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for kind in ("csv", "jsonl"):
        path = folder / f"in.{kind}"
        if kind == "csv":
            path.write_text("v,w\n" + "".join(f'"{cell}",x\n' for cell in cells), newline="")
        else:
            path.write_text("".join(json.dumps({"v": cell}) + "\n" for cell in cells))
        avro = json.loads(inferred(path))["fields"][0]["type"][1]
        found, rejects = both_ways(path)
        assert rejects == [], avro
        if avro == "string":
            assert [row["v"] for row in found] == cells


NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers())
SCALARS = st.sampled_from([*TIMES, 1, 1.5, 2**53 + 1, 2**63, -(2**63), True, None]) | NUMBERS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(VALUES, min_size=1, max_size=4))
def test_a_json_type_takes_every_value_that_it_was_inferred_from(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("json") / "in.jsonl"
    path.write_text("".join(json.dumps({"v": value}) + "\n" for value in values))
    assert both_ways(path)[1] == []
