"""A Parquet file's rows arrive as the file has them, whatever its types; what no table holds is a reject, or named."""

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conf.errors import TidemarkError
from tests.jobs.connectors.avro.avro_examples import bounded, collected
from tests.producers.files.read_back import inferred, read_back
from tests.producers.files.test_text_types import digits

EPOCH, LOCAL = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.datetime(1970, 1, 1)
NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
BITS = {"s": 54, "ms": 64, "us": 64, "ns": 64}  # Parquet keeps seconds as milliseconds
REJECTED = "a reason"


def moment(count: int, unit: str, epoch: dt.datetime) -> Any:
    micros, finer = divmod(count * NS[unit], 1000)
    try:
        return REJECTED if finer else epoch + dt.timedelta(microseconds=micros)
    except OverflowError:
        return REJECTED


def day(count: int) -> Any:
    try:
        return dt.date(1970, 1, 1) + dt.timedelta(days=count)
    except OverflowError:
        return REJECTED


def clock(count: int, unit: str) -> Any:
    return REJECTED if count * NS[unit] % 1000 else (LOCAL + dt.timedelta(microseconds=count * NS[unit] // 1000)).time()


def same(value: Any) -> Any:
    return value


# Arrow type, values as Arrow takes them, and what each is to be read back as.
KINDS: list[tuple[Any, st.SearchStrategy[Any], Any]] = [
    (pa.bool_(), st.booleans(), same),
    (pa.int8(), bounded(8), same),
    (pa.int64(), bounded(64), same),
    (pa.uint32(), st.integers(0, 2**32 - 1), same),
    (pa.uint64(), st.integers(0, 2**64 - 1), Decimal),
    (pa.float16(), st.floats(width=16).map(np.float16), float),
    (pa.float32(), st.floats(width=32), same),
    (pa.float64(), st.floats(), same),
    (pa.string(), st.text(max_size=4), same),
    (pa.large_string(), st.text(max_size=4), same),
    (pa.string_view(), st.text(max_size=4), same),
    (pa.binary(), st.binary(max_size=4), same),
    (pa.binary_view(), st.binary(max_size=4), same),
    (pa.binary(3), st.binary(min_size=3, max_size=3), same),
    (pa.decimal128(38, 10), st.decimals(-(10**20), 10**20, places=10), same),
    (pa.decimal256(38, 2), st.decimals(-(10**20), 10**20, places=2), same),
    (pa.date32(), bounded(32), day),
    *[(pa.timestamp(unit), bounded(BITS[unit]), lambda n, u=unit: moment(n, u, LOCAL)) for unit in NS],
    *[(pa.timestamp(unit, "Asia/Tokyo"), bounded(BITS[unit]), lambda n, u=unit: moment(n, u, EPOCH)) for unit in NS],
    *[(pa.timestamp(unit), st.integers(-(10**9), 10**9), lambda n, u=unit: moment(n, u, LOCAL)) for unit in NS],
    *[(pa.time32(unit), st.integers(0, 86_399), lambda n, u=unit: clock(n, u)) for unit in ("s", "ms")],
    *[(pa.time64(unit), st.integers(0, 86_399 * 10**6), lambda n, u=unit: clock(n, u)) for unit in ("us", "ns")],
]
WRAPS: dict[str, Callable[[Any], Any]] = {
    "list": lambda value: [value],
    "struct": lambda value: {"x": value},
    "map": lambda value: {"k": value},
    **dict.fromkeys(["large list", "fixed list", "list view"], lambda value: [value]),
}
SHAPES = ["plain", "dictionary", *WRAPS]


def array(kind: Any, values: list[Any]) -> Any:
    """Times are made of integers, which know no limits of Python's."""
    if pa.types.is_temporal(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array(values, width).cast(kind)
    return pa.array(values, kind)


def shaped(shape: str, flat: Any) -> Any:
    if shape == "dictionary":
        return flat.dictionary_encode()
    if shape == "list":
        return pa.ListArray.from_arrays(list(range(len(flat) + 1)), flat)
    if shape == "large list":
        return pa.LargeListArray.from_arrays(list(range(len(flat) + 1)), flat)
    if shape == "fixed list":
        return pa.FixedSizeListArray.from_arrays(flat, 1)
    if shape == "list view":
        starts, counts = (pa.array(places, pa.int32()) for places in (range(len(flat)), [1] * len(flat)))
        return pa.ListViewArray.from_arrays(starts, counts, flat)
    if shape == "struct":
        return pa.StructArray.from_arrays([flat], ["x"])
    if shape == "map":
        return pa.MapArray.from_arrays(list(range(len(flat) + 1)), pa.array(["k"] * len(flat)), flat)
    return flat


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=st.data(), number=st.integers(0, len(KINDS) - 1), shape=st.sampled_from(SHAPES))
def test_every_value_is_read_back_or_its_row_rejected(
    tmp_path_factory: pytest.TempPathFactory, drawn: st.DataObject, number: int, shape: str
) -> None:
    kind, strategy, expected = KINDS[number]
    values = drawn.draw(st.lists(st.one_of(st.none(), strategy), min_size=1, max_size=4))
    path = tmp_path_factory.mktemp("parquet") / "in.parquet"
    if shape == "dictionary" and (pa.types.is_float16(kind) or kind in (pa.string_view(), pa.binary_view())):
        shape = "plain"
    pq.write_table(pa.table({"v": shaped(shape, array(kind, values))}), path)
    for value, result in zip(values, read_back(path), strict=True):
        wanted = None if value is None else expected(value)
        if isinstance(wanted, str) and wanted == REJECTED:
            assert isinstance(result, str), (value, result)
        else:
            assert collected(result) == collected({"v": WRAPS.get(shape, same)(wanted)}), (value, result)


def test_times_of_twelve_bytes_are_the_files_own_or_rejected(tmp_path: Path) -> None:
    times = [dt.datetime(9999, 12, 31), dt.datetime(2013, 1, 1, 1, 1, 1, 5), dt.datetime(1, 1, 1), None]
    table = pa.table({"v": pa.array(times, pa.timestamp("us")), "id": list(range(4))})
    pq.write_table(table, tmp_path / "us.parquet", use_deprecated_int96_timestamps=True)
    assert read_back(tmp_path / "us.parquet") == [{"v": time, "id": number} for number, time in enumerate(times)]
    nanos = pa.table({"v": pa.array([1_000, 1_001], pa.int64()).cast(pa.timestamp("ns"))})
    pq.write_table(nanos, tmp_path / "ns.parquet", use_deprecated_int96_timestamps=True)
    good, bad = read_back(tmp_path / "ns.parquet")
    assert (good, bad) == (
        {"v": LOCAL + dt.timedelta(microseconds=1)},
        "a time of it is finer than microseconds, which is what a table holds",
    )


@pytest.mark.parametrize("shape", ["plain", *WRAPS])
def test_times_of_twelve_bytes_are_not_cut_wherever_they_lie(tmp_path: Path, shape: str) -> None:
    flat = pa.array([1_000, 1_001, 2_000], pa.int64()).cast(pa.timestamp("ns"))
    table = pa.Table.from_arrays([shaped(shape, flat)] * 2, names=["v", "v"])
    pq.write_table(table, tmp_path / "ns.parquet", use_deprecated_int96_timestamps=True)
    first, bad, last = read_back(tmp_path / "ns.parquet")
    wrapped = [WRAPS.get(shape, same)(LOCAL + dt.timedelta(microseconds=count)) for count in (1, 2)]
    assert (first, last) == tuple({"v": value, "v_2": value} for value in wrapped)
    assert bad == "a time of it is finer than microseconds, which is what a table holds"


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", "+14:00", "Mars/Base", "America"])
@pytest.mark.parametrize("shape", ["plain", *WRAPS])
def test_an_instant_is_read_whatever_its_zone_shows_for_it(tmp_path: Path, zone: str, shape: str) -> None:
    instants = [dt.datetime(1, 1, 1), dt.datetime(2013, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59)]
    counts = [(instant - LOCAL) // dt.timedelta(microseconds=1) for instant in instants]
    table = pa.table({"v": shaped(shape, pa.array(counts, pa.int64()).cast(pa.timestamp("us", zone)))})
    pq.write_table(table, tmp_path / "in.parquet")
    wrapped = [{"v": WRAPS.get(shape, same)(instant.replace(tzinfo=dt.UTC))} for instant in instants]
    assert read_back(tmp_path / "in.parquet") == wrapped


def test_types_of_arrows_own_are_read_as_what_they_mean(tmp_path: Path) -> None:
    columns = {
        "uuid": pa.array([UUID(int=5).bytes], pa.uuid()),
        "json": pa.array(['{"a": 1}'], pa.json_()),
        "keys": pa.array([[("a", 1)]], pa.map_(pa.large_string(), pa.int32())),
        "view": pa.array([[1, None]], pa.list_view(pa.int32())),
        "nothing": pa.nulls(1),
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    expected = {"uuid": UUID(int=5), "json": '{"a": 1}', "keys": {"a": 1}, "view": [1, None], "nothing": None}
    assert read_back(tmp_path / "in.parquet") == [expected]


@pytest.mark.parametrize("place", ["v", "v.x"])
def test_a_decimal_that_no_table_holds_is_named_when_it_is_inferred(tmp_path: Path, place: str) -> None:
    flat = pa.array([Decimal(1), None], pa.decimal256(50, 0))
    pq.write_table(pa.table({"v": flat if place == "v" else shaped("struct", flat)}), tmp_path / "in.parquet")
    with pytest.raises(
        TidemarkError, match=rf"UNSUPPORTED_TYPE: `T\.{place}` is a decimal of 50 digits, and tables hold 38"
    ):
        inferred(tmp_path / "in.parquet")


GIVEN = [
    "int",
    "long",
    "float",
    "double",
    "string",
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(GIVEN),
    values=st.one_of(
        st.lists(bounded(64), min_size=1),
        st.lists(st.floats(), min_size=1),
        st.lists(st.decimals(-(10**9), 10**9, places=4), min_size=1),
    ),
)
def test_a_value_fits_the_type_that_is_given_or_is_rejected(
    tmp_path_factory: pytest.TempPathFactory, kind: Any, values: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("parquet") / "in.parquet"
    pq.write_table(pa.table({"v": pa.array(values)}), path)
    schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": kind}]}
    for value, result in zip(values, read_back(path, json.dumps(schema)), strict=True):
        if isinstance(result, str):
            continue
        found = result["v"]
        # A float, with as many digits as the value has.
        printed = f"{found:.{digits(str(value))}g}" if kind == "float" else str(found)
        assert found == value or repr(found) == repr(value) or Decimal(printed) == Decimal(str(value)), (value, found)


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()])
@pytest.mark.parametrize("shape", ["plain", *WRAPS])
def test_a_row_that_no_table_holds_takes_no_other_with_it_whatever_lies_beside(
    tmp_path: Path, kind: Any, shape: str
) -> None:
    texts = pa.array(["a", "b", "c"], pa.string()).cast(kind)
    table = pa.table({"v": array(pa.time64("ns"), [1_000, 1, 2_000]), "text": shaped(shape, texts)})
    pq.write_table(table, tmp_path / "in.parquet")
    first, bad, last = read_back(tmp_path / "in.parquet")
    assert (first["v"], last["v"]) == (dt.time(microsecond=1), dt.time(microsecond=2))
    assert bad.startswith("field `v`: it holds a time finer than microseconds or outside the years 1 to 9999")
