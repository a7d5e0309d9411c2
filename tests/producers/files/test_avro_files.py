"""An Avro file's rows arrive as the file has them, whatever its types, unions and codec."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pytest
from fastavro.schema import SchemaParseException
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from conf.errors import TidemarkError
from producers.files.avro_rows import UNPACK
from producers.files.inputs import Opening, open_inputs
from producers.files.request import FileRequest, Parts
from producers.files.row_reader import RowReader
from producers.files.schema import infer_schema
from schemas.codec import HEADER, Encoder
from tests.jobs.connectors.avro.avro_examples import INSTANTS, fields, named, types, utc, values
from tests.producers.files.read_back import NULLS, inferred, read_back

ADDRESS = {"type": "record", "name": "Address", "fields": [{"name": "zip", "type": "string"}]}
GEO = {"type": "record", "name": "Geo", "namespace": "maps", "fields": [{"name": "x", "type": ["null", "int"]}]}
DATE = {"type": "int", "logicalType": "date"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
UUID_TEXT = {"type": "string", "logicalType": "uuid"}
SYMBOL = {"type": "enum", "name": "Sym", "symbols": ["A", "B"]}
QUERY = {"type": "record", "name": "Query", "fields": [{"name": "x", "type": "long", "default": 7}]}


def tagged(**branches: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values with the names of their branches."""
    return st.one_of(*(st.tuples(st.just(name), of) for name, of in branches.items()))


# Branches that Python's values alone do not tell apart.
ALIKE: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (["null", ADDRESS], st.one_of(st.none(), st.builds(lambda z: {"zip": z}, st.text(max_size=3)))),
    (["null", "double", "float"], st.floats(width=32)),
    (["float", "double"], st.floats()),
    (["double", "long"], st.one_of(st.floats(), st.integers(-(2**63), 2**63 - 1))),
    (["float", "int", "null"], st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1), st.floats(width=32))),
    (
        [{"type": "enum", "name": "E", "symbols": ["P", "Q"]}, {"type": "enum", "name": "F", "symbols": ["P", "R"]}],
        st.sampled_from([("E", "P"), ("F", "P"), ("F", "R")]),
    ),
    (
        [{"type": "fixed", "name": "X", "size": 2}, {"type": "fixed", "name": "Y", "size": 2}, "bytes"],
        st.sampled_from([("X", b"ab"), ("Y", b"ab"), ("bytes", b"ab")]),
    ),
    (
        [{"type": "map", "values": "int"}, {"type": "array", "items": "int"}],
        st.one_of(st.lists(st.integers(0, 9), max_size=1), st.dictionaries(st.text(max_size=1), st.integers(0, 9))),
    ),
    (
        [{"type": "map", "values": ADDRESS}, {"type": "array", "items": ["Address", GEO]}],
        st.lists(st.sampled_from([("Address", {"zip": "1"}), ("maps.Geo", {"x": 1})]), max_size=2),
    ),
    (
        ["null", {"type": "fixed", "name": "D", "size": 8, "logicalType": "decimal", "precision": 18, "scale": 2}],
        st.one_of(st.none(), st.decimals(-(10**10), 10**10, places=2)),
    ),
    (["null", DATE, "long"], tagged(int=st.dates(), long=st.integers(-9, 9))),
    ([MICROS, "int"], tagged(long=INSTANTS.map(utc), int=st.integers(-9, 9))),
    (["float", "double"], tagged(float=st.floats(width=32), double=st.floats(width=32))),
    (["int", "long", "boolean"], tagged(int=st.integers(-9, 9), long=st.integers(-9, 9), boolean=st.booleans())),
    (["null", SYMBOL, "string", "bytes"], tagged(Sym=st.just("A"), string=st.just("A"), bytes=st.just(b"A"))),
    ([UUID_TEXT, "bytes"], tagged(string=st.uuids(), bytes=st.binary(max_size=3))),
    ([QUERY, {"type": "map", "values": "long"}], tagged(Query=st.just({"x": 3}), map=st.sampled_from([{"x": 3}, {}]))),
]


def container(schema: Any, records: list[Any], codec: str = "null") -> bytes:
    stream = io.BytesIO()
    fastavro.writer(stream, schema, records, codec=codec)
    return stream.getvalue()


def check(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    text = inferred(path)
    assert json.loads(text) == json.loads(fastavro.reader(io.BytesIO(data)).metadata["avro.schema"])
    # With the names of branches: a value in another branch of its union is another value.
    expected = list(fastavro.reader(io.BytesIO(data), return_named_type=True))
    assert list(map(repr, read_back(path, text, named=True))) == list(map(repr, expected))
    return text


@st.composite
def files(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    schema = named({"type": "record", "fields": fields(draw(st.lists(types(), min_size=1, max_size=4)))}, "Event")
    records = draw(st.lists(values(schema), min_size=1, max_size=3))
    try:
        return container(schema, records)
    except SchemaParseException:  # a fixed too short for its decimal
        reject()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=files())
def test_every_row_of_any_schema_is_read_back_as_the_file_has_it(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    check(tmp_path_factory.mktemp("avro") / "in.avro", data)


@pytest.mark.parametrize("place", ["field", "array", "map", "record"])
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=st.data())
@pytest.mark.parametrize("number", range(len(ALIKE)))
def test_a_branch_of_a_union_is_the_files_own(
    tmp_path_factory: pytest.TempPathFactory, drawn: st.DataObject, place: str, number: int
) -> None:
    union, of = ALIKE[number]
    value = drawn.draw(of)
    shapes: dict[str, tuple[Any, Any]] = {
        "field": (union, value),
        "array": ({"type": "array", "items": union}, [value]),
        "map": ({"type": "map", "values": union}, {"k": value}),
        "record": (
            ["null", {"type": "record", "name": "In", "fields": [{"name": "v", "type": union}]}],
            ("In", {"v": value}),
        ),
    }
    kind, held = shapes[place]
    schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": kind}]}
    path = tmp_path_factory.mktemp("avro") / "in.avro"
    data = container(schema, [{"v": held}])
    text = check(path, data)
    rows = RowReader(text, FileRequest("t", [path], Parts(None)))
    for file in open_inputs([path], Opening()):
        for row in file.rows():
            # Of numbers, only the bytes tell the branch.
            assert Encoder(1, text)(rows.value(row, file))[HEADER.size :] in data


def test_records_in_unions_arrive_by_their_names(tmp_path: Path) -> None:
    schema = {
        "type": "record",
        "name": "Order",
        "fields": [
            {"name": "address", "type": ["null", ADDRESS]},
            {"name": "place", "type": ["null", "Address", GEO]},
            {"name": "stops", "type": {"type": "array", "items": ["null", "maps.Geo"]}},
            {"name": "by", "type": {"type": "map", "values": ["Address", "maps.Geo"]}},
        ],
    }
    geo = {"x": 9}
    rows = [
        {
            "address": {"zip": "01234"},
            "place": ("maps.Geo", geo),
            "stops": [geo, None],
            "by": {"a": ("Address", {"zip": "1"})},
        },
        {"address": None, "place": ("Address", {"zip": "7"}), "stops": [], "by": {"a": ("maps.Geo", {"x": None})}},
    ]
    check(tmp_path / "in.avro", container(schema, rows))


def test_a_header_that_other_readers_take_is_taken_without_what_means_nothing_or_something_else_here(
    tmp_path: Path,
) -> None:
    field_a = {"name": "a", "type": ["string", "null"], "default": None, "source": "crm"}
    field_b = {"name": "b", "type": {"type": "bytes", "json": True}}
    field_c = {"name": "c", "type": "bytes", "default": "€"}
    rows = [{"a": "x", "b": b"y", "c": b""}, {"a": None, "b": b"", "c": b"z"}]
    path = tmp_path / "in.avro"
    path.write_bytes(container({"type": "record", "name": "R", "fields": [field_a, field_b, field_c]}, rows))
    found = infer_schema("t", open_inputs([path], Opening()), NULLS)
    assert json.loads(found.text)["fields"] == [
        {"name": "a", "type": ["string", "null"], "default": None},
        {"name": "b", "type": {"type": "bytes"}},
        {"name": "c", "type": "bytes"},
    ]
    assert found.notes == [
        'field `a`: the file\'s own attribute `source`, "crm", has another meaning here: it is left out',
        "type bytes: the file's own attribute `json`, true, has another meaning here: it is left out",
        'field `c` of `R`: the default "\\u20ac" is none that bytes can hold: it is left out',
    ]
    assert read_back(path) == rows


def test_a_header_that_is_no_schema_of_a_topic_is_refused_as_the_files(tmp_path: Path) -> None:
    header = {"type": "record", "name": "R", "namespace": "a-b", "fields": [{"name": "a", "type": "long"}]}
    (tmp_path / "in.avro").write_bytes(container(header, [{"a": 1}]))
    with pytest.raises(TidemarkError, match=r"INVALID_SCHEMA: .*in\.avro: its own is not a valid .*; give another for"):
        inferred(tmp_path / "in.avro")


@pytest.mark.parametrize("codec", UNPACK)
def test_every_codec_is_read(tmp_path: Path, codec: str) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}]}
    check(tmp_path / "in.avro", container(schema, [{"id": number} for number in range(100)], codec))


def test_a_codec_that_nothing_here_reads_is_named_with_a_true_remedy(tmp_path: Path) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}]}
    data = container(schema, [{"id": 1}], "deflate").replace(b"\x0edeflate", b"\x0edeflat2")
    (tmp_path / "in.avro").write_bytes(data)
    with pytest.raises(TidemarkError, match=r"BAD_FILE: .*with deflat2, .*; the file may be sound: write it anew"):
        next(open_inputs([tmp_path / "in.avro"], Opening()))
