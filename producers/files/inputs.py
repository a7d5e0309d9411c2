"""Opens input files: CSV, JSON, Parquet and Avro, as they are, in gzip or in a zip archive; text in any encoding."""

import codecs
import contextlib
import gzip
import io
import re
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from conf.errors import TidemarkError
from producers.files.avro_rows import AvroInput
from producers.files.csv_rows import CsvInput
from producers.files.json_rows import JsonInput
from producers.files.parquet_rows import ParquetInput
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
# What a damaged archive leads to: numbers in it are taken for versions, places and lengths.
OPEN_ERRORS = (*READ_ERRORS, RuntimeError, ValueError, OverflowError, struct.error)
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
# The delimiter is sniffed from this many bytes.
BUFFER_BYTES = 1 << 16
SURROGATES = re.compile("[\ud800-\udfff]+")


@dataclass(frozen=True)
class Opening:
    """How to open files that do not say it of themselves: None means by name, and by the first rows.

    `encoding` of text None: UTF-8, or what a byte order mark says. `quoted`: whether a cell of CSV may stand in quotes.
    """

    format: Format | None = None
    delimiter: str | None = None
    encoding: str | None = None
    exact: bool = False
    quoted: bool = True


def open_inputs(paths: Sequence[Path], opening: Opening) -> Iterator[Input]:
    """Yield every file, and every member of every archive; each is closed before the next is opened.
    Raises TidemarkError NO_FILE, UNKNOWN_FORMAT, BAD_FILE."""
    require_files(paths)
    for path in paths:
        for name, stream in _streams(path):
            try:
                file = _open(name, stream, path, opening)
            except OPEN_ERRORS as exc:
                raise bad_file(name, str(exc)) from exc
            yield file


def require_files(paths: Sequence[Path]) -> None:
    """Raise TidemarkError NO_FILE for the first that is no file."""
    for path in paths:
        is_file = False
        with contextlib.suppress(OSError):  # no file can have such a name
            is_file = path.is_file()
        if not is_file:
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
    except OPEN_ERRORS as exc:
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


def _open(name: str, stream: io.BufferedReader, path: Path, opening: Opening) -> Input:
    kind = opening.format or _format_of(name)
    if kind == "csv":
        return CsvInput(name, _in_utf8(name, stream, opening.encoding), opening.delimiter, opening.quoted)
    if kind in ("json", "jsonl"):
        return JsonInput(name, _in_utf8(name, stream, opening.encoding), opening.exact)
    if kind == "avro":
        return AvroInput(name, stream)
    if path.suffix.lower() in (".gz", ".zip"):
        raise bad_file(name, "Parquet is read at random, and cannot be read from an archive", "unpack it before")
    return ParquetInput(name, path)


def _in_utf8(name: str, stream: io.BufferedReader, encoding: str | None) -> io.BufferedReader:
    """Return the stream itself where it is UTF-8, otherwise one of the same text in UTF-8.

    Bytes that the encoding does not have make their row no UTF-8.
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
        return True

    def readinto(self, target: Any) -> int:
        while not self._ready and not self._ended:
            data = self._stream.read1(BUFFER_BYTES)
            self._ended = not data
            self._ready = _utf8(self._decoder.decode(data, final=self._ended))
        count = min(len(target), len(self._ready))
        target[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def _utf8(text: str) -> bytes:
    """Return the text in UTF-8, and lone surrogates, which stand for bytes that are no text, as bytes that are none.

    A byte that the encoding does not have stays itself where it can. Several may be UTF-8 together, also across the end
    of the text: of those, each becomes the bytes of its surrogate, which are never UTF-8.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        kept = SURROGATES.sub(lambda run: _no_utf8(run[0], is_last=run.end() == len(text)), text)
        return kept.encode("utf-8", "surrogateescape")


def _no_utf8(run: str, is_last: bool) -> str:
    bare = run.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    try:
        is_safe = run.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") == run
    except UnicodeEncodeError:  # surrogates of an encoding that has them, as UTF-7
        return bare
    return run if is_safe and not is_last else bare


def _format_of(name: str) -> Format:
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    if suffix not in FORMATS:
        what = f"{name}: what kind of file is `{suffix or name}`"
        raise TidemarkError("UNKNOWN_FORMAT", what, f"say it with --format {'|'.join(get_args(Format))}")
    return FORMATS[suffix]
