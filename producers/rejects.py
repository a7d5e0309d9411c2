"""Rows that were not published: each is written down with its file, line, reason and text, and counted."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from conf.errors import TidemarkError
from producers.rows import Row

# Before this many rows a share says little.
ROWS_BEFORE_SHARE = 100
REPORTED = 10


@dataclass(frozen=True)
class RejectLimit:
    """Past it publishing stops: `share` of the rows (from the hundredth row on), or `count` rows; None for no limit."""

    share: float | None = 0.1
    count: int | None = None

    def is_exceeded(self, rejected: int, rows: int) -> bool:
        """Whether so many rejected of so many rows are too many."""
        if self.count is not None and rejected > self.count:
            return True
        return self.share is not None and rows >= ROWS_BEFORE_SHARE and rejected > self.share * rows

    def __str__(self) -> str:
        return f"{self.count} rows" if self.count is not None else f"{self.share:.0%} of the rows"


class Rejects:
    """The rejected rows of one run, as JSON lines in a file that is made when the first one comes."""

    def __init__(self, candidates: Iterator[Path], limit: RejectLimit) -> None:
        """`candidates`: where the file may lie; the first that does not exist yet is taken."""
        self._candidates = candidates
        self._limit = limit
        self._file: TextIOWrapper | None = None
        self._first = ""
        self.path: Path | None = None
        self.count = 0

    def add(self, name: str, row: Row, reason: str) -> None:
        """Write the row down; the first few are reported on stderr too."""
        self.count += 1
        self._file = self._file or self._opened()
        entry = {"file": name, "line": row.line, "reason": reason, "raw": row.text()}
        # ASCII alone: it keeps bytes that are no UTF-8, as escaped lone surrogates.
        self._file.write(json.dumps(entry) + "\n")
        self._first = self._first or f"{name} line {row.line}: {reason}"
        if self.count <= REPORTED:
            print(f"rejected: {name} line {row.line}: {reason}", file=sys.stderr)
        if self.count == REPORTED:
            print(f"rejected: further ones only in {self.path}", file=sys.stderr)

    def check(self, rows: int) -> None:
        """Raises TidemarkError TOO_MANY_REJECTS past the limit."""
        if self._limit.is_exceeded(self.count, rows):
            self._stop(rows, f"more than {self._limit}")

    def check_all(self, rows: int) -> None:
        """Raises TidemarkError TOO_MANY_REJECTS where there were rows and none was good."""
        if rows and self.count == rows:
            self._stop(rows, "all of them")

    def close(self) -> None:
        """Finish the file."""
        if self._file:
            self._file.close()

    def _stop(self, rows: int, how_many: str) -> None:
        what = f"{self.count:,} of {rows:,} rows were rejected, {how_many}; the first: {self._first}"
        remedy = f"mend the input or its schema (see {self.path}), or raise --max-rejects"
        raise TidemarkError("TOO_MANY_REJECTS", what, remedy)

    def _opened(self) -> TextIOWrapper:
        path = None
        for path in self._candidates:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = path.open("x", encoding="utf-8")
            except FileExistsError:
                continue
            except OSError as exc:
                raise TidemarkError("NO_REJECT_FILE", f"{path}: {exc.strerror}", "name another with --rejects") from exc
            self.path = path
            return file
        raise TidemarkError("NO_REJECT_FILE", f"{path} is there already", "remove it, or name another with --rejects")


def numbered(folder: Path, topic: str) -> Iterator[Path]:
    """Names for the reject files of a topic, without end: topic-1.jsonl, topic-2.jsonl, ..."""
    number = 0
    while True:
        number += 1
        yield folder / f"{topic}-{number}.jsonl"
