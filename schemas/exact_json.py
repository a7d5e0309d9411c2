"""Decodes JSON so that nothing of it is lost: numbers keep their digits, and no name may be there twice."""

import json
import math
from decimal import Decimal
from typing import Any

from schemas.numerals import MINUS_ZERO, exact, is_printed_alike

# Python takes no more than 4,300 digits for a whole number.
WHOLE_CHARACTERS = 4_000


class ExactDecoder(json.JSONDecoder):
    """A decoder of JSON values. A number that a double does not hold is a Decimal.

    `fault` says what is wrong with the value that was decoded last, which then is not to be taken; empty where all is
    well. (An exception would leave open where the value ends, and the next one begins.)
    """

    def __init__(self, decimals: bool = False) -> None:
        """`decimals`: whether every number with a fraction or an exponent is a Decimal."""
        super().__init__(
            object_pairs_hook=self._object,
            parse_float=self._decimal if decimals else self._number,
            parse_int=_whole,
            parse_constant=float,
        )
        self.fault = ""

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        """Return the value that begins at `idx`, and where it ends; raises what JSONDecoder does."""
        self.fault = ""
        return super().raw_decode(s, idx)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            self.fault = self.fault or f"`{twice}` is there twice"
        return value

    def _number(self, text: str) -> float | Decimal:
        number = float(text)
        try:
            return number if is_printed_alike(number, text) else exact(text)
        except ValueError as exc:
            return self._no_number(exc)

    def _decimal(self, text: str) -> float | Decimal:
        try:
            return exact(text)
        except ValueError as exc:
            return self._no_number(exc)

    def _no_number(self, exc: ValueError) -> float:
        self.fault = self.fault or str(exc)
        return math.nan


def decoded(text: str, decoder: ExactDecoder) -> Any:
    """Return the value of a text; raises ValueError where it is no JSON, or has a fault."""
    value = decoder.decode(text)
    if decoder.fault:
        raise ValueError(decoder.fault)
    return value


def _whole(text: str) -> int | Decimal:
    if text == "-0":
        return MINUS_ZERO
    return int(text) if len(text) <= WHOLE_CHARACTERS else Decimal(text)
