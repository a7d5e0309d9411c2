"""Reads CSV files row by row, with the line each row starts on, whatever its cells hold; or many rows as columns."""

import codecs
import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from producers.files.rows import (
    NOT_UTF8,
    READ_ERRORS,
    LineBlocks,
    LinesPiece,
    Piece,
    Row,
    bad_file,
    is_utf8,
    lines_of,
    unique_columns,
)

DELIMITERS = ",;\t|"
SNIFFED_BYTES = 65_536
SNIFFED_ROWS = 100
# As long as a record may be by default; a quote that is never closed is noticed after so many characters.
MAX_CELL_CHARACTERS = 1_000_000
QUOTE, LINE_FEED, CARRIAGE_RETURN = b'"\n\r'
# What Excel takes for no row: a first line that says which delimiter follows.
NAMED_DELIMITER = re.compile(r'"?sep=([^"\r\n])"?(?=[\r\n])', re.ASCII | re.IGNORECASE)
BLANK_LINE = re.compile(rb"^\r?\n", re.MULTILINE)


class CsvInput:
    """A CSV file with a header line; `delimiter` None: the one of `,` `;` tab `|` that fits the first rows best.

    Every cell is text. Quotes are read strictly: a quote that opens a cell must close it. Where it does not, the
    line it stands on is the bad row, not all the lines that it would swallow. Not `quoted`: a quote is a character.
    """

    from_text = True

    def __init__(self, name: str, stream: io.BufferedReader, delimiter: str | None = None, quoted: bool = True) -> None:
        """Reads the header; raises TidemarkError BAD_FILE where there is none to be read."""
        csv.field_size_limit(MAX_CELL_CHARACTERS)
        self.name = name
        self.quoted = quoted
        start = stream.peek(SNIFFED_BYTES)[:SNIFFED_BYTES].decode("utf-8-sig", "replace")
        named = NAMED_DELIMITER.match(start)
        self.delimiter = delimiter or (named[1] if named else sniff_delimiter(start, quoted))
        self._lines = _Lines(LineBlocks(name, stream, carriage_returns=True))
        if named:
            next(self._lines)
        self._blank_lines = 0
        self._columns, self.notes = unique_columns(name, self._header())
        if named:
            self.notes.append(f"{name}: its first line, {named[0]!r}, names the delimiter, and is no header")

    def columns(self) -> list[str] | None:
        """Return the header; empty for an empty file."""
        return self._columns

    def rows(self) -> Iterator[Row]:
        yield from self._rows(self._lines)
        self._note_blank_lines()

    def column_types(self, schema: Mapping[str, Any]) -> pa.Schema:
        return pa.schema([(name, pa.string()) for name in self._columns])

    def pieces(self) -> Iterator[Piece | Iterator[Row]]:
        """Yield the rows, as pieces wherever no row has a line end in it and all is read without a doubt."""
        lines, delimiter = self._lines, self.delimiter.encode()
        block = "".join(lines.returned).encode("utf-8", "surrogateescape")  # what is behind the header
        lines.returned.clear()
        while True:
            if lines.returned:  # of a block that is not regular
                yield self._rows(lines, returned_only=True)
            try:
                block = block or lines.next_block()
            except READ_ERRORS as exc:
                raise bad_file(self.name, f"unreadable after line {lines.number}: {exc}") from exc
            if not block:
                self._note_blank_lines()
                return
            if is_regular(block, delimiter, self.quoted):
                self._blank_lines += len(BLANK_LINE.findall(block)) if len(self._columns) == 1 else 0
                piece = CsvPiece(self, block, lines.number)
                lines.number += block.count(b"\n") + (not block.endswith(b"\n"))
                yield piece
            else:
                lines.returned.extend(lines_of(block))
            block = b""

    def rows_of(self, block: bytes, before: int) -> Iterator[Row]:
        lines = _Lines(None, before)
        lines.returned.extend(lines_of(block))
        return self._rows(lines)

    def _rows(self, lines: "_Lines", returned_only: bool = False) -> Iterator[Row]:
        for line, raw, cells, problem in self._records(lines, len(self._columns), returned_only):
            yield Row(line, raw, None if problem else dict(zip(self._columns, cells, strict=True)), problem)

    def _note_blank_lines(self) -> None:
        if self._blank_lines and len(self._columns) == 1:
            what = "1 blank line is" if self._blank_lines == 1 else f"{self._blank_lines:,} blank lines are"
            remedy = 'if an empty cell was meant, write it as ""'
            self.notes.append(f"{self.name}: {what} no row, though the file has but one column: {remedy}")

    def _header(self) -> list[str]:
        for line, _, cells, problem in self._records(self._lines, None):
            if problem:
                raise bad_file(self.name, f"its header, line {line}, cannot be read: {problem}")
            return [cell.strip() for cell in cells]
        return []

    def _records(
        self, lines: "_Lines", width: int | None, returned_only: bool = False
    ) -> Iterator[tuple[int, str, list[str], str]]:
        """Yield line, raw text, cells, and what is wrong, for every record that is no blank line.

        `returned_only`: of the lines that were given back, and what else belongs to the last record of those.
        """
        reader = _reader(lines, self.delimiter, self.quoted, strict=True)
        while lines.returned or not returned_only:
            lines.taken.clear()
            line, problem, cells = lines.number + 1, "", list[str]()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as exc:
                problem = str(exc)
            except READ_ERRORS as exc:
                raise bad_file(self.name, f"unreadable after line {lines.number}: {exc}") from exc
            if not problem and width is not None and cells and len(cells) != width:
                problem = f"it has {len(cells)} cells, the header {width}"
            if problem:
                lines.give_back(lines.taken[1:])
                reader = _reader(lines, self.delimiter, self.quoted, strict=True)
                yield line, lines.taken[0].rstrip("\r\n"), [], problem
            elif cells:
                raw = "".join(lines.taken).rstrip("\r\n")
                yield line, raw, cells, "" if is_utf8(raw) else NOT_UTF8
            elif width is not None and lines is self._lines:
                self._blank_lines += 1


@dataclass(frozen=True)
class CsvPiece(LinesPiece):
    """Whole rows of a CSV file."""

    file: CsvInput

    def columns(self, types: pa.Schema) -> pa.Table:
        """Return the cells, which `types` has as text; raises pa.ArrowInvalid where a row has more or fewer."""
        table = pa_csv.read_csv(
            pa.BufferReader(self.block),
            # A block_size above the text's size makes Arrow read in one thread.
            pa_csv.ReadOptions(use_threads=False, block_size=len(self.block) + 1, column_names=types.names),
            pa_csv.ParseOptions(delimiter=self.file.delimiter, quote_char='"' if self.file.quoted else False),
            pa_csv.ConvertOptions(check_utf8=False, column_types=types, strings_can_be_null=False),
        )
        if table.num_rows != self.block.count(b"\n") and table.num_rows != len(self.filled):
            raise pa.ArrowInvalid("it takes other lines for blank")
        return table


def is_regular(block: bytes, delimiter: bytes, quoted: bool = True) -> bool:
    """Return whether each line of a block is a row to any reader of CSV: every quote opens or closes a whole cell, or
    is doubled in one, none is open where a line ends, and all is UTF-8.
    """
    if len(delimiter) > 1 or delimiter in b'"\r\n' or b"\0" in block or len(block) > MAX_CELL_CHARACTERS:
        return False
    if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
        return False
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return not quoted or b'"' not in block or _has_regular_quotes(np.frombuffer(block, dtype=np.uint8), delimiter)


def _has_regular_quotes(block: npt.NDArray[np.uint8], delimiter: bytes) -> bool:
    quotes = np.flatnonzero(block == QUOTE)
    ends = np.flatnonzero(block == LINE_FEED)
    if len(quotes) % 2 or (np.searchsorted(quotes, ends) % 2).any():
        return False
    opening, closing = quotes[::2], quotes[1::2]
    edges = (delimiter[0], LINE_FEED, CARRIAGE_RETURN)
    before = np.where(opening > 0, block[opening - 1], LINE_FEED)
    after = np.where(closing + 1 < len(block), block[np.minimum(closing + 1, len(block) - 1)], LINE_FEED)
    # A carriage return is before a line feed only, so that a cell does not begin behind it.
    is_cell = np.isin(before, edges[:2]) | (before == QUOTE)
    return bool((is_cell & (np.isin(after, edges) | (after == QUOTE))).all())


class _Lines:
    """The lines of a file, counted; what was taken for a record can be given back."""

    def __init__(self, blocks: LineBlocks | None, number: int = 0) -> None:
        """`blocks` None: there are none but what is given back; `number`: how many lines lie before."""
        self._blocks = blocks
        self.returned: deque[str] = deque()
        self.number = number
        self.taken: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if not self.returned:
            self.returned.extend(lines_of(self.next_block()))
        if not self.returned:
            raise StopIteration
        line = self.returned.popleft()
        self.number += 1
        self.taken.append(line)
        return line

    def next_block(self) -> bytes:
        """Return the next lines as bytes, without a byte order mark, and not counted yet."""
        block = self._blocks.next() if self._blocks else b""
        return block.removeprefix(codecs.BOM_UTF8) if self.number == 0 else block

    def give_back(self, lines: list[str]) -> None:
        """Make `lines` the next ones again."""
        self.returned.extendleft(reversed(lines))
        self.number -= len(lines)


def _reader(lines: Iterable[str], delimiter: str, quoted: bool, strict: bool = False) -> Iterator[list[str]]:
    return csv.reader(
        lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=strict
    )


def sniff_delimiter(start: str, quoted: bool = True) -> str:
    """Return the delimiter that cuts most of the first rows into as many cells as the header;
    a comma where none does."""
    lines = list(io.StringIO(start, newline=""))[: SNIFFED_ROWS + 1]
    whole = lines[:-1] if len(lines) > SNIFFED_ROWS or not start.endswith(("\n", "\r")) else lines
    best, best_score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        try:
            widths = [len(cells) for cells in _reader(whole or lines, delimiter, quoted) if cells]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            score = (widths.count(widths[0]) / len(widths), widths[0])
            best, best_score = (delimiter, score) if score > best_score else (best, best_score)
    return best
