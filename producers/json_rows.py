"""JSON-lines files: one object a line."""

import codecs
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from producers.rows import READ_ERRORS, Row, bad_file


class JsonLinesInput:
    """A file of JSON objects, one a line; blank lines are skipped.

    `exact`: whether numbers with a fraction are read as decimals, for a schema that has any, rather than doubles.
    """

    from_text = False

    def __init__(self, name: str, stream: io.BufferedReader, exact: bool = False) -> None:
        self.name = name
        self.notes: list[str] = []
        self._stream = stream
        self._decode = json.JSONDecoder(
            object_pairs_hook=_object, parse_float=Decimal if exact else None, parse_constant=float
        ).decode

    def columns(self) -> list[str] | None:
        """None: each row names its own."""
        return None

    def rows(self) -> Iterator[Row]:
        """Every line that is not blank."""
        for number, line in enumerate(self._lines(), start=1):
            data = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if data.strip():
                yield self._row(number, data)

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
            value = self._decode(data.decode("utf-8"))
        except UnicodeDecodeError:
            return Row(number, raw, None, "it is not UTF-8")
        except RecursionError:
            return Row(number, raw, None, "it is nested too deeply")
        except ValueError as exc:
            return Row(number, raw, None, f"it is no JSON: {exc}")
        if not isinstance(value, dict):
            return Row(number, raw, None, f"it is {type(value).__name__}, not an object")
        return Row(number, raw, value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`{twice}` is there twice")
    return value
