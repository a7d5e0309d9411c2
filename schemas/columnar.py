"""Encodes Arrow columns as framed Avro bytes, all rows at once: the fast way for flat records of known types.

Each field becomes a block of bytes, one line per record, and a mask of the bytes that count; the blocks side
by side, masked, are the records one after the other. Types must match exactly, so nothing is coerced.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from conf.errors import TidemarkError
from schemas.codec import HEADER, MAGIC
from schemas.validity import load_schema

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Block = tuple[Bytes, Mask]
Column = Callable[[pa.Array], Iterator[Block]]


class ColumnarEncoder:
    """Encodes a table as a list of framed bytes, one per row, by one flat record schema.

    Takes string, int, long, double, timestamp-millis, timestamp-micros and decimals of up to 18 digits, each
    also in a union with null, from Arrow columns of the same name and exactly that type.
    """

    def __init__(self, schema_id: int, text: str) -> None:
        """Raises TidemarkError UNSUPPORTED_SCHEMA, where a field is of another type."""
        self._header = np.frombuffer(HEADER.pack(MAGIC, schema_id), dtype=np.uint8)
        schema = load_schema(text)
        self._fields = [(field["name"], *_column(field)) for field in schema["fields"]]

    def __call__(self, table: pa.Table) -> list[bytes]:
        """Return the framed bytes of every row, in order.

        Raises:
            TidemarkError: COLUMN_MISMATCH, where a column is missing, of another type, or wrongly null.
        """
        count = table.num_rows
        if count == 0:
            return []
        blocks = [(np.broadcast_to(self._header, (count, len(self._header))), _all(count, len(self._header)))]
        for name, arrow_type, nullable, encode in self._fields:
            blocks += _field_blocks(_checked(table, name, arrow_type, nullable), nullable, encode)
        mask = np.concatenate([mask for _, mask in blocks], axis=1)
        records = np.concatenate([block for block, _ in blocks], axis=1)[mask].tobytes()
        ends = np.cumsum(mask.sum(axis=1)).tolist()
        return [records[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _checked(table: pa.Table, name: str, arrow_type: pa.DataType, nullable: bool) -> pa.Array:
    index = table.schema.get_field_index(name)
    if index < 0 or table.schema.field(index).type != arrow_type:
        actual = "missing" if index < 0 else str(table.schema.field(index).type)
        raise _mismatch(f"column `{name}` is {actual}, the schema needs {arrow_type}")
    column = table.column(index).combine_chunks()
    if column.null_count and not nullable:
        raise _mismatch(f"column `{name}` has {column.null_count} nulls, the schema allows none")
    return column


def _field_blocks(column: pa.Array, nullable: bool, encode: Column) -> list[Block]:
    if not nullable:
        return list(encode(column))
    present = ~column.is_null().to_numpy(zero_copy_only=False)
    # A union starts with its branch as a varint: null is branch 0 (byte 0), the value branch 1 (byte 2).
    branch = (np.where(present, 2, 0).astype(np.uint8)[:, None], _all(len(column), 1))
    return [branch, *((block, mask & present[:, None]) for block, mask in encode(column))]


def _varints(column: pa.Array) -> Iterator[Block]:
    yield _varint_block(column.view(_integer(column.type)).fill_null(0).to_numpy(zero_copy_only=False))


def _varint_block(values: npt.NDArray[Any]) -> Block:
    signed = values.astype(np.int64)
    zigzag = ((signed << 1) ^ (signed >> 63)).view(np.uint64)
    width = max(1, -(-int(zigzag.max()).bit_length() // 7))
    shifted = zigzag[:, None] >> (np.arange(width, dtype=np.uint64) * np.uint64(7))[None, :]
    mask = shifted > 0
    mask[:, 0] = True
    more = np.zeros_like(mask)
    more[:, :-1] = mask[:, 1:]
    return ((shifted & np.uint64(0x7F)) | (more * np.uint64(0x80))).astype(np.uint8), mask


def _strings(column: pa.Array) -> Iterator[Block]:
    filled = column.fill_null("")
    _, offset_buffer, data = filled.buffers()
    window = slice(filled.offset, filled.offset + len(filled) + 1)
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[window]
    lengths = np.diff(offsets)
    yield _varint_block(lengths)
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    block = np.zeros(mask.shape, dtype=np.uint8)
    if block.size:
        block[mask] = np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]]
    yield block, mask


def _doubles(column: pa.Array) -> Iterator[Block]:
    values = column.fill_null(0.0).to_numpy(zero_copy_only=False).astype("<f8")
    yield values.view(np.uint8).reshape(len(column), 8), _all(len(column), 8)


def _decimals(column: pa.Array) -> Iterator[Block]:
    filled = column.fill_null(0)
    words = np.frombuffer(filled.buffers()[1], dtype="<i8")
    unscaled = words[2 * filled.offset : 2 * (filled.offset + len(filled)) : 2]
    limits = 1 << (8 * np.arange(1, 8, dtype=np.int64) - 1)
    lengths = 1 + ((unscaled[:, None] >= limits) | (unscaled[:, None] < -limits)).sum(axis=1)
    yield _varint_block(lengths)
    mask = np.arange(8) >= 8 - lengths[:, None]
    yield unscaled.astype(">i8").view(np.uint8).reshape(len(column), 8), mask


def _column(field: dict[str, Any]) -> tuple[pa.DataType, bool, Column]:
    avro_type, nullable = field["type"], False
    if isinstance(avro_type, list) and len(avro_type) == 2 and avro_type[0] == "null":
        avro_type, nullable = avro_type[1], True
    physical = _physical(avro_type)
    if physical is None:
        what = f"field `{field['name']}` of type {field['type']} has no columnar encoding"
        raise TidemarkError("UNSUPPORTED_SCHEMA", what, "encode it row by row, with schemas.codec.Encoder")
    arrow_type, encode = physical
    return arrow_type, nullable, encode


def _physical(avro_type: Any) -> tuple[pa.DataType, Column] | None:
    if isinstance(avro_type, list):
        return None
    declared: dict[str, Any] = {"type": avro_type} if isinstance(avro_type, str) else avro_type
    logical = declared.get("logicalType", declared["type"])
    if logical == "decimal" and declared["type"] == "bytes" and declared["precision"] <= 18:
        return pa.decimal128(declared["precision"], declared.get("scale", 0)), _decimals
    plain: dict[str, tuple[pa.DataType, Column]] = {
        "string": (pa.string(), _strings),
        "int": (pa.int32(), _varints),
        "long": (pa.int64(), _varints),
        "double": (pa.float64(), _doubles),
        "timestamp-millis": (pa.timestamp("ms", "UTC"), _varints),
        "timestamp-micros": (pa.timestamp("us", "UTC"), _varints),
    }
    return plain.get(str(logical))


def _integer(arrow_type: pa.DataType) -> pa.DataType:
    return pa.int32() if arrow_type == pa.int32() else pa.int64()


def _all(count: int, width: int) -> Mask:
    return np.ones((count, width), dtype=np.bool_)


def _mismatch(what: str) -> TidemarkError:
    return TidemarkError("COLUMN_MISMATCH", what, "make the columns those of the contract")
