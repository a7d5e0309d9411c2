"""Reads the header and the blocks of an Avro container file, neither of which may take more memory than is said here.

fastavro unpacks a block whole, whatever that may be, and makes room for as many bytes as a length claims.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator

import lz4.block
from backports import zstd
from cramjam import snappy

MAGIC = b"Obj\x01"
SYNC_BYTES, CHECKSUM_BYTES = 16, 4
HEADER_BYTES = 4 * 2**20
HEADER_ENTRIES = 1_000
# The most bytes of an unpacked block. One byte of a list may become a dict of some 200 bytes.
BLOCK_BYTES, LIST_BLOCK_BYTES = 64 * 2**20, 4 * 2**20
ROWS = 100_000  # of a block that has fewer bytes: rows of nothing but nulls take none
XZ_BYTES = 128 * 2**20  # of the unpacker itself, which the packer chose

Unpack = Callable[[bytes, int], bytes]
"""From packed bytes and a bound to what they hold, or to more than the bound."""


def _snappy(data: bytes, most: int) -> bytes:
    packed = data[:-CHECKSUM_BYTES]
    _require_size(snappy.decompress_raw_len(packed), most)
    return bytes(snappy.decompress_raw(packed))


def _lz4(data: bytes, most: int) -> bytes:
    _require_size(int.from_bytes(data[:4], "little"), most)
    return bytes(lz4.block.decompress(data))


UNPACK: dict[str, Unpack] = {
    "null": lambda data, most: data,
    "deflate": lambda data, most: zlib.decompressobj(-15).decompress(data, most + 1),
    "bzip2": lambda data, most: bz2.BZ2Decompressor().decompress(data, most + 1),
    "xz": lambda data, most: lzma.LZMADecompressor(memlimit=XZ_BYTES).decompress(data, most + 1),
    "zstandard": lambda data, most: zstd.ZstdDecompressor().decompress(data, most + 1),
    "snappy": _snappy,
    "lz4": _lz4,
}
# What the libraries raise for damaged bytes, beside what reading files raises.
UNPACK_ERRORS = (lzma.LZMAError, zstd.ZstdError, RuntimeError)


class Container:
    """A container file at its beginning; `metadata` is its header's.

    A file that is no whole container raises ValueError or EOFError, or what libraries raise (UNPACK_ERRORS).
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        if stream.read(len(MAGIC)) != MAGIC:
            raise ValueError("cannot read header - is it an avro file?")
        self.metadata = dict(self._entries())
        self._sync = self._exactly(SYNC_BYTES)

    def blocks(self, most: int) -> Iterator[tuple[int, io.BytesIO]]:
        """Yield each block: how many rows it says it has, and their bytes, `most` at most."""
        unpack = UNPACK[self.metadata.get("avro.codec", b"null").decode()]
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


def _require_size(size: int, most: int) -> None:
    if not 0 <= size <= most:
        raise ValueError(f"a block has more than {most:,} bytes, unpacked: write the file anew with smaller ones")
