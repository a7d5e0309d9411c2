"""Converts single values to Avro's primitive, logical, enum and fixed types: exactly, or a ValueError says why."""

import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation
from typing import Any
from uuid import UUID

from schemas.numerals import INTEGER, NOT_FINITE, NUMBER, MinusZero, is_printed_alike
from schemas.timestamps import WallClock, day, instant, time_of_day

Convert = Callable[[Any], Any]
# As they are written: hyphens between groups of four, or nowhere; in braces, or with the name of their kind. To Python
# a blank, an underscore and a plus are digits, too, and a damaged one would become another.
UUID_TEXT = re.compile(r"(?:urn:uuid:)?(\{)?[0-9a-f]{4}(?:-?[0-9a-f]{4}){7}(?(1)\})", re.IGNORECASE | re.ASCII)
FLOAT_MAX = 3.4028234663852886e38  # the largest IEEE 754 single
SINGLE_DIGITS = 9  # that tell every single from its neighbours
SHOWN_CHARACTERS = 60
LONGEST_DECIMAL_BYTES = 512
EXACT = Context(prec=16 * LONGEST_DECIMAL_BYTES)


def shown(value: Any) -> str:
    """Return the value for a message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def scalar(declared: Mapping[str, Any], clock: WallClock, from_text: bool, from_json: bool = False) -> Convert | None:
    """Return the conversion for a type that holds no other types; None for every other.

    `clock` showed the times without an offset. `from_text`: all values are text, as in the cells of a
    file; otherwise each must be of the type's own kind. `from_json`: bytes are text, a character each, as Avro writes
    them in JSON.
    """
    if declared.get("json"):
        return _json_text
    if convert := _logical(declared, clock):
        return convert
    if declared["type"] == "enum":
        return _enum(declared)
    of_bytes = str.encode if from_text else _bytes_of_json if from_json else _only(bytes)
    if declared["type"] == "fixed":
        return _fixed(declared, of_bytes)
    if declared["type"] == "bytes":
        return of_bytes
    return (FROM_TEXT if from_text else FROM_VALUE).get(declared["type"])


def bare(value: Any) -> Any:
    """Return the value of a pair of a type's name and a value,
    which readers of Avro files give for a union's branch."""
    return value[1] if isinstance(value, tuple) and len(value) == 2 else value


def _logical(declared: Mapping[str, Any], clock: WallClock) -> Convert | None:
    logical = str(declared.get("logicalType"))
    kind, _, unit = logical.rpartition("-")
    if kind == "timestamp":
        return instant(unit, clock, clock.number_ns)
    if kind == "local-timestamp":
        return instant(unit, None, clock.number_ns)
    if kind == "time":
        return time_of_day(unit)
    if logical == "decimal" and declared["type"] in ("bytes", "fixed"):
        return _decimal(declared["precision"], declared.get("scale", 0))
    return {"date": day(clock.number_ns), "uuid": _uuid}.get(logical) if declared["type"] in ("int", "string") else None


def stored_decimal(value: bytes, scale: int) -> Decimal:
    """Return the decimal that bytes hold, as Avro stores it; raises ValueError for more digits than any field takes."""
    if len(value) > LONGEST_DECIMAL_BYTES:  # Python would take the square of their number
        raise ValueError(f"a decimal of {len(value):,} bytes has more digits than a table holds")
    return Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-scale, EXACT)


def _decimal(precision: int, scale: int) -> Convert:
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
            number = Decimal(repr(value)) if isinstance(value, float) else Decimal(_checked(value, str, int, Decimal))
            fitted = number.quantize(step, context=context)
        except DecimalException as exc:
            raise ValueError(f"{shown(value)} does not fit decimal({precision}, {scale})") from exc
        if not fitted.is_finite():
            raise ValueError(f"{shown(value)} does not fit decimal({precision}, {scale})")
        # Into a fixed, fastavro writes the zero of -0 as another number.
        return fitted or fitted.copy_abs()

    return convert


def _uuid(value: Any) -> str:
    if isinstance(value, UUID):
        return str(value)
    text = value.strip() if isinstance(value, str) else ""
    if not UUID_TEXT.fullmatch(text):
        raise ValueError(f"{shown(value)} is no UUID")
    return str(UUID(text.lower()))


def _integer(bits: int, name: str, from_text: bool) -> Convert:
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


def _floating(largest: float, name: str, from_text: bool) -> Convert:
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
        number = float(_checked(value, float, int, Decimal))
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


def _boolean_of_text(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{shown(text)} is no boolean: write true or false")
    return text.lower() == "true"


def _only(*types: type) -> Convert:
    return lambda value: _checked(value, *types)


def _checked(value: Any, *types: type) -> Any:
    # True is an int to Python, and is none to anybody else.
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        names = " or ".join(kind.__name__ for kind in types)
        raise ValueError(f"{shown(value)} is no {names}")
    return value


def _enum(declared: Mapping[str, Any]) -> Convert:
    symbols = frozenset(declared["symbols"])

    def convert(value: Any) -> str:
        value = bare(value)
        if not isinstance(value, str) or value not in symbols:
            raise ValueError(f"{shown(value)} is none of {', '.join(declared['symbols'])}")
        return value

    return convert


def _fixed(declared: Mapping[str, Any], of_bytes: Convert) -> Convert:
    def convert(value: Any) -> bytes:
        data: bytes = of_bytes(bare(value))
        if len(data) != declared["size"]:
            raise ValueError(f"{shown(bare(value))} is not {declared['size']} bytes")
        return data

    return convert


def _bytes_of_json(value: Any) -> bytes:
    try:
        return bytes(value.encode("latin-1") if isinstance(value, str) else _checked(value, bytes))
    except UnicodeEncodeError as exc:
        raise ValueError(f"{shown(value)} is no bytes: in JSON, each is a character up to U+00FF") from exc


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else _dumped(value)


def _dumped(value: Any) -> str:
    """Return JSON in which a decimal keeps its digits."""
    if isinstance(value, Decimal | MinusZero):
        return str(value)
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {_dumped(item)}" for key, item in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_dumped, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


FROM_VALUE: dict[str, Convert] = {
    "null": _only(type(None)),
    "boolean": _only(bool),
    "int": _integer(32, "int", from_text=False),
    "long": _integer(64, "long", from_text=False),
    "float": _floating(FLOAT_MAX, "float", from_text=False),
    "double": _floating(math.inf, "double", from_text=False),
    "string": _only(str),
}
FROM_TEXT: dict[str, Convert] = {
    "boolean": _boolean_of_text,
    "int": _integer(32, "int", from_text=True),
    "long": _integer(64, "long", from_text=True),
    "float": _floating(FLOAT_MAX, "float", from_text=True),
    "double": _floating(math.inf, "double", from_text=True),
    "string": _only(str),
}
WHOLE_NUMBERS = tuple(forms[kind] for forms in (FROM_VALUE, FROM_TEXT) for kind in ("int", "long"))
