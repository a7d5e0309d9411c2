"""Reads numbers that are written as text, to the last digit, and tells what a double or a long keeps of them."""

import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any

INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
# A number as it is commonly written: nothing in front, no zeros behind the point but the one of 1.0.
COMMON = re.compile(r"-?(0|[1-9]\d*)(\.\d*[1-9]|\.0)?", re.ASCII)
EXACT_LENGTH = 15  # characters of a number, of which a double keeps as many digits
LONG_DIGITS = 19
SHOWN_CHARACTERS = 60


class MinusZero(int):
    """The whole number -0, as which JSON may write a double's -0.0; to every other type it is 0."""

    def __float__(self) -> float:
        return -0.0

    def __repr__(self) -> str:
        return "-0"


MINUS_ZERO = MinusZero(0)


def exact(text: str) -> Decimal:
    """Return the number that a text like NUMBER says; raises ValueError where its exponent is beyond all use."""
    try:
        return Decimal(text)
    except InvalidOperation as exc:
        raise ValueError(f"{text[:SHOWN_CHARACTERS]!r} has an exponent of too many digits") from exc


def is_printed_alike(number: float, text: str) -> bool:
    """Return whether the double nearest to the number `text` is printed with the same digits, zeros at the end apart.

    Raises:
        ValueError: where the number has an exponent beyond all use.
    """
    if len(text) <= EXACT_LENGTH and "e" not in text and "E" not in text:
        return True
    return repr(number) == text or (math.isfinite(number) and Decimal(repr(number)) == exact(text))


def whole(value: Any) -> int | None:
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


def is_commonly_written(text: str, number: int | float | Decimal) -> bool:
    """Return whether the number says all that its text did: no leading zero, plus, blank or trailing zero was lost."""
    if isinstance(number, int):
        return str(number) == text
    if isinstance(number, float):
        return not math.isfinite(number) or repr(number) == text or COMMON.fullmatch(text) is not None
    return f"{number:f}" == text or COMMON.fullmatch(text) is not None
