"""Goes over the bytes of an Avro value piece by piece: numbers, lengths, texts, and the types that hold no others."""

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
    """Bytes that are no value of their schema; the code is one of

    BYTES_MISSING, TRAILING_BYTES, BAD_VARINT, OUT_OF_RANGE, BAD_BOOLEAN, BAD_ENUM, BAD_UNION, BAD_DECIMAL, BAD_UTF8,
    BAD_UUID, BAD_LENGTH, BAD_BLOCK, TOO_LARGE, TOO_DEEP, TOO_MANY_ITEMS, and UNREADABLE: what only the library finds.
    """

    def __init__(self, code: str, what: str) -> None:
        super().__init__(code, what, REMEDY)


@dataclass(frozen=True)
class Budget:
    """What a value may take: `size` in bytes, `depth` of records, arrays and maps inside each other, `items` in all."""

    size: int = 64 * 2**20
    depth: int = 64
    items: int = 1_000_000


class Body:
    """The bytes of one value, and what is left of its budget."""

    __slots__ = ("data", "depth", "end", "items")

    def __init__(self, data: bytes, budget: Budget) -> None:
        self.data, self.end = data, len(data)
        self.depth, self.items = budget.depth, budget.items

    def varint(self, at: int, bits: int, allowed: tuple[int, int]) -> tuple[int, int]:
        """The number at `at`, and where it ends."""
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
        """A number of bytes, and where they begin."""
        value, at = self.varint(at, 64, LONG)
        if value < 0:
            raise DecodeError("BAD_LENGTH", f"a length of {value} before byte {at}")
        return value, at

    def skip(self, at: int, size: int) -> int:
        """Where `size` bytes from `at` end."""
        if size > self.end - at:
            raise DecodeError("BYTES_MISSING", f"byte {at} begins {size} bytes, and {self.end - at} are left")
        return at + size

    def enter(self) -> None:
        """Go one record, array or map deeper."""
        self.depth -= 1
        if self.depth < 0:
            raise DecodeError("TOO_DEEP", "records, arrays and maps lie too deep inside each other")


Check = Callable[[Body, int], int]
"""Goes over one value: from where it begins to where it ends."""


def primitive(declared: dict[str, Any]) -> Check | None:
    """The check of a type without a name; None for what is none."""
    kind, logical = declared["type"], declared.get("logicalType")
    if kind in ("int", "long"):
        allowed = RANGES.get((kind, str(logical)), INT if kind == "int" else LONG)
        return lambda body, at: body.varint(at, 64, allowed)[1]
    if kind == "string":
        return _uuid if logical == "uuid" else text
    if kind == "bytes":
        return _decimal(declared["precision"]) if logical == "decimal" else lambda body, at: _bytes(body, at)[1]
    if kind == "boolean":
        return _boolean
    size = FIXED_SIZES.get(kind)
    return None if size is None else lambda body, at: body.skip(at, size)


def index(body: Body, at: int, count: int, code: str) -> tuple[int, int]:
    """Which of `count` follows, and where that begins."""
    value, at = body.varint(at, 32, INT)
    if not 0 <= value < count:
        raise DecodeError(code, f"index {value} before byte {at}, of {count}")
    return value, at


def _boolean(body: Body, at: int) -> int:
    end = body.skip(at, 1)
    if body.data[at] > 1:
        raise DecodeError("BAD_BOOLEAN", f"byte {at} is {body.data[at]}, not 0 or 1")
    return end


def _bytes(body: Body, at: int) -> tuple[bytes, int]:
    size, at = body.length(at)
    end = body.skip(at, size)
    return body.data[at:end], end


def _decoded(body: Body, at: int) -> tuple[str, int]:
    content, end = _bytes(body, at)
    try:
        return content.decode(), end
    except UnicodeDecodeError as exc:
        raise DecodeError("BAD_UTF8", f"the text before byte {end} is no UTF-8: {exc.reason}") from exc


def text(body: Body, at: int) -> int:
    """A string: a length, and that many bytes of UTF-8."""
    return _decoded(body, at)[1]


def _uuid(body: Body, at: int) -> int:
    content, end = _decoded(body, at)
    if not re.fullmatch(UUID, content):
        raise DecodeError("BAD_UUID", f"the text before byte {end} is no UUID")
    return end


def _decimal(precision: int) -> Check:
    def check(body: Body, at: int) -> int:
        number, end = _bytes(body, at)
        _check_digits(number, precision, end)
        return end

    return check


def _check_digits(number: bytes, precision: int, end: int) -> None:
    if not number or abs(int.from_bytes(number, "big", signed=True)) >= 10**precision:
        raise DecodeError("BAD_DECIMAL", f"the decimal before byte {end} has no digit, or more than {precision}")


def enum(declared: dict[str, Any]) -> Check:
    """The index of a symbol."""
    count = len(declared["symbols"])
    return lambda body, at: index(body, at, count, "BAD_ENUM")[1]


def fixed(declared: dict[str, Any]) -> Check:
    """As many bytes as its type says."""
    size, is_decimal = declared["size"], declared.get("logicalType") == "decimal"

    def check(body: Body, at: int) -> int:
        end = body.skip(at, size)
        if is_decimal:
            _check_digits(body.data[at:end], declared["precision"], end)
        return end

    return check
