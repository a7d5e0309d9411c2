"""The columnar encoder writes what the row-wise codec reads."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from conf.errors import TidemarkError
from schemas.codec import Decoder
from schemas.columnar import ColumnarEncoder
from schemas.registry import FileRegistry

MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
AMOUNT = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}
LONG_DECIMAL = AMOUNT | {"precision": 19}
MOMENT = datetime(2013, 7, 1, 12, 30, 15, 250_000, tzinfo=UTC)
EDGES: list[tuple[Any, pa.DataType, list[Any]]] = [
    ("int", pa.int32(), [0, -1, 1, 63, 64, -64, -65, 2**31 - 1, -(2**31)]),
    ("long", pa.int64(), [0, -1, 2**63 - 1, -(2**63), 2**56, -(2**56) - 1]),
    ("double", pa.float64(), [0.0, -0.0, 1.5, float("inf"), 5e-324, 10.357019999999999]),
    ("string", pa.string(), ["", "x", "ü€𝄞", "y" * 300]),
    (MILLIS, pa.timestamp("ms", "UTC"), [MOMENT, datetime(1969, 12, 31, tzinfo=UTC)]),
    (
        AMOUNT,
        pa.decimal128(18, 2),
        [Decimal(text) for text in ("0.00", "-0.01", "1.27", "1.28", "-1.28", "-1.29")],
    ),
    (AMOUNT, pa.decimal128(18, 2), [Decimal("9" * 16 + ".99"), Decimal("-" + "9" * 16 + ".99")]),
]


def schema(avro_type: Any) -> str:
    return json.dumps({"type": "record", "name": "R", "fields": [{"name": "v", "type": avro_type}]})


def through(tmp_path: Path, avro_type: Any, column: pa.Array) -> list[Any]:
    registry = FileRegistry(tmp_path)
    schema_id = registry.register("r-value", schema(avro_type))
    encoded = ColumnarEncoder(schema_id, schema(avro_type))(pa.table({"v": column}))
    return [Decoder(registry)(value)["v"] for value in encoded]


@pytest.mark.parametrize(("avro_type", "arrow_type", "values"), EDGES)
def test_values_at_the_edges_survive(
    tmp_path: Path, avro_type: Any, arrow_type: pa.DataType, values: list[Any]
) -> None:
    assert through(tmp_path, avro_type, pa.array(values, arrow_type)) == values


@pytest.mark.parametrize(("avro_type", "arrow_type", "values"), EDGES)
def test_nulls_among_values_and_a_sliced_column_survive(
    tmp_path: Path, avro_type: Any, arrow_type: pa.DataType, values: list[Any]
) -> None:
    holed = [None, values[0], None, *values, None]
    assert through(tmp_path, ["null", avro_type], pa.array(holed, arrow_type)) == holed
    assert through(tmp_path, ["null", avro_type], pa.array([*values, *holed], arrow_type)[len(values) :]) == holed
    assert through(tmp_path, ["null", avro_type], pa.nulls(3, arrow_type)) == [None] * 3


def test_no_rows_give_no_values(tmp_path: Path) -> None:
    assert through(tmp_path, "long", pa.array([], pa.int64())) == []


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([1.5]), "column `v` is double, the schema needs int32"),
        (pa.array([1], pa.int64()), "column `v` is int64, the schema needs int32"),
        (pa.array([None], pa.int32()), "column `v` has 1 nulls"),
    ],
)
def test_a_column_is_never_coerced(column: pa.Array, says: str) -> None:
    with pytest.raises(TidemarkError, match=f"COLUMN_MISMATCH: {says}"):
        ColumnarEncoder(1, schema("int"))(pa.table({"v": column}))


@pytest.mark.parametrize("unscaled", [10**18, -(10**18), 2**63, -(2**63), 2**64 + 1, -(2**64) - 1, 2**127 - 1])
@pytest.mark.parametrize("kind", [AMOUNT, AMOUNT | {"type": "fixed", "name": "D", "size": 9}], ids=["bytes", "fixed"])
def test_a_decimal_of_more_digits_than_its_type_is_refused(unscaled: int, kind: Any) -> None:
    data = b"".join(number.to_bytes(16, "little", signed=True) for number in (1, unscaled, 2))
    column = pa.Array.from_buffers(pa.decimal128(18, 2), 3, [None, pa.py_buffer(data)])
    with pytest.raises(TidemarkError, match=r"COLUMN_MISMATCH: a decimal has more digits than decimal128\(18, 2\)"):
        ColumnarEncoder(1, schema(kind))(pa.table({"v": column}))
    assert len(ColumnarEncoder(1, schema(kind))(pa.table({"v": column.slice(2)}))) == 1


def test_a_missing_column_is_named() -> None:
    with pytest.raises(TidemarkError, match="COLUMN_MISMATCH: column `v` is missing"):
        ColumnarEncoder(1, schema("int"))(pa.table({"w": [1]}))


@pytest.mark.parametrize(
    "avro_type", [["null", "int", "string"], {"type": "array", "items": ["int", "string"]}, LONG_DECIMAL]
)
def test_a_type_without_columnar_encoding_is_refused(avro_type: Any) -> None:
    with pytest.raises(TidemarkError, match="UNSUPPORTED_SCHEMA: field `v`"):
        ColumnarEncoder(1, schema(avro_type))
