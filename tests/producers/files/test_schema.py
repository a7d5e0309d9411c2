"""The schema that is inferred loses nothing and refuses nothing of what it was inferred from."""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.errors import TidemarkError
from producers.files.inputs import Opening, open_inputs
from producers.files.schema import Inferred, infer_schema
from tests.producers.files.read_back import read_back

DATE = {"type": "int", "logicalType": "date"}
INSTANT = {"type": "long", "logicalType": "timestamp-micros"}
JSON_TEXT = {"type": "string", "json": True}
NULLS = frozenset({"", "NA"})


def infer(*paths: Path) -> Inferred:
    return infer_schema("page-views", open_inputs(paths, Opening()), NULLS)


def types(inferred: Inferred) -> dict[str, Any]:
    """Field name -> its type without the null that every field may be."""
    found = {}
    for field in json.loads(inferred.text)["fields"]:
        nothing, found[field["name"]] = field["type"]
        assert (nothing, field["default"]) == ("null", None)
    return found


def csv_type(tmp_path: Path, *cells: str) -> Any:
    path = tmp_path / "in.csv"
    path.write_text("v,w\n" + "".join(f'"{cell}",x\n' for cell in cells))
    return types(infer(path))["v"]


def json_type(tmp_path: Path, *values: Any) -> Any:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"v": value}) + "\n" for value in values))
    return types(infer(path))["v"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "-20", "", "NA"], "long"),
        (["1", "999999999999999999"], "long"),
        (["12345678901234567890"], "string"),
        (["007", "1"], "string"),
        (["+1"], "string"),
        (["1", "2.5", "NaN", "-inf", "1e-5"], "double"),
        (["1.5", "12345678901234567"], "string"),
        (["10.357019999999999"], "double"),
        (["1,5"], "string"),
        (["true", "False"], "boolean"),
        (["true", "0"], "string"),
        (["2013-01-31", "2013-02-01"], DATE),
        (["2013-01-31T10:00:00Z", "2013-01-31 10:00", "2013-01-31T10:00:00.123456+01:00"], INSTANT),
        (["2013-01-31T10:00:00.123456789Z"], "string"),
        (["31/01/2013"], "string"),
        (["", "NA"], "string"),
        (["naïve", "日本"], "string"),
    ],
)
def test_a_column_of_text_has_the_narrowest_type_that_keeps_it(tmp_path: Path, cells: list[str], expected: Any) -> None:
    assert csv_type(tmp_path, *cells) == expected


def test_the_whole_file_counts_not_its_start(tmp_path: Path) -> None:
    assert csv_type(tmp_path, *["1"] * 50_000, "x") == "string"


def test_few_values_that_make_a_column_text_are_pointed_out(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("v,empty\n" + "1,\n" * 99 + "n/a,\n")
    assert infer(path).notes == [
        "`v` is string: 1 of 100 values are no long, as 'n/a'",
        "`empty` is string: it has no value",
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, -5], "long"),
        ([1, 2.5], "double"),
        ([2**53 + 1, 2.5], JSON_TEXT),
        ([2**63], JSON_TEXT),
        ([True, False], "boolean"),
        ([True, 1], JSON_TEXT),
        (["a", 1], JSON_TEXT),
        (["a", ""], "string"),
        (["2013-01-31"], DATE),
        (["2013-01-31T10:00:00Z"], INSTANT),
        (["2013-01-31T10:00:00Z", "soon"], "string"),
        ([[1], [], [None]], {"type": "array", "items": ["null", "long"]}),
        ([[]], {"type": "array", "items": "string"}),
        ([{}], {"type": "map", "values": "string"}),
        ([None], "string"),
    ],
)
def test_a_json_field_has_what_all_its_values_have_in_common(tmp_path: Path, values: list[Any], expected: Any) -> None:
    assert json_type(tmp_path, *values) == expected


def test_a_json_number_with_more_digits_than_a_double_is_kept_as_its_text(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"v": 0.1234567890123456789, "w": 1.10}\n{"v": 1, "w": 1e400}\n{"v": [1e5], "w": 2}\n')
    assert types(infer(path)) == {"v": JSON_TEXT, "w": JSON_TEXT}
    assert [row["v"] for row in read_back(path)] == ["0.1234567890123456789", "1", "[100000.0]"]
    assert [float(row["w"]) for row in read_back(path)[::2]] == [1.1, 2.0]
    assert read_back(path)[1]["w"] == "1E+400"


def test_nested_objects_become_records_with_names_of_their_own(tmp_path: Path) -> None:
    record = json_type(tmp_path, {"a": {"x": 1}}, {"b": [{"x": "y"}]})
    assert record["name"] == "PageViews_v"
    (a, b) = record["fields"]
    assert (a["type"][1]["name"], a["type"][1]["fields"][0]["type"]) == ("PageViews_v_a", ["null", "long"])
    assert b["type"][1]["items"]["name"] == "PageViews_v_b_item"


def test_names_that_avro_does_not_allow_are_changed_kept_and_told(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("Unit price ($),unit-price,unit_price,1st,,prix_été\n1,2,3,4,5,6\n")
    fields = json.loads(infer(path).text)["fields"]
    assert [(field["name"], field.get("source")) for field in fields] == [
        ("Unit_price_2", "Unit price ($)"),
        ("unit_price_3", "unit-price"),
        ("unit_price", None),
        ("_1st", "1st"),
        ("column", ""),
        ("prix_ete", "prix_été"),
    ]
    assert "'1st' is no Avro name: the field is `_1st`" in infer(path).notes


def test_columns_of_one_name_are_told_apart_and_told(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("a,a\n1,x\n")
    inferred = infer(path)
    assert types(inferred) == {"a": "long", "a_2": "string"}
    assert inferred.notes == [f"{path} has column 'a' more than once: a later one is `a_2`"]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    zoned, naive = pa.timestamp("us", "Europe/Paris"), pa.timestamp("ms")
    columns = {
        "small": pa.array([1], pa.int8()),
        "unsigned": pa.array([2**64 - 1], pa.uint64()),
        "money": pa.array([Decimal("1.25")], pa.decimal128(9, 2)),
        "zoned": pa.array([dt.datetime(2013, 1, 1, tzinfo=dt.UTC)], zoned),
        "naive": pa.array([dt.datetime(2013, 1, 1)], naive),
        "day": pa.array([dt.date(2013, 1, 1)]),
        "clock": pa.array([dt.time(1)], pa.time32("s")),
        "category": pa.array(["a"]).dictionary_encode(),
        "raw": pa.array([b"\x00"]),
        "tags": pa.array([["a"]]),
        "point": pa.array([{"x": 1.5}]),
        "counts": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32())),
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    found = types(infer(tmp_path / "in.parquet"))
    point = found.pop("point")
    assert (point["type"], point["fields"][0]["type"]) == ("record", ["null", "double"])
    assert found == {
        "small": "int",
        "unsigned": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0},
        "money": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        "zoned": INSTANT,
        "naive": {"type": "long", "logicalType": "local-timestamp-millis"},
        "day": DATE,
        "clock": {"type": "int", "logicalType": "time-millis"},
        "category": "string",
        "raw": "bytes",
        "tags": {"type": "array", "items": ["null", "string"]},
        "counts": {"type": "map", "values": ["null", "int"]},
    }


def test_a_parquet_type_without_an_avro_type_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"took": pa.array([dt.timedelta(seconds=1)])}), tmp_path / "in.parquet")
    with pytest.raises(TidemarkError, match=r"UNSUPPORTED_TYPE: .*took` is duration"):
        infer(tmp_path / "in.parquet")


def test_an_avro_file_brings_its_schema(tmp_path: Path) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "at", "type": INSTANT, "doc": "when"}]}
    with (tmp_path / "in.avro").open("wb") as file:
        fastavro.writer(file, schema, [{"at": 1}])
    assert json.loads(infer(tmp_path / "in.avro").text) == schema


@pytest.mark.parametrize("data", ["", "id,name\n"])
def test_without_rows_there_is_nothing_to_infer(tmp_path: Path, data: str) -> None:
    (tmp_path / "in.csv").write_text(data)
    with pytest.raises(TidemarkError, match=r"NO_ROWS: .*in\.csv; give the schema"):
        infer(tmp_path / "in.csv")


def test_files_of_different_kinds_have_no_one_schema(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("v\n1\n")
    (tmp_path / "b.jsonl").write_text('{"v": 1}\n')
    with pytest.raises(TidemarkError, match=r"MIXED_FILES: .*b\.jsonl"):
        infer(tmp_path / "a.csv", tmp_path / "b.jsonl")
