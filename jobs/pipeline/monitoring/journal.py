"""Writes and reads a process's journal: a file of JSON lines, one for each beginning and each end of a micro-batch.

A line is written by one call, so that what a killed process leaves behind are whole lines, and at most one that is cut
short. Places in it are counted in bytes of all that was ever written: a journal that grows is cut at its front, and its
first line says then how many bytes are gone.
"""

import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Self

BEGAN, ENDED, CUT = "began", "ended", "cut"
CUT_LINE = f'{{"kind":"{CUT}"'.encode()
SUFFIX, BESIDE = ".jsonl", ".cut"
KILLED = {"outcome": "killed", "error": "the process was gone before the batch ended"}


class Journal:
    """The journal of this process; a write that fails (a full disk) is reported once and stops nothing."""

    def __init__(self, folder: Path, job: str) -> None:
        name = f"{re.sub(r'[^A-Za-z0-9._-]', '-', job)}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}{SUFFIX}"
        self.path = folder / name
        self._lock = Lock()
        self._file: int | None = None
        self._before: int | None = None
        self._open: dict[tuple[str, int], dict[str, Any]] = {}
        self._failed = self._is_torn = False
        with self._said_once():
            folder.mkdir(parents=True, exist_ok=True)
            self._file = _locked(self.path)

    def append(self, kind: str, row: Mapping[str, Any]) -> None:
        """Write a line: `kind` is BEGAN or ENDED, `row` has columns of the table; times as datetime."""
        with self._said_once(), self._lock:
            if kind == BEGAN:
                self._open[row["run_id"], row["batch"]] = dict(row)
            else:
                self._open.pop((row["run_id"], row["batch"]), None)
            if self._file is not None:
                # After a line that a full disk has cut short the next one begins anew.
                line = b"\n" * self._is_torn + _line({"kind": kind, **row})
                self._is_torn = os.write(self._file, line) < len(line)

    def cut(self, folded: int) -> None:
        """Take the first `folded` bytes out, which the table has; the file is swapped in one step, or stays as it is.

        What has begun there and not ended goes into the new file's first line.
        """
        with self._said_once(), self._lock:
            if self._file is None:
                return
            content = _Content.of(self.path)
            head = _line({"kind": CUT, "at": folded, "open": list(self._open.values())})
            beside = self.path.with_suffix(BESIDE)
            beside.unlink(missing_ok=True)
            file = _locked(beside)
            try:
                with open(file, "ab", closefd=False) as writer:
                    writer.write(head + content.since(folded))
                os.fsync(file)
                beside.replace(self.path)
            except OSError:
                os.close(file)
                raise
            # Keep the lock on the old file: a reader that has just opened it must not take its owner for gone.
            self._before, before, self._file = self._file, self._before, file
            if before is not None:
                os.close(before)

    def close(self) -> None:
        with self._lock:
            for file in (self._before, self._file):
                if file is not None:
                    os.close(file)
            self._before = self._file = None

    @contextmanager
    def _said_once(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            if not self._failed:
                self._failed = True
                what = f"the journal {self.path} cannot be written: {exc.strerror}"
                print(f"note: {what}; micro-batches go on, and `history` lacks them", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class _Content:
    """The bytes of a journal from byte `start` on, of all that were ever written to it, and what was open before."""

    start: int
    text: bytes
    open: list[dict[str, Any]]

    @classmethod
    def of(cls, path: Path) -> Self:
        text = path.read_bytes()
        head, _, rest = text.partition(b"\n")
        if not head.startswith(CUT_LINE):
            return cls(0, text, [])
        said = json.loads(head)
        return cls(said["at"], rest, said["open"])

    def since(self, place: int) -> bytes:
        return self.text[max(0, place - self.start) :]


@dataclass(frozen=True)
class Unfolded:
    """Rows of a journal that the table has not got, the bytes of the journal up to them, and whether it is finished.

    `start` is the first byte that the journal still has.
    """

    rows: list[dict[str, Any]]
    end: int
    is_finished: bool
    start: int


def read_journal(path: Path, start: int) -> Unfolded:
    """Return the rows of the whole lines from byte `start` on.

    If the process is gone, a micro-batch that began and did not end is a row, too: it was killed.
    """
    is_finished = _owner_is_gone(path)
    content = _Content.of(path)
    whole = content.text[: content.text.rfind(b"\n") + 1]
    end = content.start + len(whole)
    # What a process that goes on has begun is no row yet: only the new lines are looked at.
    new = list(_lines(whole[max(0, start - content.start) :]))
    rows = [line for line in new if line["kind"] == ENDED]
    if is_finished and start <= end:
        lines = list(_lines(whole))
        ended = {(line["run_id"], line["batch"]) for line in lines if line["kind"] == ENDED}
        # What began after the last folded line is in the first line, too.
        begun = [*content.open, *(line for line in lines if line["kind"] == BEGAN)]
        unended = {(line["run_id"], line["batch"]): line | KILLED for line in begun}
        rows += [row for key, row in unended.items() if key not in ended]
    return Unfolded(rows, end, is_finished, content.start)


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.splitlines():
        with suppress(ValueError):  # cut short, then written on by nobody
            yield json.loads(line)


def _owner_is_gone(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def _locked(path: Path) -> int:
    file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    # The process holds the lock as long as it lives: a reader that gets it knows that nobody will write here again.
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _line(said: Mapping[str, Any]) -> bytes:
    return (json.dumps(said, default=_text, separators=(",", ":")) + "\n").encode()


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a journal")
