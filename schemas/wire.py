"""Checks that bytes are one value of an Avro schema, and nothing else: piece by piece, within limits."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conf.errors import TidemarkError

REMEDY = "the value is corrupt, or its producer framed it with the wrong schema id"
UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
# In milliseconds and microseconds: what a day holds, and the years 1 to 9999, which Python's and SQL's times hold.
DAY = 86_400_000
FIRST, LAST = -62_135_596_800_000, 253_402_300_799_999
RANGES = {
    ("int", "date"): (FIRST // DAY, LAST // DAY),
    ("int", "time-millis"): (0, DAY - 1),
    ("long", "time-micros"): (0, DAY * 1000 - 1),
    ("long", "timestamp-millis"): (FIRST, LAST),
    ("long", "timestamp-micros"): (FIRST * 1000, LAST * 1000 + 999),
    ("long", "local-timestamp-millis"): (FIRST, LAST),
    ("long", "local-timestamp-micros"): (FIRST * 1000, LAST * 1000 + 999),
}
INT, LONG = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)
FIXED_SIZES = {"null": 0, "boolean": 1, "float": 4, "double": 8}


class DecodeError(TidemarkError):
    """Bytes are no value of their schema; the code is one of

    BYTES_MISSING, TRAILING_BYTES, BAD_VARINT, OUT_OF_RANGE, BAD_BOOLEAN, BAD_ENUM, BAD_UNION, BAD_DECIMAL, BAD_UTF8,
    BAD_UUID, BAD_LENGTH, BAD_BLOCK, TOO_LARGE, TOO_DEEP, TOO_MANY_ITEMS, and UNREADABLE: what only the library finds.
    """

    def __init__(self, code: str, what: str) -> None:
        super().__init__(code, what, REMEDY)


@dataclass(frozen=True)
class DecodeLimits:
    """The bounds of a value: `size` in bytes, `depth` of records, arrays and maps inside each other, `items` in all.

    Records, arrays and maps may be as many as items and bytes together: those without bytes cost time all the same.
    """

    size: int = 64 * 2**20
    depth: int = 64
    items: int = 1_000_000


class AvroCursor:
    """The bytes of one value, and what is left of its limits."""

    __slots__ = ("data", "depth", "end", "entered", "items")

    def __init__(self, data: bytes, limits: DecodeLimits) -> None:
        self.data, self.end = data, len(data)
        self.depth, self.items = limits.depth, limits.items
        self.entered = limits.items + len(data)

    def varint(self, at: int, bits: int, allowed: tuple[int, int]) -> tuple[int, int]:
        """Return the number at `at`, and where it ends."""
        number = shift = 0
        while True:
            byte = self.data[self.skip(at, 1) - 1]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift >= bits + 7 - bits % 7:
                raise DecodeError("BAD_VARINT", f"the number before byte {at} has no end")
        if number >> bits:
            raise DecodeError("BAD_VARINT", f"the number before byte {at} has more than {bits} bits")
        value = (number >> 1) ^ -(number & 1)
        if not allowed[0] <= value <= allowed[1]:
            raise DecodeError("OUT_OF_RANGE", f"the number {value} before byte {at} is out of range")
        return value, at

    def length(self, at: int) -> tuple[int, int]:
        """Return a number of bytes, and where they begin."""
        value, at = self.varint(at, 64, LONG)
        if value < 0:
            raise DecodeError("BAD_LENGTH", f"a length of {value} before byte {at}")
        return value, at

    def skip(self, at: int, size: int) -> int:
        """Return where `size` bytes from `at` end."""
        if size > self.end - at:
            raise DecodeError("BYTES_MISSING", f"byte {at} begins {size} bytes, and {self.end - at} are left")
        return at + size

    def enter(self) -> None:
        self.depth -= 1
        self.entered -= 1
        if self.depth < 0:
            raise DecodeError("TOO_DEEP", "records, arrays and maps lie too deep inside each other")
        if self.entered < 0:
            raise DecodeError("TOO_MANY_ITEMS", "it has more records, arrays and maps than bytes and items together")


Check = Callable[[AvroCursor, int], int]
"""Reads over one value: from where it begins to where it ends."""


def _primitive(schema_type: dict[str, Any]) -> Check | None:
    """Return the check of a type without a name; None for what is none."""
    kind, logical = schema_type["type"], schema_type.get("logicalType")
    if kind in ("int", "long"):
        allowed = RANGES.get((kind, str(logical)), INT if kind == "int" else LONG)
        return lambda cursor, at: cursor.varint(at, 64, allowed)[1]
    if kind == "string":
        return _uuid if logical == "uuid" else _text
    if kind == "bytes":
        return _decimal(schema_type["precision"]) if logical == "decimal" else lambda cursor, at: _bytes(cursor, at)[1]
    if kind == "boolean":
        return _boolean
    size = FIXED_SIZES.get(kind)
    return None if size is None else lambda cursor, at: cursor.skip(at, size)


def _index(cursor: AvroCursor, at: int, count: int, code: str) -> tuple[int, int]:
    """Return which of `count` follows, and where that begins."""
    value, at = cursor.varint(at, 32, INT)
    if not 0 <= value < count:
        raise DecodeError(code, f"index {value} before byte {at}, of {count}")
    return value, at


def _boolean(cursor: AvroCursor, at: int) -> int:
    end = cursor.skip(at, 1)
    if cursor.data[at] > 1:
        raise DecodeError("BAD_BOOLEAN", f"byte {at} is {cursor.data[at]}, not 0 or 1")
    return end


def _bytes(cursor: AvroCursor, at: int) -> tuple[bytes, int]:
    size, at = cursor.length(at)
    end = cursor.skip(at, size)
    return cursor.data[at:end], end


def _decoded(cursor: AvroCursor, at: int) -> tuple[str, int]:
    content, end = _bytes(cursor, at)
    try:
        return content.decode(), end
    except UnicodeDecodeError as exc:
        raise DecodeError("BAD_UTF8", f"the text before byte {end} is no UTF-8: {exc.reason}") from exc


def _text(cursor: AvroCursor, at: int) -> int:
    return _decoded(cursor, at)[1]


def _uuid(cursor: AvroCursor, at: int) -> int:
    content, end = _decoded(cursor, at)
    if not re.fullmatch(UUID, content):
        raise DecodeError("BAD_UUID", f"the text before byte {end} is no UUID")
    return end


def _decimal(precision: int) -> Check:
    def check(cursor: AvroCursor, at: int) -> int:
        number, end = _bytes(cursor, at)
        _check_digits(number, precision, end)
        return end

    return check


def _check_digits(number: bytes, precision: int, end: int) -> None:
    if not number or abs(int.from_bytes(number, "big", signed=True)) >= 10**precision:
        raise DecodeError("BAD_DECIMAL", f"the decimal before byte {end} has no digit, or more than {precision}")


def _enum(schema_type: dict[str, Any]) -> Check:
    count = len(schema_type["symbols"])
    return lambda cursor, at: _index(cursor, at, count, "BAD_ENUM")[1]


def _fixed(schema_type: dict[str, Any]) -> Check:
    size, is_decimal = schema_type["size"], schema_type.get("logicalType") == "decimal"

    def check(cursor: AvroCursor, at: int) -> int:
        end = cursor.skip(at, size)
        if is_decimal:
            _check_digits(cursor.data[at:end], schema_type["precision"], end)
        return end

    return check


def compile_check(schema: Any, limits: DecodeLimits | None = None) -> Callable[[bytes], None]:
    """Return a callable that raises DecodeError unless its bytes are one value of `schema` (fastavro's parsed form)."""
    allowed = limits or DecodeLimits()
    check = _Compiler().compile(schema)

    def check_all(data: bytes) -> None:
        if len(data) > allowed.size:
            raise DecodeError("TOO_LARGE", f"{len(data)} bytes, and {allowed.size} are allowed")
        end = check(AvroCursor(data, allowed), 0)
        if end != len(data):
            raise DecodeError("TRAILING_BYTES", f"{len(data) - end} bytes follow the value")

    return check_all


class _Compiler:
    """Turns a schema into checks, once; named types by name, as they may hold themselves."""

    def __init__(self) -> None:
        self._named: dict[str, Check] = {}
        self._smallest: dict[str, int] = {}

    def compile(self, schema: Any) -> Check:
        if isinstance(schema, list):
            return self._union(schema)
        schema_type = schema if isinstance(schema, dict) else {"type": schema}
        kind = schema_type["type"]
        if kind in ("record", "error"):
            return self._record(schema_type)
        if kind in ("array", "map"):
            return self._blocks(schema_type)
        if kind in ("enum", "fixed"):
            self._named[schema_type["name"]] = _enum(schema_type) if kind == "enum" else _fixed(schema_type)
            self._smallest[schema_type["name"]] = 1 if kind == "enum" else schema_type["size"]
            return self._named[schema_type["name"]]
        return _primitive(schema_type) or (lambda cursor, at: self._named[kind](cursor, at))

    def _record(self, schema_type: dict[str, Any]) -> Check:
        name = schema_type["name"]
        self._named[name] = lambda cursor, at: check(cursor, at)
        self._smallest[name] = 0  # while its own fields are compiled: a record that holds itself
        fields = [self.compile(field["type"]) for field in schema_type["fields"]]
        self._smallest[name] = sum(self._size(field["type"]) for field in schema_type["fields"])

        def check(cursor: AvroCursor, at: int) -> int:
            cursor.enter()
            for field in fields:
                at = field(cursor, at)
            cursor.depth += 1
            return at

        return check

    def _blocks(self, schema_type: dict[str, Any]) -> Check:
        is_map = schema_type["type"] == "map"
        item = self.compile(schema_type["values" if is_map else "items"])
        smallest = self._size(schema_type["values" if is_map else "items"]) + is_map

        def check_item(cursor: AvroCursor, at: int) -> int:
            return item(cursor, _text(cursor, at))

        return _block_check(check_item if is_map else item, smallest)

    def _union(self, branches: list[Any]) -> Check:
        checks = [self.compile(branch) for branch in branches]

        def check(cursor: AvroCursor, at: int) -> int:
            branch, at = _index(cursor, at, len(checks), "BAD_UNION")
            return checks[branch](cursor, at)

        return check

    def _size(self, schema: Any) -> int:
        """Return the fewest bytes that a value takes; for a type that was compiled."""
        if isinstance(schema, list):
            return 1 + min(map(self._size, schema))
        schema_type = schema if isinstance(schema, dict) else {"type": schema}
        named = self._smallest.get(str(schema_type.get("name", schema_type["type"])))
        return FIXED_SIZES.get(schema_type["type"], 1) if named is None else named


def _block_check(item: Check, smallest: int) -> Check:
    def check(cursor: AvroCursor, at: int) -> int:
        cursor.enter()
        while True:
            count, at = cursor.varint(at, 64, LONG)
            if count == 0:
                cursor.depth += 1
                return at
            end = None
            if count < 0:
                size, at = cursor.varint(at, 64, LONG)
                end = at + size
                if count == LONG[0] or not 0 <= size <= cursor.end - at:
                    raise DecodeError("BAD_BLOCK", f"a block of {-count} items in {size} bytes before byte {at}")
            # Before the first item is looked at: a count is all that five bytes need to claim millions.
            cursor.items -= abs(count)
            if cursor.items < 0:
                raise DecodeError("TOO_MANY_ITEMS", f"{abs(count)} items are claimed before byte {at}")
            cursor.skip(at, abs(count) * smallest)
            for _ in range(abs(count)):
                at = item(cursor, at)
            if end not in (None, at):
                raise DecodeError("BAD_BLOCK", f"a block ends at byte {at}, and says that it ends at {end}")

    return check
