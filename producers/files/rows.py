"""Defines what every kind of input file becomes: rows that know where they came from; reads text in whole lines."""

import functools
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import pyarrow as pa

from conf.errors import TidemarkError

# What reading a damaged or vanished file was seen to raise, archives included.
READ_ERRORS = (OSError, EOFError, UnicodeError, zlib.error, zipfile.BadZipFile)
SAY_ENCODING = "say what it is with --encoding"
NOT_UTF8 = f"it is not UTF-8: {SAY_ENCODING}"
# A piece of fewer rows is not worth its columns.
LEAST_ROWS = 32
# Some thousand rows: enough to read them by columns, and little enough to have several copies of.
BLOCK_BYTES = 1 << 19
# Past this a line cannot become a record, and reading on would only take memory.
LONGEST_LINE = 1 << 26
LINE_ENDS = (b"\n", b"\r")


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file.

    `line` is its first line, or, in files without lines, its number from 1. `raw` is its text as it stands there,
    where bytes that are no UTF-8 are lone surrogates (Python's surrogateescape); empty in files that are no text.
    `values` maps names to values; it is None where the row cannot be read, and `problem` says why.
    """

    line: int
    raw: str
    values: Mapping[str, Any] | None
    problem: str = ""

    def text(self) -> str:
        """Return what the row was, for a person who has to mend it."""
        try:
            return self.raw or json.dumps(self.values, default=str)
        except (RecursionError, ValueError, TypeError) as exc:
            return f"a row that cannot be shown ({type(exc).__name__})"


class NotColumnarError(Exception):
    """Rows are to be read one by one: why."""


class Piece(Protocol):
    """Some rows of a file, one after the other, which can be read as columns or as rows."""

    def rows(self) -> Iterator[Row]:
        """Return every row, once."""

    def row(self, index: int) -> Row:
        """Return one of the rows, by its place among the columns' values."""

    def columns(self, types: pa.Schema) -> pa.Table:
        """Return all rows as columns of these types; raises pa.ArrowException where not every row can be read so."""

    def halves(self) -> Sequence["Piece"]:
        """Return two pieces with the same rows; none where there are too few."""


class Input(Protocol):
    """One open file, or one member of an archive."""

    name: str
    # Whether all values are text, to be read by the schema's types.
    from_text: bool
    # What a person should know of it.
    notes: list[str]

    def columns(self) -> list[str] | None:
        """Return the names of the columns, where the file names them up front; None where each row does."""

    def rows(self) -> Iterator[Row]:
        """Return every row, once; raises TidemarkError BAD_FILE, after the rows before it,
        where the rest cannot be read."""

    def column_types(self, schema: Mapping[str, Any]) -> pa.Schema:
        """Return the types in which `pieces` are read as columns, for an Avro schema; raises NotColumnarError."""

    def pieces(self) -> Iterator[Piece | Iterator[Row]]:
        """Return every row, once, as pieces, or as rows where there are no columns; raises what `rows` does.

        The rows of each must be taken before the next one is asked for.
        """


class TextInput(Input, Protocol):
    """A file of text whose rows are lines."""

    def rows_of(self, block: bytes, before: int) -> Iterator[Row]:
        """Return the rows of whole lines, behind so many others."""


@dataclass(frozen=True)
class LinesPiece:
    """Whole rows of a file of text, one a line, behind so many lines; but for `columns` a `Piece`."""

    file: TextInput
    block: bytes
    before: int

    def rows(self) -> Iterator[Row]:
        return self.file.rows_of(self.block, self.before)

    def row(self, index: int) -> Row:
        number, line = self.filled[index]
        return next(self.file.rows_of(line, self.before + number))

    def halves(self) -> Sequence[Self]:
        middle = self.block.find(b"\n", len(self.block) // 2) + 1
        first, second = self.block[:middle], self.block[middle:]
        if self.block.count(b"\n") < 2 * LEAST_ROWS or not first or not second:
            return ()
        return replace(self, block=first), replace(self, block=second, before=self.before + first.count(b"\n"))

    @functools.cached_property
    def filled(self) -> list[tuple[int, bytes]]:
        """Every line that is not empty, and how many of the piece lie before it."""
        return [(number, line) for number, line in enumerate(self.block.split(b"\n")) if line.strip(b"\r")]


class LineBlocks:
    """The lines of a stream, in blocks of whole lines, so that memory is bounded whatever a file holds."""

    def __init__(self, name: str, stream: io.BufferedReader, carriage_returns: bool) -> None:
        """`carriage_returns`: whether a carriage return alone ends a line, too."""
        self._name, self._stream = name, stream
        self._ends = LINE_ENDS if carriage_returns else LINE_ENDS[:1]
        self._rest = b""
        self._failure: Exception | None = None
        self._ended = False

    def next(self) -> bytes:
        """Return the next lines, some `BLOCK_BYTES` of them, or one that is longer; empty at the end.

        Raises:
            TidemarkError: BAD_FILE, where a line is longer than a record can be.
            READ_ERRORS: where the file cannot be read on, after the whole lines before.
        """
        chunks, size = [self._rest], len(self._rest)
        while True:
            while size < BLOCK_BYTES and (data := self._read()):
                chunks.append(data)
                size += len(data)
            block = b"".join(chunks)
            end = len(block) if self._ended else self._end_of_lines(block)
            if end:
                self._rest = block[end:]
                return block[:end]
            if self._failure:
                raise self._failure
            if self._ended:
                return b""
            if size > LONGEST_LINE:
                raise bad_file(self._name, f"a line is longer than {LONGEST_LINE:,} bytes")
            data = self._read()
            chunks, size = [block, data], size + len(data)

    def _read(self) -> bytes:
        if self._failure or self._ended:
            return b""
        try:
            data = self._stream.read1(BLOCK_BYTES)
        except READ_ERRORS as exc:
            self._failure = exc
            return b""
        self._ended = not data
        return data

    def _end_of_lines(self, block: bytes) -> int:
        """Return where the last whole line ends; one that ends with the block's carriage return may go on."""
        return max(block.rfind(end, 0, len(block) - (end == b"\r")) for end in self._ends) + 1


def lines_of(block: bytes) -> Iterator[str]:
    """Return the lines of a block, with their ends; bytes that are no UTF-8 are lone surrogates."""
    return iter(io.StringIO(block.decode("utf-8", "surrogateescape"), newline=""))


def bad_file(name: str, what: str, remedy: str = "mend or leave out the file") -> TidemarkError:
    """Return the error BAD_FILE: a file cannot be read, or not to its end."""
    return TidemarkError("BAD_FILE", f"{name}: {what}", remedy)


def readable(file: Input, problems: list[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the values of every row that can be read; `problems` grows by one for each other,
    and its first says which."""
    for row in file.rows():
        if row.values is not None:
            yield row.values
        else:
            problems.append("" if problems else f"{file.name} line {row.line}: {row.problem}")


def is_utf8(text: str) -> bool:
    """Return whether all of it was UTF-8 in its file."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def unique_columns(name: str, names: list[str]) -> tuple[list[str], list[str]]:
    """Return the names of a file's columns, made unique, and a note on each that had to be."""
    unique = unique_names(names)
    changed = [(old, new) for old, new in zip(names, unique, strict=True) if old != new]
    return unique, [f"{name} has column {old!r} more than once: a later one is `{new}`" for old, new in changed]


def unique_names(names: list[str], fold: Callable[[str], str] = str) -> list[str]:
    """Return the names, the second and later of the same numbered: a, a -> a, a_2.
    `fold` makes equal what counts as equal."""
    folded = {fold(name) for name in names}
    seen: set[str] = set()
    unique = []
    for name in names:
        number, candidate = 1, name
        while fold(candidate) in seen or (number > 1 and fold(candidate) in folded):
            number += 1
            candidate = f"{name}_{number}"
        seen.add(fold(candidate))
        unique.append(candidate)
    return unique
