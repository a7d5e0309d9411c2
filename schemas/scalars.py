"""Strict conversion of single values to Avro's primitive and logical types: exactly, or a ValueError that says why."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import tzinfo
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation
from typing import Any
from uuid import UUID

from schemas.moments import day, instant, time_of_day

Convert = Callable[[Any], Any]
INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
FLOAT_MAX = 3.4028234663852886e38  # the largest IEEE 754 single
SHOWN_CHARACTERS = 60


def shown(value: Any) -> str:
    """The value for a message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def scalar(declared: Mapping[str, Any], zone: tzinfo, from_text: bool) -> Convert | None:
    """The conversion for a primitive or logical type; None for every other.

    `zone` is where times without an offset were taken. `from_text`: all values are text, as in the cells of a
    file; otherwise each must be of the type's own kind.
    """
    convert = _logical(declared, zone)
    return convert or (FROM_TEXT if from_text else FROM_VALUE).get(declared["type"])


def _logical(declared: Mapping[str, Any], zone: tzinfo) -> Convert | None:
    logical = str(declared.get("logicalType"))
    kind, _, unit = logical.rpartition("-")
    if kind == "timestamp":
        return instant(unit, zone)
    if kind == "local-timestamp":
        return instant(unit, None)
    if kind == "time":
        return time_of_day(unit)
    if logical == "decimal" and declared["type"] == "bytes":
        return _decimal(declared["precision"], declared.get("scale", 0))
    return {"date": day, "uuid": _uuid}.get(logical) if declared["type"] in ("int", "string") else None


def _decimal(precision: int, scale: int) -> Convert:
    step = Decimal(1).scaleb(-scale)
    context = Context(prec=precision, traps=[Inexact, InvalidOperation])

    def convert(value: Any) -> Decimal:
        if isinstance(value, bytes):
            value = Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-scale, Context(prec=precision + 1))
        try:
            # A float stands for the shortest decimal that reads back as it, which is what its file showed.
            number = Decimal(repr(value)) if isinstance(value, float) else Decimal(_checked(value, str, int, Decimal))
            fitted = number.quantize(step, context=context)
        except DecimalException as exc:
            raise ValueError(f"{shown(value)} does not fit decimal({precision}, {scale})") from exc
        if not fitted.is_finite():
            raise ValueError(f"{shown(value)} does not fit decimal({precision}, {scale})")
        return fitted

    return convert


def _uuid(value: Any) -> str:
    try:
        return str(value if isinstance(value, UUID) else UUID(_checked(value, str)))
    except ValueError as exc:
        raise ValueError(f"{shown(value)} is no UUID") from exc


def _integer(bits: int, name: str, from_text: bool) -> Convert:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def convert(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{shown(value)} is no {name}")
        if not low <= value <= high:
            raise ValueError(f"{shown(value)} is out of the range of {name}")
        return value

    def convert_text(text: str) -> int:
        if not INTEGER.fullmatch(text.strip()):
            raise ValueError(f"{shown(text)} is no {name}")
        # Python refuses to read thousands of digits; so many do not fit anyway.
        number = int(text) if len(text) < 64 else high + 1
        if not low <= number <= high:
            raise ValueError(f"{shown(text)} is out of the range of {name}")
        return number

    return convert_text if from_text else convert


def _floating(largest: float, name: str, from_text: bool) -> Convert:
    def convert(value: Any) -> float:
        if from_text:
            number = _float_of_text(value, name)
        else:
            number = float(_checked(value, float, int, Decimal))
            if isinstance(value, int) and int(number) != value:
                raise ValueError(f"{shown(value)} has more digits than {name} holds")
        if largest < abs(number) < math.inf:
            raise ValueError(f"{shown(value)} is out of the range of {name}")
        return number

    return convert


def _float_of_text(text: str, name: str) -> float:
    bare = text.strip()
    if NOT_FINITE.fullmatch(bare):
        return float(bare)
    if not NUMBER.fullmatch(bare):
        raise ValueError(f"{shown(text)} is no {name}")
    number = float(bare)
    if math.isinf(number):
        raise ValueError(f"{shown(text)} is out of the range of {name}")
    return number


def _boolean_of_text(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{shown(text)} is no boolean: write true or false")
    return text.lower() == "true"


def _only(*types: type) -> Convert:
    return lambda value: _checked(value, *types)


def _checked(value: Any, *types: type) -> Any:
    # True is an int to Python, and is none to anybody else.
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        names = " or ".join(each.__name__ for each in types)
        raise ValueError(f"{shown(value)} is no {names}")
    return value


FROM_VALUE: dict[str, Convert] = {
    "null": _only(type(None)),
    "boolean": _only(bool),
    "int": _integer(32, "int", from_text=False),
    "long": _integer(64, "long", from_text=False),
    "float": _floating(FLOAT_MAX, "float", from_text=False),
    "double": _floating(math.inf, "double", from_text=False),
    "string": _only(str),
    "bytes": _only(bytes),
}
FROM_TEXT: dict[str, Convert] = {
    "boolean": _boolean_of_text,
    "int": _integer(32, "int", from_text=True),
    "long": _integer(64, "long", from_text=True),
    "float": _floating(FLOAT_MAX, "float", from_text=True),
    "double": _floating(math.inf, "double", from_text=True),
    "string": _only(str),
    "bytes": str.encode,
}
