"""Under a contract with other types than an Avro file's own, a value is what the file said, or a reject, or noted."""

import datetime as dt
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producers.files.inputs import Opening, open_inputs
from producers.files.request import FileRequest, Parts
from producers.files.row_reader import RowReader
from schemas.codec import HEADER, Encoder, reader
from schemas.resolution import PROMOTIONS, incompatibilities, parse_type
from schemas.values import Reading, UnfitError
from tests.jobs.connectors.avro.avro_examples import LEAVES, decimals, logical, named, values

ZONE = ZoneInfo("America/New_York")
EPOCHS = {True: dt.datetime(1970, 1, 1, tzinfo=dt.UTC), False: dt.datetime(1970, 1, 1)}
NO_KEY = Parts(None)
SHAPES = ["field", "union", "array", "map", "record", "choice"]
LEAF = st.one_of(st.sampled_from([schema for schema, _ in LEAVES if schema != "null"]), decimals())


def published(path: Path, contract: Any, parts: Parts = NO_KEY) -> tuple[list[Any], list[str]]:
    """Each row's `v` as its record decodes, or the reason of its reject; and all notes."""
    text = json.dumps(contract)
    rows = RowReader(text, FileRequest("t", [path], parts, reading=Reading(zone=ZONE)))
    encode, decode, found = Encoder(1, text), reader(text), list[Any]()
    for file in open_inputs([path], Opening()):
        rows.check_columns(file)
        for row in file.rows():
            try:
                found.append(decode(encode(rows.value(row, file))[HEADER.size :])["v"])
            except UnfitError as exc:
                found.append(str(exc))
    return found, rows.notes


def record(kind: Any, name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": "v", "type": kind}]}


def written(path: Path, kind: Any, *held: Any) -> Path:
    with path.open("wb") as file:
        fastavro.writer(file, fastavro.parse_schema(record(kind)), [{"v": value} for value in held])
    return path


def shaped(shape: str, kind: Any, value: Any) -> tuple[Any, Any]:
    others = [
        {"type": "record", "name": "Other", "fields": []},
        {"type": "enum", "name": "Or", "symbols": ["Z"]},
    ]
    name = kind.get("name", kind["type"]) if isinstance(kind, dict) else kind
    return {
        "field": (kind, value),
        "union": (["null", kind], value),
        "array": ({"type": "array", "items": kind}, [value]),
        "map": ({"type": "map", "values": kind}, {"k": value}),
        "record": (record(kind, "In"), {"v": value}),
        "choice": (["null", *others, kind], (name, value)),
    }[shape]


def meant(value: Any, kind: Any) -> Any:
    """What a value says, whatever says it."""
    declared = kind if isinstance(kind, dict) else {"type": kind}
    unit = declared.get("logicalType", "")
    if unit == "timestamp-nanos":
        return "instant", value
    if isinstance(value, dt.datetime):
        count = (value - EPOCHS[value.tzinfo is not None]) // dt.timedelta(microseconds=1)
        return "instant" if value.tzinfo else "local", count * 1000
    if isinstance(value, dt.date):
        return "day", (value - dt.date(1970, 1, 1)).days
    if isinstance(value, dt.time):
        return "clock", value
    if isinstance(value, UUID):
        return "text", str(value)
    if isinstance(value, bool):
        return "truth", value
    if isinstance(value, int | Decimal):
        return "number", Decimal(value)
    if isinstance(value, float):
        return "number", Decimal(repr(value)) if value == value else "nan"
    return ("bytes", value) if isinstance(value, bytes) else ("text", value)


def is_the_same(said: Any, held: Any) -> bool:
    if said == held:
        return True
    if said[0] == "local" and held[0] == "instant":
        shown = EPOCHS[False] + dt.timedelta(microseconds=said[1] // 1000)
        return bool(meant(shown.replace(tzinfo=ZONE), "")[1] == held[1])
    if said[0] in ("instant", "local") and held[0] == "day":
        return bool(said[1] == held[1] * 86_400 * 10**9)
    if said[0] == held[0] == "number" and "nan" not in (said[1], held[1]):
        digits = max(1, min(9, len(said[1].normalize().as_tuple().digits)))
        return bool(Decimal(f"{float(held[1]):.{digits}g}") == said[1])  # of a float
    if said[0] == "instant" and held[0] == "text":
        seconds, fraction = held[1].removesuffix("Z").partition(".")[::2]
        whole = (dt.datetime.fromisoformat(seconds) - EPOCHS[False]) // dt.timedelta(seconds=1)
        return bool(whole * 10**9 + int(fraction.ljust(9, "0")) == said[1])
    utf8 = [("bytes", value.encode()) if kind == "text" else (kind, value) for kind, value in (said, held)]
    return bool(utf8[0] == utf8[1])


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=st.data(), own=LEAF, contract=LEAF, shape=st.sampled_from(SHAPES))
def test_a_value_means_the_same_in_another_type_or_is_rejected_or_noted(
    tmp_path_factory: pytest.TempPathFactory, drawn: st.DataObject, own: Any, contract: Any, shape: str
) -> None:
    own, contract = named(own, "Own"), named(contract, "Own")
    value = drawn.draw(values(own))
    kind, holding = shaped(shape, own, value)
    path = written(tmp_path_factory.mktemp("avro") / "in.avro", kind, holding)
    (found,), notes = published(path, record(shaped(shape, contract, None)[0]))
    if isinstance(found, str) and found.startswith("field `v"):
        return
    place = {"array": 0, "map": "k", "record": "v"}.get(shape)
    held = found if place is None else found[place]
    base, is_plain = (own, True) if isinstance(own, str) else (own["type"], "logicalType" not in own)
    if is_plain and base in ("int", "long", "bytes", "fixed", "string") and "logicalType" in contract:
        return  # the contract alone says what a bare number, bytes or a text is
    assert notes or is_the_same(meant(value, own), meant(held, contract)), (value, held)


MILLIS, MICROS = logical("long", "timestamp-millis"), logical("long", "timestamp-micros")
NANOS, LOCAL = logical("long", "timestamp-nanos"), logical("long", "local-timestamp-micros")
DATE = logical("int", "date")
AT = dt.datetime(2013, 2, 1, tzinfo=dt.UTC)


def money(scale: int) -> dict[str, Any]:
    return logical("bytes", "decimal", precision=10, scale=scale)


@pytest.mark.parametrize(
    ("own", "contract", "value", "expected"),
    [
        (money(2), money(4), Decimal("12.34"), Decimal("12.3400")),
        (money(4), money(2), Decimal("12.3456"), "field `v`: Decimal('12.3456') does not fit decimal(10, 2)"),
        (money(2), "double", Decimal("12.34"), 12.34),
        (MILLIS, MICROS, AT, AT),
        (MICROS, MILLIS, AT.replace(microsecond=5), "finer than its type, which holds timestamp-millis"),
        (NANOS, MICROS, 1_001, "finer than its type"),
        (LOCAL, MICROS, dt.datetime(2013, 1, 1), dt.datetime(2013, 1, 1, 5, tzinfo=dt.UTC)),
        (LOCAL, NANOS, dt.datetime(2013, 1, 1), 1_357_016_400 * 10**9),
        (MICROS, LOCAL, AT, "has an offset, which a local time cannot hold"),
        (logical("int", "time-millis"), logical("long", "time-micros"), dt.time(12), dt.time(12)),
        (DATE, MICROS, dt.date(2013, 2, 1), "is no time"),
        (MICROS, DATE, AT, dt.date(2013, 2, 1)),
        (DATE, money(2), dt.date(2013, 2, 1), "field `v`: "),
        (["null", DATE], ["null", "long", "string"], None, None),
    ],
)
def test_logical_types_are_converted_exactly_or_the_row_is_rejected(
    tmp_path: Path, own: Any, contract: Any, value: Any, expected: Any
) -> None:
    (found,), notes = published(written(tmp_path / "in.avro", own, value), record(contract))
    assert (found == expected and not notes) or (isinstance(expected, str) and expected in found)


def test_a_time_in_a_field_of_plain_numbers_is_noted(tmp_path: Path) -> None:
    found, notes = published(written(tmp_path / "in.avro", MILLIS, AT, AT), record("long"))
    assert found == [1_359_676_800_000] * 2
    assert notes == ["a timestamp-millis of the file taken as it is stored, where the schema has long"] * 2


@pytest.mark.parametrize(
    ("own", "contract", "value", "expected"),
    [
        (["null", "int", "string"], ["null", "string", "long"], 5, 5),
        (["null", DATE, "string"], ["null", "long", DATE], dt.date(2013, 2, 1), dt.date(2013, 2, 1)),
        (["null", MILLIS], ["null", "string", MICROS, DATE], AT, AT),
        ("string", ["null", {"type": "enum", "name": "E", "symbols": ["A"]}, "string"], "A", "A"),
        (["int", "string"], "long", 5, 5),
        (["int", "string"], "long", "5", "field `v`: '5' is no long"),
        (["null", "long"], ["null", DATE, "long"], 5, 5),
    ],
)
def test_a_branch_goes_to_the_one_of_its_type_in_another_union(
    tmp_path: Path, own: Any, contract: Any, value: Any, expected: Any
) -> None:
    assert published(written(tmp_path / "in.avro", own, value), record(contract))[0] == [expected]


def test_records_of_a_union_go_by_their_aliases_and_what_they_hold_is_converted(tmp_path: Path) -> None:
    def place(name: str, field: str, kind: Any, **more: Any) -> dict[str, Any]:
        return {"type": "record", "name": name, "fields": [{"name": field, "type": kind, **more}]}

    own = ["null", place("old.Shop", "at", MILLIS), place("Home", "at", MILLIS)]
    other = {**place("Shop", "since", MICROS, aliases=["at"]), "name": "Store", "aliases": ["old.Shop"]}
    path = written(tmp_path / "in.avro", own, ("old.Shop", {"at": AT}), ("Home", {"at": AT}), None)
    found, _ = published(path, record(["null", place("new.Home", "at", MICROS), other]))
    assert found == [{"since": AT}, {"at": AT}, None]


@pytest.mark.parametrize(("own", "contract"), [(own, other) for own in PROMOTIONS for other in sorted(PROMOTIONS[own])])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_avro_promotes_is_promoted_as_the_gate_allows(tmp_path: Path, own: str, contract: str, shape: str) -> None:
    value = {"string": "ü", "bytes": "ü".encode()}.get(own, 5)
    kind, holding = shaped(shape, own, value)
    target = record(shaped(shape, contract, None)[0])
    assert not incompatibilities(parse_type(json.dumps(target)), parse_type(json.dumps(record(kind))))
    (found,), notes = published(written(tmp_path / "in.avro", kind, holding), target)
    expected = {"string": "ü", "bytes": "ü".encode()}.get(contract, 5)
    assert found == shaped(shape, contract, expected)[1] or found == expected
    assert not notes


def test_a_symbol_that_the_contract_does_not_know_is_its_default_and_noted(tmp_path: Path) -> None:
    path = written(tmp_path / "in.avro", {"type": "enum", "name": "E", "symbols": ["A", "B"]}, "A", "B")
    contract = {"type": "enum", "name": "E", "symbols": ["A", "C"], "default": "C"}
    assert published(path, record(contract)) == (
        ["A", "C"],
        ["a symbol that the schema does not know, taken as C, its default"],
    )
    del contract["default"]
    assert published(path, record(contract))[0][1] == "field `v`: 'B' is none of A, C"


def test_the_unit_of_numbers_is_not_that_of_the_files_own_times(tmp_path: Path) -> None:
    path = written(tmp_path / "in.avro", MILLIS, AT)
    assert published(path, record(MILLIS), Parts(None, "v", "s"))[0] == [AT]
    path = written(tmp_path / "in.avro", "long", int(AT.timestamp()))
    assert published(path, record(MILLIS), Parts(None, "v", "s"))[0] == [AT]


def test_a_file_with_types_used_over_and_over_is_resolved_in_no_time(tmp_path: Path) -> None:
    def nested(leaf: Any) -> Any:
        kind: Any = record(leaf, "T0")
        for level in range(1, 25):
            both = [{"name": "a", "type": kind}, {"name": "b", "type": ["null", f"T{level - 1}"]}]
            kind = {"type": "record", "name": f"T{level}", "fields": both}
        return kind

    stream = io.BytesIO()
    fastavro.writer(stream, fastavro.parse_schema(record(nested(MILLIS))), [])
    (tmp_path / "in.avro").write_bytes(stream.getvalue())
    contract = record({"type": "string", "json": True})
    assert published(tmp_path / "in.avro", contract) == ([], [])
