"""Writes down rows that are not published, with file, line, reason and text, and counts them."""

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import cast

from conf.errors import TidemarkError
from producers.files.rows import Row

# Before this many rows a share says little.
ROWS_BEFORE_SHARE = 100
REPORTED = 10
# What every line of a reject file begins with.
ENTRY = b'{"file": '
LONGEST_NAME = 200  # characters of a topic in the name of its file, which may have 255 bytes


@dataclass(frozen=True)
class RejectLimit:
    """Past it publishing stops: `share` of the rows (from the hundredth row on), or `count` rows; None for no limit."""

    share: float | None = 0.1
    count: int | None = None

    def is_exceeded(self, rejected: int, rows: int) -> bool:
        if self.count is not None and rejected > self.count:
            return True
        return self.share is not None and rows >= ROWS_BEFORE_SHARE and rejected > self.share * rows

    def __str__(self) -> str:
        return f"{self.count} rows" if self.count is not None else f"{self.share:.0%} of the rows"


class Rejects:
    """The rejected rows of one run, as JSON lines in a file that is made when the first one comes."""

    def __init__(
        self, candidates: Iterator[Path], limit: RejectLimit, earlier: int | None = None, reported: int = REPORTED
    ) -> None:
        """`candidates`: where the file may lie; the first that does not exist yet is taken.

        Args:
            earlier: how many rows an earlier run has rejected for good: this one goes on in its file, behind them.
            reported: how many rows are printed on stderr.
        """
        self._candidates, self._mode = candidates, "x"
        self._limit, self._reported = limit, reported
        self._file: TextIOWrapper | None = None
        self._first = "one of an earlier run" if earlier else ""
        self.path: Path | None = None
        self.count = earlier or 0
        if earlier is not None:
            path = next(candidates)
            keep_first(path, earlier)
            self._candidates, self._mode = iter([path]), "a"
            self.path = path if earlier else None

    def add(self, name: str, row: Row, reason: str) -> None:
        """Write the row down; the first few are reported on stderr too."""
        self.count += 1
        self._file = self._file or self._opened()
        entry = {"file": name, "line": row.line, "reason": reason, "raw": row.text()}
        # ASCII alone: it keeps bytes that are no UTF-8, as escaped lone surrogates.
        self._file.write(json.dumps(entry) + "\n")
        self._first = self._first or f"{name} line {row.line}: {reason}"
        if self.count <= self._reported:
            print(f"rejected: {name} line {row.line}: {reason}", file=sys.stderr)
        if self.count == self._reported:
            print(f"rejected: further ones only in {self.path}", file=sys.stderr)

    def check(self, rows: int) -> None:
        """Raise TidemarkError TOO_MANY_REJECTS past the limit."""
        if self._limit.is_exceeded(self.count, rows):
            self._stop(rows, f"more than {self._limit}")

    def check_all(self, rows: int) -> None:
        """Raise TidemarkError TOO_MANY_REJECTS where there were rows and none was good."""
        if rows and self.count == rows:
            self._stop(rows, "all of them")

    def sync(self) -> None:
        """Make sure that the file outlives this process and the machine."""
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file:
            self._file.close()

    def discard(self) -> None:
        """Remove the closed file, for its rows will be read again."""
        if self.path:
            self.path.unlink()

    def _stop(self, rows: int, how_many: str) -> None:
        what = f"{self.count:,} of {rows:,} rows were rejected, {how_many}; the first: {self._first}"
        remedy = f"mend the input or its schema (see {self.path}), or raise --max-rejects"
        raise TidemarkError("TOO_MANY_REJECTS", what, remedy)

    def _opened(self) -> TextIOWrapper:
        path = None
        for path in self._candidates:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = path.open(self._mode, encoding="utf-8")
            except FileExistsError:
                continue
            except OSError as exc:
                raise TidemarkError("NO_REJECT_FILE", f"{path}: {exc.strerror}", "name another with --rejects") from exc
            self.path = path
            return cast(TextIOWrapper, file)
        raise already_exists(path)


def keep_first(path: Path, count: int) -> None:
    """Leave the first `count` rows in a reject file: the rest is of rows that will be read again, maybe cut short.
    Raises TidemarkError NO_REJECT_FILE, where it is none."""
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        end = 0
        for number, line in enumerate(file, start=1):
            cut_short = not line.endswith(b"\n") and ENTRY.startswith(line)
            if not (line.startswith(ENTRY) or cut_short):
                raise already_exists(path)
            end += len(line) if number <= count else 0
        file.truncate(end)


def already_exists(path: Path | None) -> TidemarkError:
    """Return the error of a file that is not ours, and lies where the rejected rows should go."""
    return TidemarkError("NO_REJECT_FILE", f"{path} is there already", "remove it, or name another with --rejects")


def numbered(folder: Path, topic: str) -> Iterator[Path]:
    """Return names for the reject files of a topic, without end: topic-1.jsonl, topic-2.jsonl, ..."""
    return (folder / f"{topic[:LONGEST_NAME]}-{number}.jsonl" for number in itertools.count(1))
