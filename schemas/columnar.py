"""Encodes Arrow columns as framed Avro bytes, all rows at once, into the bytes that fastavro writes row by row.

A field becomes parts: narrow ones of a few bytes (a block with one line per record, and a mask of the bytes that
count), and wide ones (an Arrow column of byte strings). All parts side by side are the records one after the other,
so that memory grows with the bytes of the records only. Types must match exactly, so nothing is coerced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from conf.errors import TidemarkError
from schemas.arrow_columns import edges, is_there, lengths
from schemas.codec import HEADER, MAGIC
from schemas.validity import load_schema

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
# A block and its mask, or a column of byte strings (pa.Array).
Part = Any
Encode = Callable[[pa.Array], list[Part]]
# A decimal of so many digits is a whole number of 64 bits.
DECIMAL_DIGITS = 18
TIME_UNITS = {"millis": "ms", "micros": "us", "nanos": "ns"}
LOGICAL = ("decimal", "date", "uuid")


@dataclass(frozen=True)
class ColumnType:
    """The column of an Avro type: its Arrow type, and the parts of its values.

    `branches`: of a union with null, the numbers of null's branch and of the value's; None where null is not allowed.
    `encode` is given nulls too, and may make anything of them.
    """

    arrow: pa.DataType
    encode: Encode
    branches: tuple[int, int] | None = None


class ColumnarEncoder:
    """Encodes a table as a list of framed bytes, one per row, by one record schema.

    Takes every type but unions of several types and references to a type by its name; from Arrow columns of the
    same name and of exactly the type that `arrow_schema` has.
    """

    def __init__(self, schema_id: int, text: str) -> None:
        """Raises TidemarkError UNSUPPORTED_SCHEMA, where a field is of another type."""
        self._header = np.frombuffer(HEADER.pack(MAGIC, schema_id), dtype=np.uint8)
        self._fields: list[tuple[str, ColumnType]] = []
        for field in load_schema(text)["fields"]:
            kind = column_type(field["type"])
            if kind is None:
                what = f"field `{field['name']}` is of a type without a columnar encoding"
                raise TidemarkError("UNSUPPORTED_SCHEMA", what, "encode it row by row, with schemas.codec.Encoder")
            self._fields.append((field["name"], kind))
        self.arrow_schema = pa.schema([(name, kind.arrow) for name, kind in self._fields])

    def __call__(self, table: pa.Table) -> list[bytes]:
        """Return the framed bytes of every row, in order; raises TidemarkError COLUMN_MISMATCH, where a column is
        missing, of another type, or wrongly null."""
        return [] if table.num_rows == 0 else self.column(table).to_pylist()

    def column(self, table: pa.Table) -> pa.Array:
        """Return the framed bytes of every row, as a column; raises what a call does."""
        count = table.num_rows
        parts: list[Part] = [(np.broadcast_to(self._header, (count, len(self._header))), _all(count, 5))]
        for name, kind in self._fields:
            index = table.schema.get_field_index(name)
            if index < 0 or table.schema.field(index).type != kind.arrow:
                actual = "missing" if index < 0 else str(table.schema.field(index).type)
                raise _mismatch(f"column `{name}` is {actual}, the schema needs {kind.arrow}")
            parts += _parts(table.column(index).combine_chunks(), kind, f"column `{name}`")
        return _join(parts)


def _parts(column: pa.Array, kind: ColumnType, what: str, allowed: int = 0) -> list[Part]:
    """Return the parts of a column; raises COLUMN_MISMATCH where more than `allowed` values are wrongly null."""
    if kind.branches is None:
        if column.null_count > allowed:
            raise _mismatch(f"{what} has {column.null_count - allowed} nulls, the schema allows none")
        return kind.encode(column)
    present = is_there(column)
    # A union starts with the number of its branch, as a varint: twice the number.
    null, value = (2 * branch for branch in kind.branches)
    branch = (np.where(present, value, null).astype(np.uint8)[:, None], _all(len(column), 1))
    return [branch, *(_only(part, present) for part in kind.encode(column))]


def _only(part: Part, present: Mask) -> Part:
    if isinstance(part, tuple):
        block, mask = part
        return block, mask & present[:, None]
    return part if present.all() else pc.if_else(pa.array(present), part, None)


def _join(parts: Sequence[Part]) -> pa.Array:
    """Return the parts of each row, one behind the other, as a column of byte strings; a null is nothing."""
    columns: list[pa.Array] = []
    for are_narrow, run in groupby(parts, lambda part: isinstance(part, tuple)):
        if are_narrow:
            columns.append(_pack([*run]))
        else:
            columns += run
    if len(columns) == 1 and not columns[0].null_count:
        return columns[0]
    return pc.binary_join_element_wise(*columns, b"", null_handling="replace", null_replacement=b"")


def _pack(narrow: Sequence[tuple[Bytes, Mask]]) -> pa.Array:
    mask = np.concatenate([mask for _, mask in narrow], axis=1)
    data = np.concatenate([block for block, _ in narrow], axis=1)[mask]
    offsets = np.zeros(len(mask) + 1, dtype=np.int32)
    np.cumsum(np.count_nonzero(mask, axis=1), out=offsets[1:])
    return pa.Array.from_buffers(pa.binary(), len(mask), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _varints(column: pa.Array) -> list[Part]:
    width = pa.int32() if column.type.bit_width == 32 else pa.int64()
    return [_varint_block(column.view(width).fill_null(0).to_numpy(zero_copy_only=False))]


def _varint_block(values: npt.NDArray[Any]) -> tuple[Bytes, Mask]:
    signed = values.astype(np.int64)
    rest = ((signed << 1) ^ (signed >> 63)).view(np.uint64)
    width = max(1, -(-int(rest.max(initial=0)).bit_length() // 7))
    if width == 1:
        return rest.astype(np.uint8)[:, None], _all(len(values), 1)
    block, mask = np.empty((len(values), width), np.uint8), np.empty((len(values), width), np.bool_)
    goes_on: Any = True
    for place in range(width):
        low, rest = rest.astype(np.uint8) & 0x7F, rest >> np.uint64(7)
        mask[:, place] = goes_on
        goes_on = rest > 0
        block[:, place] = low | (goes_on.view(np.uint8) << 7)
    return block, mask


def _texts(column: pa.Array) -> list[Part]:
    return [_varint_block(lengths(column)), column.cast(pa.binary())]


def _enum(symbols: list[str]) -> Encode:
    values = pa.array(symbols, pa.string())

    def encode(column: pa.Array) -> list[Part]:
        places = pc.index_in(column, values)
        if places.null_count > column.null_count:
            raise _mismatch(f"a value is none of {', '.join(symbols)}")
        return _varints(places)

    return encode


def _booleans(column: pa.Array) -> list[Part]:
    values = column.fill_null(False).cast(pa.uint8()).to_numpy(zero_copy_only=False)
    return [(values[:, None], _all(len(column), 1))]


def _numbers(layout: str) -> Encode:
    width = np.dtype(layout).itemsize

    def encode(column: pa.Array) -> list[Part]:
        values = column.fill_null(0.0).to_numpy(zero_copy_only=False).astype(layout)
        return [(values.view(np.uint8).reshape(len(column), width), _all(len(column), width))]

    return encode


def unscaled_numbers(column: pa.Array) -> tuple[npt.NDArray[np.int64], Mask]:
    """Return decimals of up to 18 digits without their points, 0 for null; and a mask of those that have no more
    digits than their type says, which nothing else has checked: the other numbers are wrong.
    """
    filled = column.fill_null(0)
    data = filled.buffers()[1]
    words = np.frombuffer(data, dtype="<i8") if data else np.zeros(0, np.int64)
    low, high = words[2 * filled.offset : 2 * (filled.offset + len(filled))].reshape(-1, 2).T
    limit = 10**column.type.precision
    # By its two edges: of the lowest number of 64 bits, the absolute value is negative.
    return low, (high == low >> 63) & (low > -limit) & (low < limit)


def _unscaled(column: pa.Array) -> npt.NDArray[np.int64]:
    numbers, are_held = unscaled_numbers(column)
    if not are_held.all():
        raise _mismatch(f"a decimal has more digits than {column.type} holds")
    return numbers


def _decimals(column: pa.Array) -> list[Part]:
    unscaled = _unscaled(column)
    limits = 1 << (8 * np.arange(1, 8, dtype=np.int64) - 1)
    # -128 takes two bytes, though one would do: so does fastavro.
    sizes = 1 + ((unscaled[:, None] >= limits) | (unscaled[:, None] <= -limits)).sum(axis=1)
    mask = np.arange(8) >= 8 - sizes[:, None]
    return [_varint_block(sizes), (unscaled.astype(">i8").view(np.uint8).reshape(len(column), 8), mask)]


def _fixed_decimals(size: int) -> Encode:
    def encode(column: pa.Array) -> list[Part]:
        unscaled = _unscaled(column)
        low = unscaled.astype(">i8").view(np.uint8).reshape(len(column), 8)[:, max(0, 8 - size) :]
        sign = np.repeat(np.where(unscaled < 0, 255, 0).astype(np.uint8)[:, None], max(0, size - 8), axis=1)
        return [(np.concatenate([sign, low], axis=1), _all(len(column), size))]

    return encode


def _record(names: list[str], kinds: list[ColumnType]) -> Encode:
    def encode(column: pa.Array) -> list[Part]:
        parts: list[Part] = []
        for name, kind, child in zip(names, kinds, column.flatten(), strict=True):
            parts += _parts(child, kind, f"field `{name}`", column.null_count)
        return parts or [(np.zeros((len(column), 0), np.uint8), _all(len(column), 0))]

    return encode


def _array(item: ColumnType) -> Encode:
    def encode(column: pa.Array) -> list[Part]:
        return _blocks(column, _parts(column.flatten(), item, "an array"))

    return encode


def _map(item: ColumnType) -> Encode:
    def encode(column: pa.Array) -> list[Part]:
        entries = pa.ListArray.from_arrays(*_list_parts(column)).flatten()
        keys, values = entries.flatten()
        return _blocks(column, [*_texts(keys), *_parts(values, item, "a map")])

    return encode


def _list_parts(column: pa.MapArray) -> tuple[pa.Array, pa.Array]:
    """Return the offsets and the entries of maps; those of a null are left out, as `flatten` does for lists."""
    count = lengths(column)
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    places = np.repeat(edges(column)[:-1] - offsets[:-1], count) + np.arange(offsets[-1])
    entries = pa.StructArray.from_arrays(
        [child.take(pa.array(places)) for child in (column.keys, column.items)], ["key", "value"]
    )
    return pa.array(offsets), entries


def _blocks(column: pa.Array, parts: list[Part]) -> list[Part]:
    """Return the parts of lists: how many items, the items, and 0 for the end; where there is none, the end alone."""
    items = lengths(column)
    joined = _join(parts)
    spans = edges(joined)[np.concatenate([[0], np.cumsum(items)])]
    bodies = pa.Array.from_buffers(pa.binary(), len(column), [None, pa.py_buffer(spans), joined.buffers()[2]])
    end = (np.zeros((len(column), 1), dtype=np.uint8), (items > 0)[:, None])
    return [_varint_block(items), bodies, end]


def column_type(avro_type: Any) -> ColumnType | None:
    """Return what a column of the type is; None where it has no columnar encoding."""
    if isinstance(avro_type, list):
        others = [branch for branch in avro_type if branch != "null"]
        kind = column_type(others[0]) if len(others) == 1 and len(avro_type) == 2 else None
        branches = (avro_type.index("null"), avro_type.index(others[0])) if kind else None
        return ColumnType(kind.arrow, kind.encode, branches) if kind else None
    declared: dict[str, Any] = {"type": avro_type} if isinstance(avro_type, str) else avro_type
    return _scalar(declared) or _nested(declared)


def _scalar(declared: dict[str, Any]) -> ColumnType | None:
    kind, logical = declared["type"], str(declared.get("logicalType", ""))
    base, _, unit = logical.rpartition("-")
    if base in ("timestamp", "local-timestamp") and unit in TIME_UNITS and kind == "long":
        return ColumnType(pa.timestamp(TIME_UNITS[unit], "UTC" if base == "timestamp" else None), _varints)
    if (base, kind, unit) in (("time", "int", "millis"), ("time", "long", "micros")):
        return ColumnType(pa.time32("ms") if kind == "int" else pa.time64("us"), _varints)
    if (logical, kind) == ("date", "int"):
        return ColumnType(pa.date32(), _varints)
    if logical == "decimal" and kind in ("bytes", "fixed") and declared["precision"] <= DECIMAL_DIGITS:
        arrow = pa.decimal128(declared["precision"], declared.get("scale", 0))
        return ColumnType(arrow, _decimals if kind == "bytes" else _fixed_decimals(declared["size"]))
    if (logical, kind) == ("uuid", "string"):
        return ColumnType(pa.string(), _texts)
    if base in ("timestamp", "local-timestamp", "time") or logical in LOGICAL:
        return None
    if kind == "enum":
        return ColumnType(pa.string(), _enum(declared["symbols"]))
    if kind == "fixed" and declared["size"]:
        return ColumnType(pa.binary(declared["size"]), lambda column: [column.cast(pa.binary())])
    return PLAIN.get(kind) if isinstance(kind, str) else None


def _nested(declared: dict[str, Any]) -> ColumnType | None:
    if declared["type"] == "record":
        names = [field["name"] for field in declared["fields"]]
        kinds = [column_type(field["type"]) for field in declared["fields"]]
        known = [kind for kind in kinds if kind]
        if len(known) < len(kinds) or not kinds:
            return None
        arrow = pa.struct([(name, kind.arrow) for name, kind in zip(names, known, strict=True)])
        return ColumnType(arrow, _record(names, known))
    inner = {"array": "items", "map": "values"}.get(declared["type"])
    item = column_type(declared[inner]) if inner else None
    if item is None:
        return None
    if inner == "items":
        return ColumnType(pa.list_(item.arrow), _array(item))
    return ColumnType(pa.map_(pa.string(), item.arrow), _map(item))


PLAIN = {
    "string": ColumnType(pa.string(), _texts),
    "bytes": ColumnType(pa.binary(), _texts),
    "boolean": ColumnType(pa.bool_(), _booleans),
    "int": ColumnType(pa.int32(), _varints),
    "long": ColumnType(pa.int64(), _varints),
    "float": ColumnType(pa.float32(), _numbers("<f4")),
    "double": ColumnType(pa.float64(), _numbers("<f8")),
}


def _all(count: int, width: int) -> Mask:
    return np.ones((count, width), dtype=np.bool_)


def _mismatch(what: str) -> TidemarkError:
    return TidemarkError("COLUMN_MISMATCH", what, "make the columns those of the contract")
