"""Files that are small and claim to hold more than a machine does: refused, or rejected row by row, in bounded memory.

The bounds are in docs/files.md.
"""

import bz2
import gzip
import io
import lzma
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import lz4.block
import pytest
from backports import zstd
from cramjam import snappy

from conf import ROOT
from conf.errors import TidemarkError
from producers.files.avro_rows import BLOCK_BYTES, LIST_BLOCK_BYTES
from producers.files.inputs import Opening, open_inputs
from producers.files.rows import Row
from tests.kinds import of_a_kind

BYTES = {"type": "record", "name": "R", "fields": [{"name": "b", "type": "bytes"}]}
GIB = 2**30
SYNC = b"s" * 16
# What a process that only imports the reader takes, and what a row of the greatest length may take on top of it.
MOST_MIB = 1_000


def rows(path: Path) -> list[Row]:
    return [row for each in open_inputs([path], Opening()) for row in each.rows()]


def refusal(path: Path) -> str:
    with pytest.raises(TidemarkError) as refused:
        rows(path)
    assert refused.value.code == "BAD_FILE"
    return str(refused.value)


def long(number: int) -> bytes:
    """As Avro writes it."""
    number = (number << 1) ^ (number >> 63)
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def container(schema: Any, block: bytes, count: int, codec: str = "null", size: int | None = None) -> bytes:
    buffer = io.BytesIO()
    fastavro.writer(buffer, schema, [], codec=codec, sync_marker=SYNC)
    return buffer.getvalue() + long(count) + long(len(block) if size is None else size) + block + SYNC


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "null": bytes,
    "deflate": deflated,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstandard": zstd.compress,
    "lz4": lz4.block.compress,
    "snappy": lambda data: bytes(snappy.compress_raw(data)) + struct.pack(">I", zlib.crc32(data)),
}


@pytest.mark.parametrize("codec", of_a_kind(PACK, ["null", "deflate", "snappy"]))
def test_a_block_is_unpacked_to_its_bound_and_no_further(codec: str, tmp_path: Path) -> None:
    fits = long(BLOCK_BYTES - 4) + bytes(BLOCK_BYTES - 4)
    (tmp_path / "in.avro").write_bytes(container(BYTES, PACK[codec](fits[:BLOCK_BYTES]), 1, codec))
    assert [len(row.values["b"]) for row in rows(tmp_path / "in.avro") if row.values] == [BLOCK_BYTES - 4]
    (tmp_path / "in.avro").write_bytes(container(BYTES, PACK[codec](bytes(3 * BLOCK_BYTES)), 1, codec))
    assert "unreadable after row 0: a block has more than" in refusal(tmp_path / "in.avro")


@pytest.mark.parametrize("codec", ["lz4", "snappy"])
def test_a_length_that_a_block_claims_is_not_believed(codec: str, tmp_path: Path) -> None:
    claim = struct.pack("<I", GIB) if codec == "lz4" else bytes([*[0x80] * 4, 4])
    (tmp_path / "in.avro").write_bytes(container(BYTES, claim + b"\0" * 40, 1, codec))
    assert "a block has more than" in refusal(tmp_path / "in.avro")


@pytest.mark.parametrize(
    ("count", "size", "says"),
    [
        (1, 2**62, "a block has more than"),
        (1, -1, "a block has more than"),
        (2**62, None, "a block of 1 bytes says that it has 4,611,686,018,427,387,904 rows"),
        (-1, None, "a block of 1 bytes says that it has -1 rows"),
        (1, 3, "is damaged|expected sync marker|announced"),
    ],
)
def test_what_a_block_claims_is_compared_with_what_it_has(
    count: int, size: int | None, says: str, tmp_path: Path
) -> None:
    (tmp_path / "in.avro").write_bytes(container(BYTES, b"\0", count, size=size))
    assert any(part in refusal(tmp_path / "in.avro") for part in says.split("|"))


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ({"type": "array", "items": "null"}, "field a: array of items that take no bytes"),
        ({"type": "map", "values": {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}}, "field a"),
        (["null", "R"], "field a: record `R` holds itself"),
    ],
)
def test_a_file_whose_rows_have_no_bound_is_refused_by_its_schema(field: Any, says: str, tmp_path: Path) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": field}]}
    (tmp_path / "in.avro").write_bytes(container(schema, long(2**31) + b"\0", 1))
    assert f"its rows have no bound: {says}" in refusal(tmp_path / "in.avro")


def test_a_block_of_lists_is_smaller(tmp_path: Path) -> None:
    item = {"type": "record", "name": "I", "fields": [{"name": "x", "type": "boolean"}]}
    schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": item}}]}
    count = LIST_BLOCK_BYTES
    (tmp_path / "in.avro").write_bytes(container(schema, deflated(long(count) + bytes(count) + b"\0"), 1, "deflate"))
    assert f"more than {LIST_BLOCK_BYTES:,} bytes" in refusal(tmp_path / "in.avro")


@pytest.mark.parametrize(
    "header",
    [
        long(1) + long(2**40),
        long(2**40),
        long(1) + long(-5),
        long(1) + long(11) + b"avro.schema" + long(2**33) + b"[",
        long(1) + long(11) + b"avro.schema" + long(100_000) + b"[" * 100_000 + long(0) + SYNC,
        b"\xff" * 100,
    ],
)
def test_a_header_that_claims_too_much_or_lies_too_deep_is_refused(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.avro").write_bytes(b"Obj\x01" + header)
    assert "it is no Avro container file" in refusal(tmp_path / "in.avro")


@pytest.mark.parametrize("text", ['{"a":' * 100_000, "[" * 100_000])
@pytest.mark.parametrize("name", ["in.jsonl", "in.json"])
def test_json_that_lies_too_deep_is_a_reject_or_one_line(text: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"{text}\n")
    try:
        found = rows(tmp_path / name)
    except TidemarkError as error:
        assert error.code == "BAD_FILE"
    else:
        assert [row.values for row in found] == [None]


MEASURE = """
import resource, sys
from pathlib import Path
from conf.errors import TidemarkError
from producers.files.inputs import Opening, open_inputs
try:
    found = [bool(row.problem) for each in open_inputs([Path(sys.argv[1])], Opening()) for row in each.rows()]
except TidemarkError as error:
    found = error.code
print(found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
MIB = b"x" * 2**20
# What comes before and after a filling, how often that is there, and what becomes of the rows.
BOMBS: dict[str, tuple[bytes, bytes, int, bytes, str]] = {
    "in.csv.gz": (b"a,b\n1,2\n", MIB, 1024, b"\n3,4\n", "BAD_FILE"),
    "in.jsonl.gz": (b'{"a": 1}\n', MIB, 1024, b'\n{"a": 2}\n', "BAD_FILE"),
    "in.json.gz": (b'[{"a": "', MIB, 1024, b'"}]', "BAD_FILE"),
    # As many values as a line may have.
    "many.jsonl.gz": (b'{"a": [', b"{}," * 1_000, 5_590, b"{}]}\n", "[False]"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", of_a_kind(BOMBS, ["in.jsonl.gz"]))
def test_a_line_of_a_gigabyte_takes_no_more_memory_than_is_said(name: str, tmp_path: Path) -> None:
    before, filling, times, after, expected = BOMBS[name]
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
        file.write(before)
        for _ in range(times):
            file.write(filling)
        file.write(after)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / name)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found, _, peak = done.stdout.strip().rpartition(" ")
    print(f"{name}: {peak} MiB")
    assert found == expected
    assert int(peak) < MOST_MIB
