"""Reads JSON files: one object a line, an array of objects, or objects one after the other, each in any lines."""

import codecs
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.json as pa_json

from producers.files.rows import (
    LONGEST_LINE,
    NOT_UTF8,
    READ_ERRORS,
    LineBlocks,
    LinesPiece,
    NotColumnarError,
    Piece,
    Row,
    bad_file,
    is_utf8,
)
from schemas.columnar import column_type
from schemas.numbers import ExactDecoder
from schemas.values import branches, source_name

# A whole number, of which there is one zero only.
WHOLE_MINUS_ZERO = re.compile(rb"-0(?![.0-9eE])")
# Numbers of so many characters that a double may not hold them all, or with an exponent.
LONG_NUMBER = re.compile(rb"[:,\[]\s*(-?(?:[0-9.]{15,}|[0-9.]+[eE])[0-9.eE+-]*)")
# Numbers, also as text, for whose scale Arrow looks powers of ten up beyond its table's end; and what may hide one.
TINY_NUMBER = re.compile(rb'[:,\[]\s*"?[+-]?[0-9.]*[eE]-[0-9]{2}|\\u00(?:2[bBdDeE]|3[0-9]|[46]5)')
SNIFFED_BYTES = 65_536
CHUNK_BYTES = 1 << 16
SPACE = re.compile(r"[ \t\r\n]*")
# A value cut short is noticed this far before the end, at most: at the start of `-Infinity`, or within an escape.
TAIL = 12


class JsonInput:
    """A file of JSON objects: one a line, or, where its first bytes show it, in any lines (`JsonValues`).

    `exact`: whether numbers with a fraction are read as decimals, for a schema that has any, rather than doubles. One
    with more digits than a double holds is a decimal in any case.
    """

    from_text = False

    def __init__(self, name: str, stream: io.BufferedReader, exact: bool = False) -> None:
        self.name = name
        self.notes: list[str] = []
        self._stream = stream
        start = stream.peek(SNIFFED_BYTES)[:SNIFFED_BYTES]
        self._spans_lines = spans_lines(start.decode("utf-8", "surrogateescape"))
        self._decoder = ExactDecoder(decimals=exact)

    def columns(self) -> list[str] | None:
        return None

    def rows(self) -> Iterator[Row]:
        for piece in self.pieces():
            yield from piece if isinstance(piece, Iterator) else piece.rows()

    def column_types(self, schema: Mapping[str, Any]) -> pa.Schema:
        """Return the types of the schema's fields, of times as the first object has them; raises NotColumnarError."""
        if self._spans_lines:
            raise NotColumnarError("its objects are not one a line")
        start = self._stream.peek(SNIFFED_BYTES).removeprefix(codecs.BOM_UTF8)
        first = next((row.values for row in self.rows_of(start, 0) if row.values is not None), {})
        types = []
        for field in schema["fields"]:
            kind = _column_type(field["type"], first.get(source_name(field)))
            if kind is None:
                raise NotColumnarError(f"field `{source_name(field)}` is {field['type']}")
            types.append((source_name(field), kind))
        return pa.schema(types)

    def pieces(self) -> Iterator[Piece | Iterator[Row]]:
        """Yield the rows, also of what is no object; as pieces wherever each line holds one."""
        if self._spans_lines:
            yield (self._row(*value) for value in JsonValues(self.name, self._stream, self._decoder))
            return
        for block, before in self._blocks():
            yield JsonPiece(self, block, before) if is_regular(block) else self.rows_of(block, before)

    def rows_of(self, block: bytes, before: int) -> Iterator[Row]:
        for number, data in enumerate(block.split(b"\n"), start=before + 1):
            if data.strip():
                yield self._row_of_line(number, data)

    def _blocks(self) -> Iterator[tuple[bytes, int]]:
        """Yield blocks of lines, and how many lines lie before each."""
        blocks, before = LineBlocks(self.name, self._stream, carriage_returns=False), 0
        try:
            while block := blocks.next():
                yield block.removeprefix(codecs.BOM_UTF8) if before == 0 else block, before
                before += block.count(b"\n")
        except READ_ERRORS as exc:
            raise bad_file(self.name, f"unreadable after line {before}: {exc}") from exc

    def _row_of_line(self, number: int, data: bytes) -> Row:
        raw = data.decode("utf-8", "surrogateescape").rstrip("\r\n")
        try:
            value = self._decoder.decode(data.decode("utf-8"))
        except UnicodeDecodeError:
            return Row(number, raw, None, NOT_UTF8)
        except RecursionError:
            return Row(number, raw, None, "it is nested too deeply")
        except ValueError as exc:
            return Row(number, raw, None, f"it is no JSON: {exc}")
        return self._row(number, raw, value)

    def _row(self, line: int, raw: str, value: Any) -> Row:
        if not is_utf8(raw):
            return Row(line, raw, None, NOT_UTF8)
        if self._decoder.fault:
            return Row(line, raw, None, f"it is no JSON: {self._decoder.fault}")
        if not isinstance(value, dict):
            return Row(line, raw, None, f"it is {type(value).__name__}, not an object")
        return Row(line, raw, value)


@dataclass(frozen=True)
class JsonPiece(LinesPiece):
    """Lines of a JSON-lines file, an object in each."""

    file: JsonInput

    def columns(self, types: pa.Schema) -> pa.Table:
        """Return the values; raises pa.ArrowException where one is of another type, or a number is not kept.

        A field that is missing is null, as one that is null. A field that `types` does not have is an error.
        """
        if _hold(pa.types.is_floating, types.types) and not _are_doubles(self.block):
            raise pa.ArrowInvalid("a number is not the double that is nearest to it")
        if _hold(pa.types.is_decimal, types.types) and TINY_NUMBER.search(self.block):
            raise pa.ArrowInvalid("a decimal is too small to be read")
        table = pa_json.read_json(
            pa.BufferReader(self.block),
            pa_json.ReadOptions(use_threads=False, block_size=len(self.block) + 1),
            pa_json.ParseOptions(types, newlines_in_values=False, unexpected_field_behavior="error"),
        )
        if table.num_rows != _count(self.block) and table.num_rows != len(self.filled):
            raise pa.ArrowInvalid("a line has several values")
        return table


def _column_type(avro_type: Any, first: Any) -> pa.DataType | None:
    kind = column_type(avro_type)
    if kind is None:
        return None
    declared = branches(avro_type)[0]
    arrow = kind.arrow
    if pa.types.is_temporal(arrow):
        return pa.int64() if isinstance(first, int) else pa.string()
    if pa.types.is_integer(arrow):
        return pa.int64()
    if pa.types.is_floating(arrow):
        return pa.float64()
    if pa.types.is_string(arrow) or pa.types.is_boolean(arrow) or pa.types.is_decimal(arrow):
        return arrow
    if pa.types.is_list(arrow):
        items = _column_type(declared["items"], None)
        return pa.list_(items) if items else None
    if not pa.types.is_struct(arrow):
        return None
    inner = [(source_name(field), _column_type(field["type"], None)) for field in declared["fields"]]
    return pa.struct(inner) if all(kind for _, kind in inner) else None


def is_regular(block: bytes) -> bool:
    """Return whether each line that is not empty begins and ends as an object does, and all is UTF-8.

    Then no object goes on in the next line: behind what ends an object there would have to be a comma before another.
    """
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    if _count(block) and block.startswith(b"{") and block.rstrip(b"\n").endswith(b"}"):
        return True
    lines = [line.rstrip(b"\r") for line in block.split(b"\n")]
    return all(line.startswith(b"{") and line.endswith(b"}") for line in lines if line)


def _count(block: bytes) -> int:
    """Return how many lines there are, where each joins the next one as objects do, and none is empty; otherwise 0."""
    joints = block.rstrip(b"\n").count(b"\n")
    return joints + 1 if block.count(b"}\n{") == joints else 0


def _hold(is_kind: Callable[[pa.DataType], bool], types: Sequence[pa.DataType]) -> bool:
    """Return whether one of the types, or one within it, is of a kind."""
    return any(is_kind(kind) or _hold(is_kind, [kind.field(i).type for i in range(kind.num_fields)]) for kind in types)


def _are_doubles(block: bytes) -> bool:
    """Return whether every number is printed as its double is; what looks like one within a text counts, too."""
    if b"NaN" in block or b"Inf" in block or WHOLE_MINUS_ZERO.search(block):
        return False
    try:
        return all(repr(float(number)) == number.decode() for number in LONG_NUMBER.findall(block))
    except ValueError:  # it was no number, but a part of a text
        return False


class JsonValues:
    """The values of a stream where a value may span lines, an array of them or one after the other."""

    def __init__(self, name: str, stream: io.BufferedReader, decoder: json.JSONDecoder) -> None:
        self._name, self._stream, self._decoder = name, stream, decoder
        self._text = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._buffer, self._at, self._line, self._ended = "", 0, 1, False

    def __iter__(self) -> Iterator[tuple[int, str, Any]]:
        """Yield line, text and value of each; raises BAD_FILE, after the values before, where the rest is no JSON."""
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
        if waiting > LONGEST_LINE:
            raise self._bad(f"a value is longer than {LONGEST_LINE:,} characters")
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
    return exc.pos >= length - TAIL or exc.msg.startswith("Unterminated string")
