"""Rows that are read as columns give the records and the rejects that they give one by one, whatever they hold."""

import datetime as dt
import json
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conf.errors import TidemarkError
from jobs.connectors.kafka.refusals import Limits
from producers.files import json_rows, parquet_rows
from producers.files import rows as file_rows
from producers.files.columns import Fitting
from producers.files.records import Codec, FileRows
from producers.files.rejects import RejectLimit, Rejects
from producers.files.request import FileRequest, Parts
from producers.files.row_reader import PartsReader, RowReader
from schemas.codec import HEADER, reader
from schemas.values import Reading

MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
LOCAL = {"type": "long", "logicalType": "local-timestamp-micros"}
DATE = {"type": "int", "logicalType": "date"}
TIME = {"type": "int", "logicalType": "time-millis"}
UUID = {"type": "string", "logicalType": "uuid"}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
FIXED_DECIMAL = {"type": "fixed", "name": "D", "size": 5, "logicalType": "decimal", "precision": 9, "scale": 2}
FIXED = {"type": "fixed", "name": "F", "size": 3}
ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B", "C"]}
SCALARS: list[Any] = ["boolean", "int", "long", "float", "double", "string", "bytes", {"type": "string", "json": True}]
SCALARS += [MILLIS, MICROS, LOCAL, DATE, TIME, UUID, DECIMAL, FIXED_DECIMAL, FIXED, ENUM]
ITEM = {
    "type": "record",
    "name": "I",
    "fields": [{"name": "a", "type": ["null", "int"]}, {"name": "b", "type": "string"}],
}
NESTED: list[Any] = [
    {"type": "array", "items": "int"},
    {"type": "array", "items": ["null", "string"]},
    {"type": "map", "values": "long"},
    {"type": "map", "values": ["null", "double"]},
    ITEM,
    {"type": "array", "items": ["null", ITEM]},
]
NEW_YORK = ZoneInfo("America/New_York")
ID = "0F8FAD5B-D9CB-469F-A165-70867728950E"
TIMES = ["2013-01-01", "20130101", "2013-01-01T05:06:07Z", "2013-01-01 05:06:07", "2013-01-01T05:06", "2013-01-01T05"]
TIMES += ["2013-01-01T05:06:07.123Z", "2013-01-01T05:06:07.123456Z", "2013-01-01T05:06:07.1234567Z", "2013-W05-4"]
TIMES += ["2013-01-01T05:06:07+05:30", "2013-02-30T05:06:07Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z"]
TIMES += ["9999-12-31T23:59:59Z", "2013-01-01T24:00:00Z", "2013-01-01T05:06:60Z", "2013-01-01t05:06:07z", "13:45:00.5"]
TIMES += ["2013-03-10T02:30:00", "2013-11-03T01:30:00", "1969-12-31T23:59:59Z", "2013-01-01T05:06:07,5Z", "0000-01-01"]
NUMBERS = [
    "0",
    "5",
    "-0",
    "+5",
    " 5",
    "5 ",
    "007",
    "1_0",
    "\uff19",
    "0x10",
    "0X1f",
    "1.",
    ".5",
    ".",
    "-",
    "+",
    "1.5",
    "-1.50",
]
NUMBERS += [
    "1e5",
    "1E-2",
    "e5",
    "1e",
    "nan",
    "NaN",
    "-inf",
    "Infinity",
    "1e999",
    "-1e999",
    "0.1",
    "0.30000000000000004",
]
NUMBERS += [
    "0.300000000000000040",
    "0.30000000000000001",
    "1.005",
    "9007199254740993",
    "12345678901234567890",
    "1" * 70,
]
NUMBERS += ["9223372036854775807", "9223372036854775808", "-9223372036854775808", "2147483647", "2147483648", "-0.0"]
NUMBERS += [
    "0" * 70 + "1",
    "0" * 30 + "1",
    "16777217",
    "1234567.89",
    "12345678.90",
    "-1.28",
    "-2.56",
    "5.000000000000000",
]
NUMBERS += ["100000000000000000000", "123456789012345680000.0", "1e22", "4.9e-324", "3.4028236e38", "--5", "1,5", "5\t"]
TEXTS = [
    "",
    " ",
    "NA",
    "x",
    "A",
    "C",
    "D",
    "true",
    "True",
    "TRUE",
    "tRue",
    "yes",
    ID,
    ID.lower(),
    "{" + ID.lower() + "}",
]
TEXTS += [
    "ü€𝄞",
    'q"uo"te',
    "a,b",
    "x\ny",
    "\ufeffx",
    "'",
    "\\",
    '""',
    "abc",
    "y" * 300,
    "\u2028",
    "x\ry",
    "x\x0by",
    "null",
]
POOL = [*TIMES, *NUMBERS, *TEXTS]
NO_KEY = Parts(None)
BAD_UTF8 = b"x\xff"


def accounts(
    path: Path,
    avro_type: Any,
    by_columns: bool,
    parts: Parts,
    reading: Reading,
    fields: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[Any], str]:
    """Every record, and the reject file."""
    text = json.dumps({"type": "record", "name": "R", "fields": [*fields, {"name": "v", "type": avro_type}]})
    request = FileRequest("topic", [path], parts, reading=reading, limit=RejectLimit(share=None))
    codec = Codec(RowReader(text, request), 1, text, Limits(max_message_bytes=300, ahead_ms=10**9), by_columns)
    rejects_path = path.with_suffix(f".{by_columns}")
    rejects_path.unlink(missing_ok=True)
    rejects = Rejects(iter([rejects_path]), request.limit, reported=0)
    rows, cause = FileRows(request, codec, rejects), ""
    listed: list[Any] = []
    try:
        for batch in rows.batches():
            keys = [key.encode() if isinstance(key, str) else key for key in batch.keys]
            listed += zip(batch.values, keys, batch.timestamps, strict=True)
    except TidemarkError as error:
        cause = error.code
    rejects.close()
    assert rows.read == len(listed) + rejects.count
    return listed, cause + (rejects_path.read_text() if rejects_path.exists() else "")


def assert_same(path: Path, avro_type: Any, parts: Parts = NO_KEY, zone: Any = dt.UTC, **more: Any) -> int:
    reading = Reading(zone=zone, ambiguous="reject")
    by_columns = accounts(path, avro_type, True, parts, reading, **more)
    row_by_row = accounts(path, avro_type, False, parts, reading, **more)
    assert by_columns == row_by_row
    return len(by_columns[0])


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value ends up alone in its piece, so that each is tried as a column."""
    for module in (file_rows, parquet_rows):
        monkeypatch.setattr(module, "LEAST_ROWS", 1)
    monkeypatch.setattr(file_rows, "BLOCK_BYTES", 40)
    # One line of several values would have the whole file read as such.
    monkeypatch.setattr(json_rows, "spans_lines", lambda start: False)
    monkeypatch.setattr("producers.files.columns.TRIED_PIECES", 10**6)


def in_roles(path: Path, avro_type: Any, **more: Any) -> None:
    kind = avro_type if isinstance(avro_type, str) else avro_type["type"]
    for nullable in (avro_type, ["null", avro_type], [avro_type, "null"]):
        assert_same(path, nullable, **more)
    if kind not in ("float", "double", "array", "map", "record"):
        assert_same(path, ["null", avro_type], Parts("v"), **more)
    if avro_type in ("int", "long", MILLIS, MICROS):
        assert_same(path, avro_type, Parts(None, "v"), **more)
        assert_same(path, ["null", avro_type], Parts("v", "v", "s"), **more)


@pytest.mark.exhaustive
@pytest.mark.parametrize("avro_type", SCALARS, ids=str)
@pytest.mark.parametrize("zone", [dt.UTC, NEW_YORK], ids=str)
def test_cells_of_csv(tmp_path: Path, avro_type: Any, zone: Any) -> None:
    path = tmp_path / "in.csv"
    quoted = "".join(f'"{text.replace(chr(34), chr(34) * 2)}"\n' for text in POOL)
    path.write_bytes(b"v\n" + "\n".join(POOL).encode() + b"\n" + quoted.encode() + BAD_UTF8 + b'\n"open\n1,2\n\n5')
    in_roles(path, avro_type, zone=zone)


def json_lines(avro_type: Any) -> list[str]:
    lines = [json.dumps({"v": text}, ensure_ascii=False) for text in POOL] + [json.dumps({"v": text}) for text in TEXTS]
    lines += [
        f'{{"v": {number}}}' for number in [*NUMBERS, "null", "true", "[1, 2]", "[]", '["a", null]', "{}", '{"a": 1}']
    ]
    lines += [
        '{"v": {"a": 1, "b": "x"}}',
        '{"v": {"a": 1.5}}',
        '{"v": [{"a": null, "b": ""}, null]}',
        '{"v": {"a": 1, "a": 2}}',
    ]
    lines += [
        "{}",
        '{"v": 1, "v": 2}',
        '{"v": 1} {"v": 2}',
        '{"w": 1}',
        '{"v": "\\ud800"}',
        '{"v": "\\u0000"}',
        "[1]",
        "1",
        "{",
    ]
    return [
        *lines,
        '{"v": 1}x',
        '{"v": 1,}',
        ' {"v": 5}',
        '{"v": 5} ',
        "",
        "  ",
        '{"v":\t5}\r',
        '{"v": "a\tb"}',
        "{'v': 1}",
    ]


@pytest.mark.exhaustive
@pytest.mark.parametrize("avro_type", [*SCALARS, *NESTED], ids=str)
@pytest.mark.parametrize("default", ["none", None], ids=str)
def test_values_of_json_lines(tmp_path: Path, avro_type: Any, default: Any) -> None:
    path = tmp_path / "in.jsonl"
    for first in ('{"v": 1}', '{"v": "2013-01-01T00:00:00Z"}'):
        path.write_bytes("\n".join([first, *json_lines(avro_type)]).encode() + b'\n{"v": "\xff"}\n{"v": 7}')
        fields = [] if default == "none" else [{"name": "w", "type": ["null", "string"], "default": default}]
        in_roles(path, avro_type, fields=fields)


def moments(unit: str, zone: str | None) -> pa.Array:
    day = {"s": 86_400, "ms": 86_400_000, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}[unit]
    values: list[int | None] = [
        0,
        -1,
        1,
        None,
        15_706 * day + 1,
        15_706 * day,
        86_399_999_999,
        2**62,
        -(2**62),
        2**63 - 1,
    ]
    if unit != "ns":
        values += [-719_162 * day, -719_163 * day, 2_932_896 * day, 2_932_897 * day]
    return pa.array(values, pa.int64()).cast(pa.timestamp(unit, zone))


def arrow_columns() -> dict[str, pa.Array]:
    whole = [0, 1, -1, None, 2**31 - 1, 2**31, -(2**31) - 1, 2**53, 2**53 + 1, 2**24, 2**24 + 1, 2**63 - 1, -(2**63)]
    whole += [86_399_999, 86_400_000, 1_356_998_400_000, 253_402_300_799_999, -62_135_596_800_001, 2_932_896, 2_932_897]
    doubles = [0.0, -0.0, 1.5, 0.1, None, float("nan"), float("inf"), float("-inf"), 3.5e38, 1e300, 5e-324, 16777217.0]
    texts = [*POOL, None]
    raw = pa.array([text if text is None else text.encode() for text in texts] + [BAD_UTF8, b"abc", b"ab", b"x" * 300])
    invalid = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    decimals = [Decimal("1.50"), Decimal("-1.28"), Decimal("-2.56"), None, Decimal("9999999.99"), Decimal("0.00")]
    items = [{"a": 1, "b": "x"}, {"a": None, "b": ""}, None, {"a": 2**31, "b": "y"}, {"a": 1, "b": None}]
    kinds = [("large_string", pa.array(texts, pa.large_string())), ("dictionary", pa.array(texts).dictionary_encode())]
    return {
        **{f"int{bits}": pa.array([0, 1, -1, None, 100], getattr(pa, f"int{bits}")()) for bits in (8, 16, 32)},
        "int64": pa.array(whole, pa.int64()),
        "uint64": pa.array([0, 1, None, 2**63, 2**64 - 1], pa.uint64()),
        "uint32": pa.array([0, None, 2**32 - 1], pa.uint32()),
        "bool": pa.array([True, False, None]),
        "double": pa.array(doubles, pa.float64()),
        "float": pa.array([None, 0.1, 1.5, -0.0, float("nan"), float("inf")], pa.float32()),
        "string": invalid,
        **dict(kinds),
        "binary": raw,
        "fixed": pa.array([b"abc", None, b"xyz"], pa.binary(3)),
        "fixed of 2": pa.array([b"ab", None], pa.binary(2)),
        "decimal": pa.array(decimals, pa.decimal128(9, 2)),
        "longer decimal": pa.array([*decimals, Decimal("12345678901.00")], pa.decimal128(38, 2)),
        "finer decimal": pa.array([*decimals, Decimal("1.505"), Decimal("1.500")], pa.decimal128(20, 3)),
        "date": pa.array([0, 1, None, -719_162, -719_163, 2_932_896, 2_932_897], pa.int32()).cast(pa.date32()),
        "time ms": pa.array([0, 1, None, 86_399_999], pa.int32()).cast(pa.time32("ms")),
        "time ns": pa.array([0, 1, None, 10**6, 10**9], pa.int64()).cast(pa.time64("ns")),
        **{f"local {unit}": moments(unit, None) for unit in ("ms", "us", "ns")},
        **{f"instant {unit}": moments(unit, "UTC") for unit in ("ms", "us", "ns")},
        "in New York": moments("us", "America/New_York"),
        "null": pa.nulls(3),
        "list of int": pa.array([[1, 2], [], None, [1, None], [2**31]], pa.list_(pa.int64())),
        "list of string": pa.array([["a", None], [], None, ["b"]], pa.large_list(pa.string())),
        "map of int": pa.array(
            [[("a", 1)], [], None, [("a", 1), ("a", 2)], [("b", None)]], pa.map_(pa.string(), pa.int64())
        ),
        "map of double": pa.array([[("a", 1.5), ("b", None)], [], None], pa.map_(pa.string(), pa.float64())),
        "record": pa.array(items, pa.struct([("b", pa.string()), ("a", pa.int64())])),
        "other record": pa.array([{"a": 1, "c": "x"}], pa.struct([("a", pa.int64()), ("c", pa.string())])),
        "list of record": pa.array([items, [], None], pa.list_(pa.struct([("a", pa.int64()), ("b", pa.string())]))),
    }


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", arrow_columns())
def test_columns_of_parquet(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in.parquet"
    column = arrow_columns()[name]
    pq.write_table(pa.table({"v": pa.concat_arrays([column, column]) if name != "string" else column}), path)
    for avro_type in [*SCALARS, *NESTED]:
        if Fitting(Reading()).of(avro_type, column.type):  # otherwise there is one way only
            in_roles(path, avro_type)
    if name.startswith(("local", "instant")):
        in_roles(path, MICROS, zone=NEW_YORK)


ID_TEXTS = [ID, ID.lower(), ID.lower()[:-1] + " ", "_" + ID[1:], "+" + ID[1:], ID.replace("-", ""), "{" + ID + "}"]
WHOLE = ["1.0", "1e3", "5.", "-0.0", "007.0", "1.5", "1e-3", ".0", "1e99999", "1e99999999999999999999", "1e18"]
WHOLE += ["9223372036854775807.0", "9223372036854775808.0", "-2147483648.000", "2147483648.0", "7", "", "x.0"]


@pytest.mark.parametrize(
    ("avro_type", "texts", "accepted"),
    [(UUID, ID_TEXTS, 4), ("long", WHOLE, 11), ("int", WHOLE, 8), (FIXED, ["abc", "ab", "é", "éa", ""], 2)],
    ids=str,
)
def test_cells_of_csv_that_few_columns_have(tmp_path: Path, avro_type: Any, texts: list[str], accepted: int) -> None:
    path = tmp_path / "in.csv"
    path.write_text("v,w\n" + "\n".join(f"{text},x" for text in texts))
    fields = [{"name": "w", "type": "string"}]
    assert assert_same(path, avro_type, fields=fields) == accepted
    assert assert_same(path, ["null", avro_type], Parts("v"), fields=fields) == accepted


@pytest.mark.parametrize(
    ("avro_type", "numbers", "accepted"),
    [
        ("long", ["1.0", "1e3", "-0", "1.5", "1e18", "1e400", "1e-99999999999999999999", "9" * 5_000], 4),
        ("double", ["-0", "-0.0", "1e400", "1e-99999999999999999999", "0.10", "9" * 5_000], 3),
        ("bytes", ['"a\\u00ff"', '"\\u0100"', '"é"', "5"], 2),
        (FIXED, ['"abc"', '"ab"', '"ab\\u0100"'], 1),
        (
            {"type": "map", "values": "long"},
            ['{"x": 1, "x": 2}', "[" * 50_000, '{"x": 1}', '"\u2028"', '{"\u2028": 1}'],
            2,
        ),
    ],
    ids=str,
)
def test_json_that_few_files_have(tmp_path: Path, avro_type: Any, numbers: list[str], accepted: int) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(f'{{"v": {number}}}' for number in numbers))
    assert assert_same(path, avro_type) == accepted


def test_a_zero_with_a_minus_keeps_it_in_a_double(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"v": -0}')
    found = {kind: accounts(path, kind, True, NO_KEY, Reading())[0][0][0][HEADER.size :] for kind in ("double", "long")}
    assert found == {"double": struct.pack("<d", -0.0), "long": b"\0"}


def test_whole_numbers_with_a_point_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    for kind in (pa.float64(), pa.float32()):
        numbers = [1.0, None, -0.0, 1.5, float("nan"), float("inf"), 2.0**24, 2.0**31, 2.0**53, 2.0**60, 1e300]
        pq.write_table(pa.table({"v": pa.array(numbers).cast(kind, safe=False)}), path)
        assert [assert_same(path, avro_type) for avro_type in ("int", "long")] == [3, 5]
        assert assert_same(path, ["null", "long"]) == 6


@pytest.mark.parametrize("unit", ["s", "ns", None], ids=str)
@pytest.mark.parametrize("logical", ["timestamp-millis", "timestamp-nanos", "local-timestamp-micros", "date"])
def test_numbers_that_are_times_have_one_unit_in_every_file(tmp_path: Path, logical: str, unit: str | None) -> None:
    avro_type = {"type": "int" if logical == "date" else "long", "logicalType": logical}
    numbers = ["1384300800", "1384300800000000000", "15", "86400", "-1", "1384300800.5", "9223372036854775807", "1e9"]
    (tmp_path / "in.csv").write_text("v\n" + "\n".join([*numbers, "2013-11-13T00:00:00Z", "2013-11-13", "x"]))
    (tmp_path / "in.jsonl").write_text("\n".join(f'{{"v": {number}}}' for number in [*numbers, '"2013-11-13"']))
    whole = [int(number) for number in numbers if number.strip("-").isdigit()]
    pq.write_table(pa.table({"v": [*whole, None]}), tmp_path / "in.parquet")
    pq.write_table(
        pa.table({"v": pa.array([15_706], pa.int64()).cast(pa.timestamp("s", "UTC"))}), tmp_path / "t.parquet"
    )
    for name in ("in.csv", "in.jsonl", "in.parquet", "t.parquet"):
        assert_same(tmp_path / name, ["null", avro_type], Parts(None, "v", unit))
    parts = Parts(None, "v", unit)
    listed = accounts(tmp_path / "in.jsonl", avro_type, True, parts, Reading())[0]
    decode = reader(json.dumps({"type": "record", "name": "R", "fields": [{"name": "v", "type": avro_type}]}))
    if (unit, logical) == ("s", "timestamp-millis"):
        assert decode(listed[0][0][HEADER.size :])["v"] == dt.datetime(2013, 11, 13, tzinfo=dt.UTC)
        assert listed[0][2] == 1_384_300_800_000


@pytest.mark.parametrize("error", [ZeroDivisionError, TypeError, RecursionError], ids=lambda error: error.__name__)
def test_an_error_that_nobody_foresaw_costs_its_row_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def key(self: PartsReader, value: Mapping[str, Any]) -> str:
        if value["v"] == 2:
            raise error("of the value 2")
        return "k"

    monkeypatch.setattr(PartsReader, "key", key)
    path = tmp_path / "in.csv"
    path.write_text("v\n1\n2\n3\n")
    listed, rejected = accounts(path, "long", False, NO_KEY, Reading())
    assert len(listed) == 2
    entry = json.loads(rejected)
    assert (entry["line"], entry["reason"]) == (3, f"it cannot be read or written ({error.__name__})")


def test_an_event_time_of_more_than_64_bits_is_a_reject(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("v\n9000000000000000000\n5\n-9223372036854775808\n")
    assert assert_same(path, "long", Parts(None, "v", "s")) == 1


@pytest.mark.parametrize("avro_type", [["null", DECIMAL], "long"], ids=str)
def test_a_value_of_each_kind_of_file(tmp_path: Path, avro_type: Any) -> None:
    (tmp_path / "in.csv").write_text("v\n" + "\n".join(NUMBERS))
    (tmp_path / "in.jsonl").write_text("\n".join(f'{{"v": {number}}}' for number in NUMBERS))
    columns = arrow_columns()
    pq.write_table(
        pa.table({"v": columns["longer decimal" if avro_type != "long" else "int64"]}), tmp_path / "in.parquet"
    )
    counts = [assert_same(tmp_path / f"in.{kind}", avro_type) for kind in ("csv", "jsonl", "parquet")]
    assert min(counts) > 2


DIGITS = st.text("0123456789", max_size=45)
DECIMAL_TEXTS = st.builds(
    lambda sign, whole, point, exponent: f"{sign}{whole}{point}{exponent}",
    st.sampled_from(["", "", "-"]),
    st.one_of(st.integers(0, 10**20).map(str), st.integers(0, 10**45).map(str)),
    st.one_of(st.just(""), DIGITS.filter(bool).map(lambda digits: f".{digits}")),
    st.one_of(st.just(""), st.sampled_from(["e-5", "E+3", "e-12", "e-324", "e30", "e-2147483647", "e99999999999"])),
)


def decimal_files(folder: Path, texts: Sequence[str], scale: int) -> list[tuple[Path, list[str]]]:
    """The same numbers in each kind of file, with those that the file can hold."""
    (folder / "in.csv").write_text("v\n" + "\n".join(texts))
    (folder / "in.jsonl").write_text("\n".join(f'{{"v": {text}}}' for text in texts))
    (folder / "quoted.jsonl").write_text("\n".join(f'{{"v": "{text}"}}' for text in texts))
    escaped = ["".join(f"\\u{ord(character):04x}" for character in text) for text in texts]
    (folder / "escaped.jsonl").write_text("\n".join(f'{{"v": "{text}"}}' for text in escaped))
    pq.write_table(pa.table({"v": pa.array(texts, pa.string())}), folder / "text.parquet")
    files = [(folder / name, list(texts)) for name in ("in.csv", "in.jsonl", "quoted.jsonl", "escaped.jsonl")]
    files.append((folder / "text.parquet", list(texts)))
    for kind in (pa.decimal128(38, scale), pa.decimal256(76, scale)):
        limit = Decimal(10) ** (kind.precision - scale)
        held = [text for text in texts if "e9" not in text and abs(Decimal(text)) < limit]
        held = [text for text in held if -Decimal(text).as_tuple().exponent <= scale]  # type: ignore[operator]
        values = pa.array([Decimal(text) or Decimal(0) for text in held], kind)
        pq.write_table(pa.table({"v": values}), folder / f"{kind.bit_width}.parquet")
        files.append((folder / f"{kind.bit_width}.parquet", held))
    return files


def is_held(text: str, precision: int, scale: int) -> bool:
    number = Decimal(text)
    digits = "".join(map(str, number.as_tuple().digits))
    behind = -int(number.as_tuple().exponent) - (len(digits) - len(digits.rstrip("0")))
    return not number or (behind <= scale and number.adjusted() < precision - scale)


@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(DECIMAL_TEXTS, min_size=1, max_size=12),
    shape=st.integers(1, 38).flatmap(lambda precision: st.tuples(st.just(precision), st.integers(0, precision))),
    others=st.integers(0, 9),
    size=st.sampled_from([None, 16]),
)
@example(["1.5", "19000000000", "2.25"], (18, 9), 0, None)
@example(["1.5", "340282366920938463463374607431768211457.5", "5e-324"], (18, 2), 0, None)
@example(["1e-2147483647", "-9223372036854775808"], (18, 0), 0, None)
@example(["0e99999999999", "1e99999999999", "2.5", "0e30"], (18, 9), 9, None)
def test_a_decimal_is_the_files_or_refused_by_columns_and_row_by_row(
    tmp_path_factory: Any, texts: list[str], shape: tuple[int, int], others: int, size: int | None
) -> None:
    precision, scale = shape
    kind: dict[str, Any] = {"type": "fixed", "name": "D", "size": size} if size else {"type": "bytes"}
    avro_type = {**kind, "logicalType": "decimal", "precision": precision, "scale": scale}
    decode = reader(json.dumps({"type": "record", "name": "R", "fields": [{"name": "v", "type": avro_type}]}))
    for path, held in decimal_files(tmp_path_factory.mktemp("decimals"), texts, min(scale, others)):
        by_columns, by_rows = (accounts(path, avro_type, way, NO_KEY, Reading()) for way in (True, False))
        assert by_columns == by_rows
        found = [decode(value[HEADER.size :])["v"] for value, _, _ in by_rows[0]]
        assert found == [Decimal(text) for text in held if is_held(text, precision, scale)], path


FIELDS: dict[str, tuple[Any, Callable[[random.Random], str]]] = {
    "id": ("string", lambda chance: f"k{chance.randrange(99)}"),
    "number": (["null", "long"], lambda chance: str(chance.randrange(-(2**40), 2**40))),
    "share": ("double", lambda chance: repr(chance.random())),
    "at": (MILLIS, lambda chance: f"2013-01-{chance.randrange(1, 29):02}T05:06:{chance.randrange(60):02}Z"),
    "kind": (["null", ENUM], lambda chance: chance.choice(["A", "B", ""])),
}


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32), hostile=st.sampled_from([0.0, 0.001, 0.01, 0.2]), done=st.sampled_from([0, 7, 450]))
def test_a_file_of_good_and_hostile_rows(tmp_path_factory: Any, seed: int, hostile: float, done: int) -> None:
    chance, folder = random.Random(seed), tmp_path_factory.mktemp("mixed")
    pool = [text for text in POOL if not set(text) & set(',\n\r\x0b"')] + ["a,b", '"a,b"', '"x\ny"', '"open']
    lines = [",".join(FIELDS)]
    for _ in range(500):
        cells = [
            pool[chance.randrange(len(pool))] if chance.random() < hostile else make(chance)
            for _, make in FIELDS.values()
        ]
        lines.append(",".join(cells))
    path = folder / "in.csv"
    path.write_text("\n".join(lines))
    results = []
    for by_columns in (True, False):
        fields = [{"name": name, "type": kind} for name, (kind, _) in FIELDS.items()]
        text = json.dumps({"type": "record", "name": "R", "fields": fields})
        request = FileRequest("topic", [path], Parts("id", "at"), limit=RejectLimit(share=None))
        rejects = Rejects(iter([folder / f"rejects-{by_columns}"]), request.limit, reported=0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(file_rows, "BLOCK_BYTES", 4_000)
            rows = FileRows(request, Codec(RowReader(text, request), 1, text, Limits(10**6), by_columns), rejects, done)
            events = [event[1:4] for batch in rows.batches() for event in batch.events()]
        position = rows.position()
        rejects.close()
        reasons = rejects.path.read_text() if rejects.path else ""
        results.append((events, reasons, position))
    assert results[0] == results[1]
    assert results[0][0]


def test_large_rows_come_a_few_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    size = parquet_rows.PIECE_BYTES // 8
    pq.write_table(pa.table({"v": [f"{number}" * size for number in range(10)] * 4}), path)
    pieces = list(parquet_rows.ParquetInput(str(path), path).pieces())
    assert sum(len(list(piece.rows())) for piece in pieces) == 40
    assert max(piece.columns(pa.schema([("v", pa.string())])).nbytes for piece in pieces) <= parquet_rows.PIECE_BYTES


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_line_without_end_ends_its_file(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_rows, "LONGEST_LINE", 1_000)
    path = tmp_path / f"in.{kind}"
    good = "v\nx\n" if kind == "csv" else '{"v": "x"}\n'
    path.write_text(good + "y" * 5_000)
    listed, cause = accounts(path, "string", True, NO_KEY, Reading())
    assert (len(listed), cause) == (1, "BAD_FILE")
