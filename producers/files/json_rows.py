"""Reads JSON files: one object a line, an array of objects, or objects one after the other."""

import codecs
import functools
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.json as pa_json

from producers.files.json_values import JsonValues, spans_lines
from producers.files.line_blocks import LineBlocks, halved
from producers.files.rows import NOT_UTF8, READ_ERRORS, NotColumnarError, Piece, Row, bad_file, is_utf8
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
        start = stream.peek(SNIFFED_BYTES)[:SNIFFED_BYTES]
        self._spans_lines = spans_lines(start.decode("utf-8", "surrogateescape"))
        self._decoder = ExactDecoder(decimals=exact)

    def columns(self) -> list[str] | None:
        """Return None: each row names its own."""
        return None

    def rows(self) -> Iterator[Row]:
        """Yield every object, and every line or element that is none."""
        if self._spans_lines:
            for line, raw, value in JsonValues(self.name, self._stream, self._decoder):
                yield self._row_of(line, raw, value)
            return
        for block, before in self._blocks():
            yield from self.rows_of(block, before)

    def column_types(self, schema: Mapping[str, Any]) -> pa.Schema:
        """Return the types of the schema's fields, of times as the first object has them; raises NotColumnarError."""
        if self._spans_lines:
            raise NotColumnarError("its objects are not one a line")
        first = self._first_values()
        types = []
        for field in schema["fields"]:
            kind = _column_type(field["type"], first.get(source_name(field)))
            if kind is None:
                raise NotColumnarError(f"field `{source_name(field)}` is {field['type']}")
            types.append((source_name(field), kind))
        return pa.schema(types)

    def pieces(self) -> Iterator[Piece | Iterator[Row]]:
        """Yield the rows, as pieces wherever each line holds an object."""
        if self._spans_lines:
            yield self.rows()
            return
        for block, before in self._blocks():
            yield JsonPiece(self, block, before) if is_regular(block) else self.rows_of(block, before)

    def rows_of(self, block: bytes, before: int) -> Iterator[Row]:
        """Yield the rows of whole lines, behind so many others."""
        for number, data in enumerate(block.split(b"\n"), start=before + 1):
            if data.strip():
                yield self.row_of(number, data)

    def _first_values(self) -> Mapping[str, Any]:
        """Return the first object near the beginning, without reading it; empty where there is none."""
        for line in self._stream.peek(SNIFFED_BYTES).removeprefix(codecs.BOM_UTF8).split(b"\n"):
            values = self.row_of(1, line).values if line.strip() else None
            if values is not None:
                return values
        return {}

    def _blocks(self) -> Iterator[tuple[bytes, int]]:
        """Yield blocks of lines, and how many lines lie before each."""
        blocks, before = LineBlocks(self.name, self._stream, carriage_returns=False), 0
        try:
            while block := blocks.next():
                yield block.removeprefix(codecs.BOM_UTF8) if before == 0 else block, before
                before += block.count(b"\n")
        except READ_ERRORS as exc:
            raise bad_file(self.name, f"unreadable after line {before}: {exc}") from exc

    def row_of(self, number: int, data: bytes) -> Row:
        """Return the row that a line holds."""
        raw = data.decode("utf-8", "surrogateescape").rstrip("\r\n")
        try:
            value = self._decoder.decode(data.decode("utf-8"))
        except UnicodeDecodeError:
            return Row(number, raw, None, NOT_UTF8)
        except RecursionError:
            return Row(number, raw, None, "it is nested too deeply")
        except ValueError as exc:
            return Row(number, raw, None, f"it is no JSON: {exc}")
        return self._row_of(number, raw, value)

    def _row_of(self, line: int, raw: str, value: Any) -> Row:
        if not is_utf8(raw):
            return Row(line, raw, None, NOT_UTF8)
        if self._decoder.fault:
            return Row(line, raw, None, f"it is no JSON: {self._decoder.fault}")
        if not isinstance(value, dict):
            return Row(line, raw, None, f"it is {type(value).__name__}, not an object")
        return Row(line, raw, value)


class JsonPiece:
    """Lines of a JSON-lines file, an object in each, behind so many others."""

    def __init__(self, file: JsonInput, block: bytes, before: int) -> None:
        self._file, self._block, self._before = file, block, before

    def rows(self) -> Iterator[Row]:
        """Yield every row."""
        return self._file.rows_of(self._block, self._before)

    def row(self, index: int) -> Row:
        """Return one row."""
        number, line = self._filled[index]
        return self._file.row_of(self._before + number, line)

    def columns(self, types: pa.Schema) -> pa.Table:
        """Return the values; raises pa.ArrowException where one is of another type, or a number is not kept.

        A field that is missing is null, as one that is null. A field that `types` does not have is an error.
        """
        if _hold(pa.types.is_floating, types.types) and not _are_doubles(self._block):
            raise pa.ArrowInvalid("a number is not the double that is nearest to it")
        if _hold(pa.types.is_decimal, types.types) and TINY_NUMBER.search(self._block):
            raise pa.ArrowInvalid("a decimal is too small to be read")
        table = pa_json.read_json(
            pa.BufferReader(self._block),
            pa_json.ReadOptions(use_threads=False, block_size=len(self._block) + 1),
            pa_json.ParseOptions(types, newlines_in_values=False, unexpected_field_behavior="error"),
        )
        if table.num_rows != _count(self._block) and table.num_rows != len(self._filled):
            raise pa.ArrowInvalid("a line has several values")
        return table

    def halves(self) -> Sequence[Piece]:
        """Return the rows in two pieces."""
        return [JsonPiece(self._file, half, self._before + behind) for half, behind in halved(self._block)]

    @functools.cached_property
    def _filled(self) -> list[tuple[int, bytes]]:
        return [(number, line) for number, line in enumerate(self._block.split(b"\n"), start=1) if line.strip()]


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
    return any(
        is_kind(each) or _hold(is_kind, [each.field(index).type for index in range(each.num_fields)]) for each in types
    )


def _are_doubles(block: bytes) -> bool:
    """Return whether every number is printed as its double is; what looks like one within a text counts, too."""
    if b"NaN" in block or b"Inf" in block or WHOLE_MINUS_ZERO.search(block):
        return False
    try:
        return all(repr(float(number)) == number.decode() for number in LONG_NUMBER.findall(block))
    except ValueError:  # it was no number, but a part of a text
        return False
