"""Reads JSON values from a stream where a value may span lines: an array of them, or one after the other."""

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from producers.files.line_blocks import LONGEST
from producers.files.rows import READ_ERRORS, bad_file

CHUNK_BYTES = 1 << 16
SPACE = re.compile(r"[ \t\r\n]*")
# A value cut short is noticed this far before the end, at most: at the start of `-Infinity`, or within an escape.
TAIL = 12
UNTERMINATED = "Unterminated string"


class JsonValues:
    """The values of a stream: each one's line, text and value."""

    def __init__(self, name: str, stream: io.BufferedReader, decoder: json.JSONDecoder) -> None:
        self._name, self._stream, self._decoder = name, stream, decoder
        self._text = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._buffer, self._at, self._line, self._ended = "", 0, 1, False

    def __iter__(self) -> Iterator[tuple[int, str, Any]]:
        """Yield every value; raises TidemarkError BAD_FILE, after the values before it, where the rest is no JSON."""
        if self._next() != "[":
            while self._next():
                yield self._value()
            return
        self._at += 1
        while self._next() != "]":
            yield self._value()
            if self._next() == ",":
                self._at += 1
                if self._next() == "]":
                    raise self._bad("a value is expected after the comma")
            elif self._next() != "]":
                raise self._bad("its array is not closed" if not self._next() else "a comma is expected")
        self._at += 1
        if self._next():
            raise self._bad("there is more after the end of its array")

    def _next(self) -> str:
        """Return the next character that is no white space; empty at the end."""
        while True:
            end = SPACE.match(self._buffer, self._at).end()  # type: ignore[union-attr]
            self._line += self._buffer.count("\n", self._at, end)
            self._at = end
            if end < len(self._buffer):
                return self._buffer[end]
            if not self._read():
                return ""

    def _value(self) -> tuple[int, str, Any]:
        while True:
            start = self._at
            try:
                value, end = self._decoder.raw_decode(self._buffer, start)
            except json.JSONDecodeError as exc:
                if _is_cut_short(exc, len(self._buffer)) and self._read():
                    continue
                self._line += self._buffer.count("\n", start, exc.pos)
                raise self._bad(f"it is no JSON: {exc.msg}") from exc
            except RecursionError as exc:
                raise self._bad("it is nested too deeply") from exc
            except ValueError as exc:
                raise self._bad(f"it is no JSON: {exc}") from exc
            if end == len(self._buffer) and self._read():
                continue  # A number may go on.
            text, line = self._buffer[start:end], self._line
            self._at, self._line = end, line + text.count("\n")
            return line, text, value

    def _read(self) -> bool:
        """Read on, at least as much as is waiting; False at the end."""
        if self._ended:
            return False
        waiting = len(self._buffer) - self._at
        if waiting > LONGEST:
            raise self._bad(f"a value is longer than {LONGEST:,} characters")
        try:
            data = self._stream.read(max(CHUNK_BYTES, waiting))
        except READ_ERRORS as exc:
            raise bad_file(self._name, f"unreadable after line {self._line}: {exc}") from exc
        self._ended = not data
        self._buffer = self._buffer[self._at :] + self._text.decode(data, final=self._ended)
        self._at = 0
        return True

    def _bad(self, what: str) -> Exception:
        return bad_file(self._name, f"line {self._line}: {what}")


def spans_lines(start: str) -> bool:
    """Return whether a file that begins so holds an array, or values longer than a line, rather than a value a line."""
    text = start.lstrip("\ufeff \t\r\n")
    first, _, rest = text.partition("\n")
    if text[:1] == "[":
        # An array alone is one of rows; followed by more, it is a row, which is to be rejected.
        return not (_is_json(first) and rest.strip())
    at = 0
    # A line feed alone ends a line: within a text, other characters that do so elsewhere may stand as they are.
    for line in text.split("\n"):
        length = min(len(line) + 1, len(text) - at)
        if line.strip() and not _is_json(line):
            return _goes_on(text[at:], length)
        at += length
    return False


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _goes_on(text: str, line: int) -> bool:
    """Return whether an object begins here that ends beyond its line of so many characters,
    or is followed by one in it."""
    start = SPACE.match(text).end()  # type: ignore[union-attr]
    if text[start : start + 1] != "{":
        return False
    try:
        _, end = json.JSONDecoder().raw_decode(text, start)
    except json.JSONDecodeError as exc:
        # The file goes on behind what is seen of it; so may a line.
        return _is_cut_short(exc, len(text)) and line < len(text)
    except (ValueError, RecursionError):
        return False
    return end >= line or text[end:].lstrip(" \t").startswith("{")


def _is_cut_short(exc: json.JSONDecodeError, length: int) -> bool:
    """Return whether the text ends before its value does, rather than being wrong."""
    return exc.pos >= length - TAIL or exc.msg.startswith(UNTERMINATED)
