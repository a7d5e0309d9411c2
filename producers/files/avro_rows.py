"""Reads Avro container files: values as they are stored, and what those stand for; in memory that is bounded here.

fastavro unpacks a block whole, whatever that may be, and makes room for as many bytes as a length claims. So header and
blocks are read here, and fastavro reads the values of a block.
"""

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any
from uuid import UUID

import lz4.block
import pyarrow as pa
from backports import zstd
from cramjam import snappy
from fastavro import schemaless_reader
from fastavro.read import LOGICAL_READERS
from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from conf.errors import TidemarkError
from producers.files.rows import READ_ERRORS, NotColumnarError, Piece, Row, bad_file
from schemas.numbers import Convert, stored_decimal
from schemas.schema_text import PRIMITIVE, without_ignored_logical_types
from schemas.spark_limits import require_finite
from schemas.timestamps import DAY_NS, EPOCH, LOCAL_EPOCH, UNIT_NS

# Neither fastavro nor the unpackers have one error class of their own for damaged bytes.
AVRO_ERRORS = (
    *(*READ_ERRORS, lzma.LZMAError, zstd.ZstdError, ValueError, LookupError, TypeError, MemoryError, OverflowError),
    *(RuntimeError, SchemaParseException, UnknownType),
)
MAGIC = b"Obj\x01"
SYNC_BYTES, CHECKSUM_BYTES = 16, 4
HEADER_BYTES = 4 * 2**20
HEADER_ENTRIES = 1_000
# The most bytes of an unpacked block. One byte of a list may become a dict of some 200 bytes.
BLOCK_BYTES, LIST_BLOCK_BYTES = 64 * 2**20, 4 * 2**20
ROWS = 100_000  # of a block that has fewer bytes: rows of nothing but nulls take none
XZ_BYTES = 128 * 2**20  # of the unpacker itself, which the packer chose
BRANCH = "tidemark-branch"
STANDS_FOR = "tidemark-stands-for"
TIMES = ("timestamp", "local-timestamp", "time")
TAGGED = (PRIMITIVE - {"null"}) | {"array", "map"}


class AvroInput:
    """An Avro container file; `schema` is its own, `stored` the one by which its bytes are read (`stored_schema`)."""

    from_text = False

    def __init__(self, name: str, stream: io.BufferedReader) -> None:
        """Reads the header; raises TidemarkError BAD_FILE where there is none, or no record schema in it."""
        self.name = name
        self.notes: list[str] = []
        try:
            self._container = Container(stream)
            self.schema: Any = json.loads(self._container.metadata["avro.schema"])
            self.stored = stored_schema(self.schema)
            # The schema must not let a few bytes claim any number of values.
            require_finite(self.stored)
        except TidemarkError as exc:
            raise bad_file(name, f"its rows have no bound: {exc.message}", exc.remedy) from exc
        except AVRO_ERRORS as exc:
            raise bad_file(name, f"it is no Avro container file: {exc}") from exc
        if not isinstance(self.schema, dict) or self.schema.get("type") != "record":
            raise bad_file(name, "its schema is no record's")
        if self._container.codec not in UNPACK:
            what = f"its blocks are compressed with {self._container.codec}, which cannot be read here"
            remedy = f"the file may be sound: write it anew with one of {', '.join(UNPACK)}"
            raise bad_file(name, what, remedy)

    def columns(self) -> list[str] | None:
        return [field["name"] for field in self.schema["fields"]]

    def column_types(self, schema: Mapping[str, Any]) -> pa.Schema:
        raise NotColumnarError("an Avro file has rows only")

    def pieces(self) -> Iterator[Piece | Iterator[Row]]:
        yield self.rows()

    def rows(self) -> Iterator[Row]:
        """Yield every row; a block that is damaged ends the file."""
        number = 0
        try:
            for number, record in enumerate(self._records(), start=1):
                yield Row(number, "", record)
        except AVRO_ERRORS as exc:
            raise bad_file(self.name, f"unreadable after row {number}: {exc}") from exc

    def _records(self) -> Iterator[Any]:
        has_lists = any(f'"{kind}"' in json.dumps(self.stored) for kind in ("array", "map"))
        for count, data in self._container.blocks(LIST_BLOCK_BYTES if has_lists else BLOCK_BYTES):
            for _ in range(count):
                yield schemaless_reader(data, self.stored, None, return_named_type=True)


def stored_schema(schema: Any) -> Any:
    """Return the schema of a file's header, in fastavro's parsed form, to read its bytes as they are stored.

    A logical type is read as what it is stored as (a timestamp as an integer), which loses nothing; what it stands for
    is kept beside, as STANDS_FOR. Of a union of several types, a value comes as a pair of its branch's name and itself:
    fastavro gives such pairs for types that have a name, and calls for others what is registered in LOGICAL_READERS.

    Raises what fastavro and Python raise for a text that is no schema.
    """
    return parse_schema(_stored(without_ignored_logical_types(schema), is_choice=False))


def _stored(schema: Any, is_choice: bool) -> Any:
    """Return one type; `is_choice`: whether it is a branch beside others."""
    if isinstance(schema, list):
        others = [branch for branch in schema if branch not in ("null", {"type": "null"})]
        return [_stored(branch, len(others) > 1) for branch in schema]
    if not isinstance(schema, dict):
        return {"type": schema, "logicalType": BRANCH} if is_choice and schema in TAGGED else schema
    stored = {name: value for name, value in schema.items() if name not in ("logicalType", STANDS_FOR)}
    if "logicalType" in schema:
        stored[STANDS_FOR] = schema["logicalType"]
    if is_choice and schema["type"] in TAGGED:
        stored["logicalType"] = BRANCH
    for inner in ("items", "values"):
        if schema["type"] in ("array", "map") and inner in schema:
            stored[inner] = _stored(schema[inner], is_choice=False)
    if schema["type"] in ("record", "error"):
        # No default is needed to read what was written, and many that are written are none.
        fields = [{name: value for name, value in field.items() if name != "default"} for field in schema["fields"]]
        stored["fields"] = [{**field, "type": _stored(field["type"], is_choice=False)} for field in fields]
    return stored


def _pair_with(branch: str) -> Callable[..., tuple[str, Any]]:
    return lambda value, *schemas: (branch, value)


LOGICAL_READERS.update({f"{name}-{BRANCH}": _pair_with(name) for name in TAGGED})


@dataclass(frozen=True)
class ScalarType:
    """A type that holds no others: Avro's name of it, and its logical type."""

    kind: str
    logical: str = ""
    scale: int = 0

    @staticmethod
    def of(declared: Mapping[str, Any], attribute: str) -> "ScalarType":
        """Return what a schema declares; `attribute` has its logical type, which is STANDS_FOR in a stored schema."""
        logical = str(declared.get(attribute, ""))
        return ScalarType(str(declared["type"]), logical, declared.get("scale", 0) if logical == "decimal" else 0)

    @property
    def family(self) -> str:
        """What it stands for, in whatever unit."""
        base, _, unit = self.logical.rpartition("-")
        return base if unit in UNIT_NS and base in TIMES else self.logical

    @property
    def unit_ns(self) -> int:
        """Nanoseconds in the unit of a time."""
        return UNIT_NS[self.logical.rpartition("-")[2]]

    def __str__(self) -> str:
        return self.logical or self.kind


def meaning_of(stored: ScalarType) -> Convert | None:
    """Return the conversion of a stored value into what it stands for, as Python has it; None where it has nothing.

    A time that Python would cut is text. The callable raises ValueError.
    """
    if stored.family == "decimal":
        return lambda value: stored_decimal(value, stored.scale)
    if stored.family == "date":
        return lambda value: _moment(LOCAL_EPOCH, value * DAY_NS).date()
    if stored.family == "time":
        return lambda value: _time_of_day(value * stored.unit_ns)
    if stored.family in TIMES:
        epoch = EPOCH if stored.family == "timestamp" else LOCAL_EPOCH
        return lambda value: _moment(epoch, value * stored.unit_ns)
    return (lambda value: UUID(bytes=value)) if stored.family == "uuid" and stored.kind == "fixed" else None


def _time_of_day(nanoseconds: int) -> time:
    if not 0 <= nanoseconds < DAY_NS:
        raise ValueError("it is outside of a day")
    return (LOCAL_EPOCH + timedelta(microseconds=nanoseconds // 1000)).time()


def _moment(epoch: datetime, nanoseconds: int) -> Any:
    micros, finer = divmod(nanoseconds, 1000)
    try:
        moment = epoch + timedelta(microseconds=micros)
    except OverflowError as exc:
        raise ValueError("it is outside of what a time holds, the years 1 to 9999") from exc
    return time_text(nanoseconds) + ("Z" if moment.tzinfo else "") if finer else moment


def time_text(nanoseconds: int) -> str:
    """Return a time without its offset: with six digits behind its seconds, nine where it needs them, or none."""
    micros, finer = divmod(nanoseconds, 1000)
    moment = LOCAL_EPOCH + timedelta(microseconds=micros)
    return f"{moment.isoformat(timespec='microseconds')}{finer:03}" if finer else moment.isoformat()


class Container:
    """A container file at its beginning; `metadata` is its header's. One that is damaged raises AVRO_ERRORS."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        if stream.read(len(MAGIC)) != MAGIC:
            raise ValueError("cannot read header - is it an avro file?")
        self.metadata = dict(self._entries())
        self.codec = self.metadata.get("avro.codec", b"null").decode()
        self._sync = self._exactly(SYNC_BYTES)

    def blocks(self, most: int) -> Iterator[tuple[int, io.BytesIO]]:
        """Yield each block: how many rows it says it has, and their bytes, `most` at most."""
        unpack = UNPACK[self.codec]
        while self._stream.peek(1):
            count, size = self._long(), self._long()
            _require_size(size, 2 * most)
            data = unpack(self._exactly(size), most)
            _require_size(len(data), most)
            if not 0 <= count <= max(len(data), ROWS):
                raise ValueError(f"a block of {len(data):,} bytes says that it has {count:,} rows")
            if self._exactly(SYNC_BYTES) != self._sync:
                raise ValueError("expected sync marker not found")
            yield count, io.BytesIO(data)

    def _entries(self) -> Iterator[tuple[str, bytes]]:
        left, entries = HEADER_BYTES, HEADER_ENTRIES
        while count := self._long():
            if count < 0:
                self._long()
            entries -= abs(count)
            if entries < 0:
                raise ValueError(f"its header has more than {HEADER_ENTRIES:,} entries")
            for _ in range(abs(count)):
                parts = []
                for _ in range(2):
                    size = self._long()
                    left -= size
                    if size < 0 or left < 0:
                        raise ValueError(f"its header is longer than {HEADER_BYTES:,} bytes")
                    parts.append(self._exactly(size))
                yield parts[0].decode(), parts[1]

    def _long(self) -> int:
        number = shift = 0
        while True:
            byte = self._stream.read(1)
            if not byte or shift > 63:
                raise EOFError("a number is cut short, or has no end")
            number |= (byte[0] & 0x7F) << shift
            shift += 7
            if byte[0] < 0x80:
                return (number >> 1) ^ -(number & 1)

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError(f"{size:,} bytes are announced, and {len(data):,} follow")
        return data


def _unpack_snappy(data: bytes, most: int) -> bytes:
    packed = data[:-CHECKSUM_BYTES]
    _require_size(snappy.decompress_raw_len(packed), most)
    return bytes(snappy.decompress_raw(packed))


def _unpack_lz4(data: bytes, most: int) -> bytes:
    _require_size(int.from_bytes(data[:4], "little"), most)
    return bytes(lz4.block.decompress(data))


# By codec: from packed bytes and a bound to what they hold, or to more than the bound.
UNPACK: dict[str, Callable[[bytes, int], bytes]] = {
    "null": lambda data, most: data,
    "deflate": lambda data, most: zlib.decompressobj(-15).decompress(data, most + 1),
    "snappy": _unpack_snappy,
    "zstandard": lambda data, most: zstd.ZstdDecompressor().decompress(data, most + 1),
    "bzip2": lambda data, most: bz2.BZ2Decompressor().decompress(data, most + 1),
    "xz": lambda data, most: lzma.LZMADecompressor(memlimit=XZ_BYTES).decompress(data, most + 1),
    "lz4": _unpack_lz4,
}


def _require_size(size: int, most: int) -> None:
    if not 0 <= size <= most:
        raise ValueError(f"a block has more than {most:,} bytes, unpacked: write the file anew with smaller ones")
