"""Opens input files: CSV, JSON, Parquet and Avro, as they are, in gzip or in a zip archive; text in any encoding."""

import codecs
import gzip
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from conf.errors import TidemarkError
from producers.files.binary_rows import AvroInput, ParquetInput
from producers.files.csv_rows import CsvInput
from producers.files.json_rows import JsonInput
from producers.files.rows import READ_ERRORS, Input, bad_file

Format = Literal["csv", "json", "jsonl", "parquet", "avro"]
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".avro": "avro",
}
# What systems put into an archive besides its files.
CLUTTER = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")
# The longest first: UTF-32 begins as UTF-16 does.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Text in UTF-16 has a zero in every other byte, where it is of Latin letters; other text has none.
SHARE_OF_ZEROS = 0.1
# As much as the delimiter is sniffed from.
BUFFER_BYTES = 1 << 16


@dataclass(frozen=True)
class Opening:
    """How to open files that do not say it of themselves: None means by name, and by the first rows.

    `encoding` of text None: UTF-8, or what a byte order mark says.
    """

    format: Format | None = None
    delimiter: str | None = None
    encoding: str | None = None
    exact: bool = False


def open_inputs(paths: Sequence[Path], opening: Opening) -> Iterator[Input]:
    """Every file, and every member of every archive, one after the other; each is closed before the next is opened.

    Raises:
        TidemarkError: NO_FILE, UNKNOWN_FORMAT, BAD_FILE.
    """
    require_files(paths)
    for path in paths:
        for name, stream in _streams(path):
            yield _opened(name, stream, path, opening)


def require_files(paths: Sequence[Path]) -> None:
    """Raise TidemarkError NO_FILE for the first that is no file."""
    for path in paths:
        if not path.is_file():
            raise TidemarkError("NO_FILE", f"no file {path}", "check the path")


def _streams(path: Path) -> Iterator[tuple[str, io.BufferedReader]]:
    try:
        if path.suffix.lower() == ".zip":
            yield from _members(path)
        elif path.suffix.lower() == ".gz":
            with gzip.open(path) as unpacked:
                yield str(path), _buffered(unpacked)
        else:
            with path.open("rb", buffering=0) as file:
                yield str(path), _buffered(file)
    except READ_ERRORS as exc:
        raise bad_file(str(path), str(exc)) from exc


def _members(path: Path) -> Iterator[tuple[str, io.BufferedReader]]:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not (member.is_dir() or _is_clutter(member.filename))]
        if not members:
            raise bad_file(str(path), "there is no file in it")
        for member in members:
            name = f"{path}:{member.filename}"
            try:
                unpacked = archive.open(member)
            except RuntimeError as exc:  # encrypted, or compressed in a way that the library does not know
                raise bad_file(name, str(exc), "unpack it, and publish what was in it") from exc
            with unpacked:
                is_gzip = member.filename.lower().endswith(".gz")
                yield name, _buffered(gzip.GzipFile(fileobj=unpacked) if is_gzip else unpacked)


def _is_clutter(name: str) -> bool:
    """Return whether an archive's member is the system's own: macOS puts the attributes of `x` into `__MACOSX/._x`."""
    last = name.rpartition("/")[2]
    return name.startswith(CLUTTER[0]) or last in CLUTTER or last.startswith("._")


def _buffered(stream: Any) -> io.BufferedReader:
    return io.BufferedReader(stream, buffer_size=BUFFER_BYTES)


def _opened(name: str, stream: io.BufferedReader, path: Path, opening: Opening) -> Input:
    kind = opening.format or _format_of(name)
    if kind == "csv":
        return CsvInput(name, _in_utf8(name, stream, opening.encoding), opening.delimiter)
    if kind in ("json", "jsonl"):
        return JsonInput(name, _in_utf8(name, stream, opening.encoding), opening.exact)
    if kind == "avro":
        return AvroInput(name, stream)
    if path.suffix.lower() in (".gz", ".zip"):
        raise bad_file(name, "Parquet is read at random, and cannot be read from an archive", "unpack it before")
    return ParquetInput(name, path)


def _in_utf8(name: str, stream: io.BufferedReader, encoding: str | None) -> io.BufferedReader:
    """Return the stream itself where it is UTF-8, otherwise one of the same text in UTF-8.

    Bytes that the encoding does not have are left as they are, and so make their row no UTF-8.
    """
    start = stream.peek(BUFFER_BYTES)[:BUFFER_BYTES]
    encoding = encoding or next((name for mark, name in MARKS.items() if start.startswith(mark)), None)
    if encoding is None and start.count(0) > SHARE_OF_ZEROS * len(start):
        remedy = "say it: --encoding utf-16-le, or utf-16-be"
        raise bad_file(name, "every other byte is zero, as in UTF-16 without a byte order mark", remedy)
    if encoding is None or codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii"):
        return stream
    return _buffered(_Recoded(stream, encoding))


class _Recoded(io.RawIOBase):
    """The text of a stream in an encoding, as UTF-8."""

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        """Return whether it can be read: always."""
        return True

    def readinto(self, target: Any) -> int:
        """Return the next bytes; 0 at the end."""
        while not self._ready and not self._ended:
            data = self._stream.read1(BUFFER_BYTES)
            self._ended = not data
            self._ready = self._decoder.decode(data, final=self._ended).encode("utf-8", "surrogateescape")
        count = min(len(target), len(self._ready))
        target[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def _format_of(name: str) -> Format:
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    if suffix not in FORMATS:
        what = f"{name}: what kind of file is `{suffix or name}`"
        raise TidemarkError("UNKNOWN_FORMAT", what, f"say it with --format {'|'.join(get_args(Format))}")
    return FORMATS[suffix]
