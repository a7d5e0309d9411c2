"""Reads and converts numbers so that no digit of them is lost: from text, from JSON, and between types.

Where a type cannot hold a number exactly, a ValueError says why.
"""

import json
import math
import re
import struct
from collections.abc import Callable
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation
from typing import Any

Convert = Callable[[Any], Any]
INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
# A number as it is commonly written: nothing in front, no zeros behind the point but the one of 1.0.
COMMON = re.compile(r"-?(0|[1-9]\d*)(\.\d*[1-9]|\.0)?", re.ASCII)
EXACT_LENGTH = 15  # characters of a number, of which a double keeps as many digits
LONG_DIGITS = 19
# Python takes no more than 4,300 digits for a whole number.
WHOLE_CHARACTERS = 4_000
FLOAT_MAX = 3.4028234663852886e38  # the largest IEEE 754 single
SINGLE_DIGITS = 9  # that tell every single from its neighbours
SHOWN_CHARACTERS = 60
LONGEST_DECIMAL_BYTES = 512
EXACT = Context(prec=16 * LONGEST_DECIMAL_BYTES)


def shown(value: Any) -> str:
    """Return the value for a message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def checked(value: Any, *types: type) -> Any:
    """Return `value`; raises ValueError where it is of none of the types. True is an int to Python alone."""
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ValueError(f"{shown(value)} is no {' or '.join(kind.__name__ for kind in types)}")
    return value


class MinusZero(int):
    """The whole number -0, as which JSON may write a double's -0.0; to every other type it is 0."""

    def __float__(self) -> float:
        return -0.0

    def __repr__(self) -> str:
        return "-0"


class ExactDecoder(json.JSONDecoder):
    """A decoder of JSON values. A number that a double does not hold is a Decimal, and no name may be there twice.

    `fault` says what is wrong with the value that was decoded last, which then is not to be taken; empty where all is
    well. (An exception would leave open where the value ends, and the next one begins.)
    """

    def __init__(self, decimals: bool = False) -> None:
        """`decimals`: whether every number with a fraction or an exponent is a Decimal."""
        super().__init__(
            object_pairs_hook=self._object, parse_float=self._number, parse_int=_whole_of_json, parse_constant=float
        )
        self._decimals = decimals
        self.fault = ""

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        """Return the value that begins at `idx`, and where it ends; raises what JSONDecoder does."""
        self.fault = ""
        return super().raw_decode(s, idx)

    def decode_whole(self, text: str) -> Any:
        """Return the value of a text; raises ValueError where it is no JSON, or has a fault."""
        value = self.decode(text)
        if self.fault:
            raise ValueError(self.fault)
        return value

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            self.fault = self.fault or f"`{twice}` is there twice"
        return value

    def _number(self, text: str) -> float | Decimal:
        try:
            if not self._decimals and is_printed_alike(float(text), text):
                return float(text)
            return exact(text)
        except ValueError as exc:
            self.fault = self.fault or str(exc)
            return math.nan


def _whole_of_json(text: str) -> int | Decimal:
    if text == "-0":
        return MinusZero(0)
    return int(text) if len(text) <= WHOLE_CHARACTERS else Decimal(text)


def exact(text: str) -> Decimal:
    """Return the number that a text like NUMBER says; raises ValueError where its exponent is beyond all use."""
    try:
        return Decimal(text)
    except InvalidOperation as exc:
        raise ValueError(f"{text[:SHOWN_CHARACTERS]!r} has an exponent of too many digits") from exc


def is_printed_alike(number: float, text: str) -> bool:
    """Return whether the double nearest to the number `text` is printed with the same digits, zeros at the end apart;
    raises ValueError where the number has an exponent beyond all use."""
    if len(text) <= EXACT_LENGTH and "e" not in text and "E" not in text:
        return True
    return repr(number) == text or (math.isfinite(number) and Decimal(repr(number)) == exact(text))


def is_commonly_written(text: str, number: int | float | Decimal) -> bool:
    """Return whether the number says all that its text did: no leading zero, plus, blank or trailing zero was lost."""
    if isinstance(number, int):
        return str(number) == text
    if isinstance(number, float):
        return not math.isfinite(number) or repr(number) == text or COMMON.fullmatch(text) is not None
    return f"{number:f}" == text or COMMON.fullmatch(text) is not None


def whole_number(value: Any) -> int | None:
    """Return the whole number, of no more digits than a long has, that a double, a decimal or a text is: 1.0, 1e3, 5.;
    None for everything else.
    """
    if isinstance(value, str):
        number = exact(value.strip()) if NUMBER.fullmatch(value.strip()) else None
    else:
        # A double stands for the shortest decimal that reads back as it; beyond 2**53 that may be another whole number.
        number = Decimal(repr(value)) if isinstance(value, float) else value if isinstance(value, Decimal) else None
    if number is None or not number.is_finite() or (number and not 0 <= number.adjusted() < LONG_DIGITS):
        return None
    count = int(number) if number else 0
    return count if count == number and (not isinstance(value, float) or count == value) else None


def stored_decimal(value: bytes, scale: int) -> Decimal:
    """Return the decimal that bytes hold, as Avro stores it; raises ValueError for more digits than any field takes."""
    if len(value) > LONGEST_DECIMAL_BYTES:  # Python would take the square of their number
        raise ValueError(f"a decimal of {len(value):,} bytes has more digits than a table holds")
    return Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-scale, EXACT)


def to_decimal(precision: int, scale: int) -> Convert:
    """Return the conversion into decimals of so many digits, `scale` of them behind the point."""
    step = Decimal(1).scaleb(-scale)
    context = Context(prec=precision, traps=[Inexact, InvalidOperation])

    def convert(value: Any) -> Decimal:
        if isinstance(value, tuple):  # of an Avro file: the name of a fixed, and its bytes
            value = value[1]
        if isinstance(value, bytes):
            value = stored_decimal(value, scale)
        if isinstance(value, str) and not NUMBER.fullmatch(value.strip()):
            raise ValueError(f"{shown(value)} does not fit decimal({precision}, {scale}): it is no number")
        try:
            # A float stands for the shortest decimal that reads back as it, which is what its file showed.
            number = Decimal(repr(value)) if isinstance(value, float) else Decimal(checked(value, str, int, Decimal))
            fitted = number.quantize(step, context=context)
        except DecimalException as exc:
            raise ValueError(f"{shown(value)} does not fit decimal({precision}, {scale})") from exc
        if not fitted.is_finite():
            raise ValueError(f"{shown(value)} does not fit decimal({precision}, {scale})")
        # Into a fixed, fastavro writes the zero of -0 as another number.
        return fitted or fitted.copy_abs()

    return convert


def to_integer(bits: int, name: str, from_text: bool) -> Convert:
    """Return the conversion into whole numbers of so many bits."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def convert(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{shown(value)} is no {name}")
        if not low <= value <= high:
            raise ValueError(f"{shown(value)} is out of the range of {name}")
        return 0 if isinstance(value, MinusZero) else value

    def convert_text(text: str) -> int:
        if not INTEGER.fullmatch(text.strip()):
            raise ValueError(f"{shown(text)} is no {name}")
        # Python refuses to read thousands of digits; so many do not fit anyway.
        number = int(text) if len(text) < 64 else high + 1
        if not low <= number <= high:
            raise ValueError(f"{shown(text)} is out of the range of {name}")
        return number

    return convert_text if from_text else convert


def to_float(largest: float, name: str, from_text: bool) -> Convert:
    """Return the conversion into floating numbers up to `largest`: Avro's "float", of four bytes, or "double"."""

    def convert(value: Any) -> float:
        number = _float_of_text(value, name) if from_text else _float_of_value(value, name)
        if largest < abs(number) < math.inf:
            raise ValueError(f"{shown(value)} is out of the range of {name}")
        if name == "float" and not _is_kept_in_four_bytes(number):
            raise ValueError(f"{shown(value)} has more digits than {name} holds")
        return number

    return convert


def _float_of_value(value: Any, name: str) -> float:
    try:
        number = float(checked(value, float, int, Decimal))
    except OverflowError as exc:
        raise ValueError(f"{shown(value)} is out of the range of {name}") from exc
    if isinstance(value, int):
        is_kept = int(number) == value or Decimal(repr(number)) == value
    else:
        is_kept = isinstance(value, float) or not value.is_finite() or Decimal(repr(number)) == value
    if not is_kept:
        raise ValueError(f"{shown(value)} has more digits than {name} holds")
    return number


def _float_of_text(text: str, name: str) -> float:
    bare = text.strip()
    if NOT_FINITE.fullmatch(bare):
        return float(bare)
    if not NUMBER.fullmatch(bare):
        raise ValueError(f"{shown(text)} is no {name}")
    number = float(bare)
    if math.isinf(number):
        raise ValueError(f"{shown(text)} is out of the range of {name}")
    if not is_printed_alike(number, bare):
        raise ValueError(f"{shown(text)} has more digits than {name} holds")
    return number


def _is_kept_in_four_bytes(number: float) -> bool:
    """Return whether the nearest single is the number, or is printed as it with as many digits."""
    if not math.isfinite(number):
        return True
    single = struct.unpack("<f", struct.pack("<f", number))[0]
    if single == number:
        return True
    digits = len(f"{Decimal(repr(number)).normalize():e}".partition("e")[0].strip("-").replace(".", ""))
    return digits <= SINGLE_DIGITS and float(f"{single:.{digits}g}") == number
