"""Searches for secrets, in whatever spelling, in whatever a run has left: texts, tables, archives, processes."""

import base64
import bz2
import gzip
import io
import lzma
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.pipeline.pii import INNER, OUTER

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
PARQUET, ZIP, ZSTD, LZ4 = b"PAR1", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
# As Java writes LZ4: blocks, each behind a magic word, how it is packed, its sizes and a checksum.
LZ4_BLOCK = struct.Struct("<8sBiii")
LZ4_MAGIC, LZ4_RAW = b"LZ4Block", 0x10


def spellings(secret: str) -> set[bytes]:
    """The bytes by which somebody who finds them knows the secret, one of which is in every text that tells it."""
    plain = secret.encode()
    found = {plain, secret.encode("utf-16-le"), secret.encode("utf-16-be"), plain.hex().encode()}
    found |= {plain.hex().upper().encode()} | {bytes(byte ^ pad for byte in plain) for pad in (INNER, OUTER)}
    for before in range(3):
        # In the midst of a longer text: the characters that come of this one's bytes alone.
        text = base64.b64encode(bytes(before) + plain).rstrip(b"=")
        inner = text[-(-before * 8 // 6) : len(text) - (1 if (before + len(plain)) % 3 else 0)]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def told(secrets: Mapping[str, str], contents: Iterable[bytes]) -> set[str]:
    """The names of the secrets that `contents` tell."""
    sought = {name: spellings(secret) for name, secret in secrets.items()}
    return {name for content in contents for name, words in sought.items() if any(word in content for word in words)}


def of_folder(folder: Path) -> Iterator[bytes]:
    """The names and contents of all files under `folder`, as they are and unpacked; files that vanish meanwhile are
    passed over."""
    for place, folders, files in os.walk(folder):
        yield from (name.encode() for name in folders)
        for name in files:
            yield name.encode()
            path = Path(place, name)
            if path.is_file():
                with suppress(FileNotFoundError):
                    yield from unpacked(path.read_bytes())


def unpacked(content: bytes) -> Iterator[bytes]:
    """`content`, and what is packed in it."""
    yield content
    for inner in _parts(content):
        yield from unpacked(inner)


def _parts(content: bytes) -> Iterator[bytes]:
    if content.startswith(PARQUET):
        yield from _leaves(pq.read_table(io.BytesIO(content)).to_pylist())
    elif content.startswith(ZIP):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield from map(archive.read, archive.namelist())
    elif content.startswith(LZ4_MAGIC):
        yield b"".join(_lz4_blocks(content))
    elif content.startswith((ZSTD, LZ4)):
        codec = "zstd" if content.startswith(ZSTD) else "lz4"
        yield pa.CompressedInputStream(pa.BufferReader(content), codec).read()
    else:
        for magic, unpack in ((b"\x1f\x8b", gzip.decompress), (b"BZh", bz2.decompress), (b"\xfd7zXZ", lzma.decompress)):
            if content.startswith(magic):
                yield unpack(content)


def _lz4_blocks(content: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        _, token, packed, size, _ = LZ4_BLOCK.unpack_from(content, at)
        at += LZ4_BLOCK.size
        block = content[at : at + packed]
        yield block if token & 0xF0 == LZ4_RAW else pa.Codec("lz4_raw").decompress(block, size).to_pybytes()
        at += packed


def _leaves(value: Any) -> Iterator[bytes]:
    if isinstance(value, Mapping):
        yield from (leaf for item in value.items() for leaf in _leaves(item))
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield from (leaf for item in value for leaf in _leaves(item))
    else:
        yield str(value).encode()


def command_line(process: psutil.Process) -> bytes:
    """What the list of processes shows of it; nothing once it is gone."""
    return _of_process(process, "cmdline")


def environment(process: psutil.Process) -> bytes:
    """The variables that it was started with; nothing once it is gone."""
    return _of_process(process, "environ")


def _of_process(process: psutil.Process, part: str) -> bytes:
    try:
        return Path(f"/proc/{process.pid}/{part}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def listening(processes: Iterable[psutil.Process]) -> set[tuple[str, int]]:
    """Address and port of every socket on which those processes take connections."""
    found: set[tuple[str, int]] = set()
    for process in processes:
        try:
            sockets = process.net_connections("inet")
        except psutil.NoSuchProcess:
            continue
        found |= {(each.laddr.ip, each.laddr.port) for each in sockets if each.status == psutil.CONN_LISTEN}
    return found
