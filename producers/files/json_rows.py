"""Reads JSON files: one object a line, an array of objects, or objects one after the other."""

import codecs
import io
import json
import re
from collections.abc import Iterator
from decimal import Decimal, DecimalException
from typing import Any

from producers.files.rows import NOT_UTF8, READ_ERRORS, Row, bad_file, is_utf8
from schemas.scalars import is_printed_alike

CHUNK_BYTES = 1 << 16
# Past this a value cannot become a record, and reading on would only take memory.
LONGEST = 1 << 26
SPACE = re.compile(r"[ \t\r\n]*")
# A value cut short is noticed this far before the end, at most: at the start of `-Infinity`, or within an escape.
TAIL = 12
UNTERMINATED = "Unterminated string"
SNIFFED_BYTES = 65_536


class JsonInput:
    """A file of JSON objects: one a line, blank lines skipped, or, where its first bytes show it, an array of objects,
    or objects one after the other, each in any number of lines.

    `exact`: whether numbers with a fraction are read as decimals, for a schema that has any, rather than doubles. One
    with more digits than a double holds is a decimal in any case.
    """

    from_text = False

    def __init__(self, name: str, stream: io.BufferedReader, exact: bool = False) -> None:
        self.name = name
        self.notes: list[str] = []
        self._stream = stream
        self._twice = ""
        start = stream.peek(SNIFFED_BYTES)[:SNIFFED_BYTES]
        self._spans_lines = spans_lines(start.decode("utf-8", "surrogateescape"))
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object, parse_float=Decimal if exact else _number, parse_constant=float
        )

    def columns(self) -> list[str] | None:
        """None: each row names its own."""
        return None

    def rows(self) -> Iterator[Row]:
        """Yield every object, and every line or element that is none."""
        if self._spans_lines:
            for line, raw, value in JsonValues(self.name, self._stream, self._decoder):
                yield self._row_of(line, raw, value)
            return
        for number, data in enumerate(self._lines(), start=1):
            line_data = data.removeprefix(codecs.BOM_UTF8) if number == 1 else data
            if line_data.strip():
                yield self._row(number, line_data)

    def _lines(self) -> Iterator[bytes]:
        read = 0
        try:
            for line in self._stream:
                read += 1
                yield line
        except READ_ERRORS as exc:
            raise bad_file(self.name, f"unreadable after line {read}: {exc}") from exc

    def _row(self, number: int, data: bytes) -> Row:
        raw = data.decode("utf-8", "surrogateescape").rstrip("\r\n")
        try:
            value = self._decoder.decode(data.decode("utf-8"))
        except UnicodeDecodeError:
            return Row(number, raw, None, NOT_UTF8)
        except RecursionError:
            return Row(number, raw, None, "it is nested too deeply")
        except (ValueError, DecimalException) as exc:
            self._twice = ""
            return Row(number, raw, None, f"it is no JSON: {exc}")
        return self._row_of(number, raw, value)

    def _row_of(self, line: int, raw: str, value: Any) -> Row:
        twice, self._twice = self._twice, ""
        if not is_utf8(raw):
            return Row(line, raw, None, NOT_UTF8)
        if twice:
            return Row(line, raw, None, f"it is no JSON: `{twice}` is there twice")
        if not isinstance(value, dict):
            return Row(line, raw, None, f"it is {type(value).__name__}, not an object")
        return Row(line, raw, value)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            names = [name for name, _ in pairs]
            self._twice = next(name for name in names if names.count(name) > 1)
        return value


def _number(text: str) -> float | Decimal:
    number = float(text)
    return number if is_printed_alike(number, text) else Decimal(text)


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
            except (ValueError, ArithmeticError) as exc:
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
    for line in text.splitlines(keepends=True):
        if line.strip() and not _is_json(line):
            return _goes_on(text[at:], len(line))
        at += len(line)
    return False


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _goes_on(text: str, line: int) -> bool:
    """Whether an object begins here that ends beyond its line of so many characters, or is followed by one in it."""
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
