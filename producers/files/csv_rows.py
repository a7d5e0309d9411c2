"""Reads CSV files row by row, with the line each row starts on, whatever its cells hold."""

import csv
import io
from collections import deque
from collections.abc import Iterator

from producers.files.rows import NOT_UTF8, READ_ERRORS, Row, bad_file, is_utf8, unique_columns

DELIMITERS = ",;\t|"
SNIFFED_BYTES = 65_536
SNIFFED_ROWS = 100
# As long as a record may be by default; a quote that is never closed is noticed after so many characters.
MAX_CELL_CHARACTERS = 1_000_000


class CsvInput:
    """A CSV file with a header line; `delimiter` None: the one of `,` `;` tab `|` that fits the first rows best.

    Every cell is text. Quotes are read strictly: a quote that opens a cell must close it. Where it does not, the
    line it stands on is the bad row, not all the lines that it would swallow.
    """

    from_text = True

    def __init__(self, name: str, stream: io.BufferedReader, delimiter: str | None = None) -> None:
        """Reads the header; raises TidemarkError BAD_FILE where there is none to be read."""
        csv.field_size_limit(MAX_CELL_CHARACTERS)
        self.name = name
        start = stream.peek(SNIFFED_BYTES)[:SNIFFED_BYTES]
        self.delimiter = delimiter or sniff_delimiter(start.decode("utf-8-sig", "replace"))
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._lines = _Lines(text)
        self._columns, self.notes = unique_columns(name, self._header())

    def columns(self) -> list[str] | None:
        """Return the header, with names made unique; empty for an empty file."""
        return self._columns

    def rows(self) -> Iterator[Row]:
        """Yield every row but the header and blank lines."""
        width = len(self._columns)
        for line, raw, cells, problem in self._records(width):
            if problem or not is_utf8(raw):
                yield Row(line, raw, None, problem or NOT_UTF8)
            else:
                yield Row(line, raw, dict(zip(self._columns, cells, strict=True)))

    def _header(self) -> list[str]:
        for line, raw, cells, problem in self._records(None):
            if problem or not is_utf8(raw):
                raise bad_file(self.name, f"its header, line {line}, cannot be read: {problem or NOT_UTF8}")
            return [cell.strip() for cell in cells]
        return []

    def _records(self, width: int | None) -> Iterator[tuple[int, str, list[str], str]]:
        """Line, raw text, cells, and what is wrong, for every record that is no blank line."""
        lines = self._lines
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        while True:
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
                reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
                yield line, lines.taken[0].rstrip("\r\n"), [], problem
            elif cells:
                yield line, "".join(lines.taken).rstrip("\r\n"), cells, ""


class _Lines:
    """The lines of a file, counted; what was taken for a record can be given back."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._returned: deque[str] = deque()
        self.number = 0
        self.taken: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._text)
        self.number += 1
        self.taken.append(line)
        return line

    def give_back(self, lines: list[str]) -> None:
        """Make `lines` the next ones again."""
        self._returned.extendleft(reversed(lines))
        self.number -= len(lines)


def sniff_delimiter(start: str) -> str:
    """The delimiter that cuts most of the first rows into as many cells as the header; a comma where none does."""
    lines = start.splitlines()[: SNIFFED_ROWS + 1]
    whole = lines[:-1] if len(lines) > SNIFFED_ROWS or not start.endswith(("\n", "\r")) else lines
    best, best_score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        try:
            widths = [len(cells) for cells in csv.reader(whole or lines, delimiter=delimiter) if cells]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            score = (widths.count(widths[0]) / len(widths), widths[0])
            best, best_score = (delimiter, score) if score > best_score else (best, best_score)
    return best
