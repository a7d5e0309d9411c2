"""Defines what every kind of input file becomes: rows that know where they came from."""

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from conf.errors import TidemarkError

# What reading a damaged or vanished file was seen to raise, archives included.
READ_ERRORS = (OSError, EOFError, UnicodeError, zlib.error, zipfile.BadZipFile)
SAY_ENCODING = "say what it is with --encoding"
NOT_UTF8 = f"it is not UTF-8: {SAY_ENCODING}"


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


# A piece of fewer rows is not worth its columns.
LEAST_ROWS = 32


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
