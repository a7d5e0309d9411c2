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
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conf.errors import TidemarkError
from producers.files.inputs import Opening, open_inputs
from producers.files.schema import Inferred, infer_schema
from schemas.contracts import require_event
from tests.producers.files.read_back import both_ways, read_back

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


NAMES = [
    "",
    "a",
    "A",
    "a b",
    "a-b",
    "a_b",
    "a_B",
    "a.b",
    "a_b_2",
    "b",
    "b_c",
    "c",
    "日本",
    "中国",
    "column",
    "column_2",
]
NAMES += ["1st", "_1st", "tag", "tag_item", "item", "tag_value", "items", "values", "record", "null", "type", "é", "[]"]
NAMES += [
    "_topic",
    "_Offset",
    "topic",
    "tidemark_x",
    "tidemark-x",
    "_tidemark_x",
    "\0",
    "\u2028",
    '"',
    "\\",
    "PageViews",
]
ANY_NAME = st.one_of(st.sampled_from(NAMES), st.text(max_size=3))
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text("abc 日\0\n", max_size=3))
OBJECT = st.dictionaries(
    ANY_NAME,
    st.recursive(
        PLAIN,
        lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(ANY_NAME, inner, max_size=3)),
        max_leaves=8,
    ),
    max_size=4,
)


def by_source(avro: Any, value: Any) -> Any:
    """A value that was published, under the names that its file has; what is missing there is null."""
    if value is None:
        return None
    if isinstance(avro, list):
        return by_source(avro[1], value)
    if isinstance(avro, dict) and avro.get("json"):
        return ("json", value)
    if isinstance(avro, dict) and avro["type"] == "record":
        return {
            field.get("source", field["name"]): by_source(field["type"], value[field["name"]])
            for field in avro["fields"]
        }
    if isinstance(avro, dict) and avro["type"] == "array":
        return [by_source(avro["items"], item) for item in value]
    if isinstance(avro, dict) and avro["type"] == "map":
        return {key: by_source(avro["values"], item) for key, item in value.items()}
    return value


def is_same(found: Any, said: Any) -> bool:
    if isinstance(found, tuple):
        return found[1] == said or (not isinstance(said, str) and json.loads(found[1]) == said)
    if isinstance(found, dict) and isinstance(said, dict):
        return said.keys() <= found.keys() and all(is_same(value, said.get(name)) for name, value in found.items())
    if isinstance(found, list) and isinstance(said, list):
        return len(found) == len(said) and all(map(is_same, found, said))
    return bool(found == said) and type(found) is type(said)


def record_names(avro: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """Where each record lies, and its name."""
    if isinstance(avro, list):
        return {place: name for branch in avro for place, name in record_names(branch, path).items()}
    if not isinstance(avro, dict):
        return {}
    names = {path: avro["name"]} if avro["type"] == "record" else {}
    for field in avro.get("fields", ()):
        names |= record_names(field["type"], (*path, field.get("source", field["name"])))
    return names | record_names(avro.get("items"), (*path, "[")) | record_names(avro.get("values"), (*path, "{"))


def assert_takes(path: Path, rows: list[dict[str, Any]]) -> Any:
    inferred = infer(path)
    require_event("page-views-value", inferred.text)
    schema = json.loads(inferred.text)
    found, rejects = both_ways(path, inferred.text)
    assert rejects == []
    assert all(is_same(by_source(schema, value), row) for value, row in zip(found, rows, strict=True)), (found, rows)
    return schema


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(OBJECT, min_size=1, max_size=3))
@example(rows=[{"日本": {"a": 1}, "中国": {"b": 1}}])
@example(rows=[{"user-id": {"x": 1}, "user_id": {"y": 1}}])
@example(rows=[{"tag": [{"x": 1}], "tag_item": {"y": 1}}])
@example(rows=[{"a": {"b_c": {"x": 1}}, "a_b": {"c": {"x": 1}}}, {"a_b_2": {"c": {"y": {}}}}])
@example(rows=[{"_topic": 1, "topic": 2, "_TOPIC": {"_topic": 1}, "tidemark_x": 3, "_tidemark_x": 4}])
def test_json_objects_with_names_of_any_kind_are_taken_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("json") / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = record_names(assert_takes(path, rows))
    assert len(set(names.values())) == len(names)
    path.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    assert record_names(assert_takes(path, rows[::-1])) == names


def struct_of(fields: dict[str, tuple[pa.DataType, Any]]) -> tuple[pa.DataType, Any]:
    kind = pa.struct([(name, kind) for name, (kind, _) in fields.items()])
    return kind, {name: value for name, (_, value) in fields.items()}


ARROW = st.recursive(
    st.sampled_from([(pa.int64(), 5), (pa.string(), "x"), (pa.bool_(), True)]),
    lambda inner: st.one_of(
        inner.map(lambda pair: (pa.list_(pair[0]), [pair[1], None])),
        inner.map(lambda pair: (pa.map_(pa.string(), pair[0]), {"k": pair[1]})),
        st.dictionaries(ANY_NAME, inner, min_size=1, max_size=3).map(struct_of),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(columns=st.dictionaries(ANY_NAME, ARROW, min_size=1, max_size=4))
@example(columns={"a b": (pa.struct([("x", pa.int64())]), {"x": 1}), "a_b": (pa.struct([("y", pa.int64())]), {"y": 2})})
def test_parquet_columns_with_names_of_any_kind_are_taken_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, columns: dict[str, tuple[pa.DataType, Any]]
) -> None:
    path = tmp_path_factory.mktemp("parquet") / "in.parquet"
    arrays = [
        pa.array([list(value.items()) if pa.types.is_map(kind) else value, None], kind)
        for kind, value in columns.values()
    ]
    pq.write_table(pa.Table.from_arrays(arrays, names=list(columns)), path)
    assert_takes(path, [{name: value for name, (_, value) in columns.items()}, dict.fromkeys(columns)])


def test_a_name_that_is_changed_or_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"_topic": 1, "b": 1, "B": 2}\n{"\\ud800": 1}\n{"b": 3}\n')
    assert infer(path).notes == [
        "'_topic' is another column's name, whatever the case: the field is `topic`",
        "'B' is another column's name, whatever the case: the field is `B_2`",
        "there are names with half of a surrogate pair, which are no text: their rows will be rejected",
    ]
    found, rejects = both_ways(path)
    assert ([row["b"] for row in found], [line for line, _ in rejects]) == ([1, 3], [2])


@pytest.mark.parametrize("depth", [31, 32, 33, 100])
@pytest.mark.parametrize("start", ['{"r":', "[", '{"r":['])
def test_json_that_lies_deeper_than_schemas_may_is_its_text_from_there_on(
    tmp_path: Path, depth: int, start: str
) -> None:
    end = "".join({"{": "}", "[": "]"}.get(letter, "") for letter in reversed(start))
    path, levels = tmp_path / "in.jsonl", len(end) * depth
    path.write_text('{"v":' + start * depth + '{"x":1}' + end * depth + "}\n{}\n")
    assert_takes(path, [json.loads(line) for line in path.read_text().splitlines()])
    assert any("values that go on below 32 levels" in note for note in infer(path).notes) == (levels >= 31)


def test_parquet_that_lies_deeper_than_schemas_may_is_named(tmp_path: Path) -> None:
    kind = pa.int64()
    for _ in range(40):
        kind = pa.list_(kind)
    pq.write_table(pa.table({"v": pa.array([None], kind)}), tmp_path / "in.parquet")
    with pytest.raises(TidemarkError, match=r"UNSUPPORTED_TYPE: .* lies 32 levels deep and goes on"):
        infer(tmp_path / "in.parquet")
