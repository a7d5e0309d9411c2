"""Opens input files: CSV, JSON lines, Parquet and Avro, as they are, in gzip, or in a zip archive."""

import gzip
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from conf.errors import TidemarkError
from producers.binary_rows import AvroInput, ParquetInput
from producers.csv_rows import CsvInput
from producers.json_rows import JsonLinesInput
from producers.rows import READ_ERRORS, Input, bad_file

Format = Literal["csv", "jsonl", "parquet", "avro"]
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".avro": "avro",
}


# As much as the delimiter is sniffed from.
BUFFER_BYTES = 1 << 16


@dataclass(frozen=True)
class Opening:
    """How to open files that do not say it of themselves: None means by name, and by the first rows."""

    format: Format | None = None
    delimiter: str | None = None
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
    """Raises TidemarkError NO_FILE for the first that is no file."""
    for path in paths:
        if not path.is_file():
            raise TidemarkError("NO_FILE", f"no file {path}", "check the path")


def _streams(path: Path) -> Iterator[tuple[str, io.BufferedReader]]:
    try:
        if path.suffix == ".zip":
            yield from _members(path)
        elif path.suffix == ".gz":
            with gzip.open(path) as unpacked:
                yield str(path), _buffered(unpacked)
        else:
            with path.open("rb", buffering=0) as file:
                yield str(path), _buffered(file)
    except READ_ERRORS as exc:
        raise bad_file(str(path), str(exc)) from exc


def _members(path: Path) -> Iterator[tuple[str, io.BufferedReader]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                with archive.open(member) as unpacked:
                    yield f"{path}:{member.filename}", _buffered(unpacked)


def _buffered(stream: Any) -> io.BufferedReader:
    return io.BufferedReader(stream, buffer_size=BUFFER_BYTES)


def _opened(name: str, stream: io.BufferedReader, path: Path, opening: Opening) -> Input:
    kind = opening.format or _format_of(name)
    if kind == "csv":
        return CsvInput(name, stream, opening.delimiter)
    if kind == "jsonl":
        return JsonLinesInput(name, stream, opening.exact)
    if kind == "avro":
        return AvroInput(name, stream)
    if path.suffix in (".gz", ".zip"):
        raise bad_file(name, "Parquet is read at random, and cannot be read from an archive")
    return ParquetInput(name, path)


def _format_of(name: str) -> Format:
    suffix = Path(name.removesuffix(".gz")).suffix.lower()
    if suffix not in FORMATS:
        what = f"{name}: what kind of file is `{suffix or name}`"
        raise TidemarkError("UNKNOWN_FORMAT", what, f"say it with --format {'|'.join(get_args(Format))}")
    return FORMATS[suffix]
