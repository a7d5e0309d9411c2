"""Converts a value to one type of a schema: to a scalar, or to the branch of a union that says all that it said.

Scalars are Avro's primitive, logical, enum and fixed types. A value fits exactly, or a ValueError says why not.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from schemas.numbers import (
    FLOAT_MAX,
    Convert,
    MinusZero,
    checked,
    is_commonly_written,
    shown,
    to_decimal,
    to_float,
    to_integer,
    whole_number,
)
from schemas.timestamps import WallClock, day, instant, time_of_day

# As they are written: hyphens between groups of four, or nowhere; in braces, or with the name of their kind. To Python
# a blank, an underscore and a plus are digits, too, and a damaged one would become another.
UUID_TEXT = re.compile(r"(?:urn:uuid:)?(\{)?[0-9a-f]{4}(?:-?[0-9a-f]{4}){7}(?(1)\})", re.IGNORECASE | re.ASCII)
# What a conversion raises where a value does not fit, foreseen or not.
MISFITS = (ValueError, ArithmeticError, TypeError)
# Of the numbers of a union, the first that holds a value exactly is written: whole ones before double before float.
NUMBERS = ("int", "long", "double", "float")
# By the type of a value, the more special ones first: the branches that are of its own kind, and have no logical type.
PLAIN: dict[type, tuple[str, ...]] = {
    **{bool: ("boolean",), MinusZero: ("double", "float"), int: ("int", "long"), float: ("double", "float")},
    **{str: ("string", "enum"), bytes: ("bytes",)},
    list: ("array",),  # an empty one would be a map too, which Arrow gives as a list of pairs
}
LOGICAL: dict[type, tuple[str, ...]] = {datetime: ("timestamp", "local-timestamp"), date: ("date",), time: ("time",)}
# How much it weighs that a field is left out, that a whole number was written with a point, or a number otherwise than
# it is printed.
LEFT_OUT, WITH_POINT, OTHER_TEXT = 1_000_000, 2, 1


def scalar(declared: Mapping[str, Any], clock: WallClock, from_text: bool, from_json: bool = False) -> Convert | None:
    """Return the conversion for a type that holds no other types; None for every other.

    `clock` showed the times without an offset. `from_text`: all values are text, as in the cells of a
    file; otherwise each must be of the type's own kind. `from_json`: bytes are text, a character each, as Avro writes
    them in JSON.
    """
    if declared.get("json"):
        return lambda value: value if isinstance(value, str) else _to_json(value)
    if convert := _logical(declared, clock):
        return convert
    if declared["type"] == "enum":
        return _enum(declared["symbols"])
    of_bytes = str.encode if from_text else _bytes_of_json if from_json else _only(bytes)
    if declared["type"] == "fixed":
        return _fixed(declared["size"], of_bytes)
    if declared["type"] == "bytes":
        return of_bytes
    return (FROM_TEXT if from_text else FROM_VALUE).get(declared["type"])


def bare(value: Any) -> Any:
    """Return the value of a pair of a type's name and a value, which readers of Avro files give for a branch."""
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
        return to_decimal(declared["precision"], declared.get("scale", 0))
    return {"date": day(clock.number_ns), "uuid": _uuid}.get(logical) if declared["type"] in ("int", "string") else None


def _uuid(value: Any) -> str:
    if isinstance(value, UUID):
        return str(value)
    text = value.strip() if isinstance(value, str) else ""
    if not UUID_TEXT.fullmatch(text):
        raise ValueError(f"{shown(value)} is no UUID")
    return str(UUID(text.lower()))


def _boolean_of_text(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{shown(text)} is no boolean: write true or false")
    return text.lower() == "true"


def _only(kind: type) -> Convert:
    return lambda value: checked(value, kind)


def _enum(symbols: Sequence[str]) -> Convert:
    known = frozenset(symbols)

    def convert(value: Any) -> str:
        value = bare(value)
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{shown(value)} is none of {', '.join(symbols)}")
        return value

    return convert


def _fixed(size: int, of_bytes: Convert) -> Convert:
    def convert(value: Any) -> bytes:
        data: bytes = of_bytes(bare(value))
        if len(data) != size:
            raise ValueError(f"{shown(bare(value))} is not {size} bytes")
        return data

    return convert


def _bytes_of_json(value: Any) -> bytes:
    try:
        return bytes(value.encode("latin-1") if isinstance(value, str) else checked(value, bytes))
    except UnicodeEncodeError as exc:
        raise ValueError(f"{shown(value)} is no bytes: in JSON, each is a character up to U+00FF") from exc


def _to_json(value: Any) -> str:
    """Return JSON in which a decimal keeps its digits."""
    if isinstance(value, Decimal | MinusZero):
        return str(value)
    if isinstance(value, dict):
        items = (f"{json.dumps(key, ensure_ascii=False)}: {_to_json(item)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_to_json, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _of_primitives(from_text: bool) -> dict[str, Convert]:
    return {
        "int": to_integer(32, "int", from_text),
        "long": to_integer(64, "long", from_text),
        "float": to_float(FLOAT_MAX, "float", from_text),
        "double": to_float(math.inf, "double", from_text),
        "string": _only(str),
    }


FROM_VALUE = {"null": _only(type(None)), "boolean": _only(bool), **_of_primitives(from_text=False)}
FROM_TEXT = {"boolean": _boolean_of_text, **_of_primitives(from_text=True)}
WHOLE_NUMBERS = tuple(forms[kind] for forms in (FROM_VALUE, FROM_TEXT) for kind in ("int", "long"))


@dataclass
class Losses:
    """What the conversions of the value at hand have lost of it so far, and the notes on them."""

    notes: list[str] = field(default_factory=list)
    weight: int = 0


def with_point(convert: Convert, losses: Losses) -> Convert:
    """Return a conversion into whole numbers that also takes those with a point or an exponent: 1.0, 1e3."""

    def convert_whole(value: Any) -> Any:
        try:
            return convert(value)
        except ValueError:
            number = whole_number(value)
            if number is None:
                raise
            losses.weight += WITH_POINT
            return convert(str(number) if isinstance(value, str) else number)

    return convert_whole


@dataclass(frozen=True)
class Branch:
    """A type of a union, and the conversion into it."""

    declared: Any
    convert: Convert

    @property
    def base(self) -> Any:
        """Avro's own type."""
        return self.declared["type"] if isinstance(self.declared, Mapping) else self.declared

    @property
    def logical(self) -> str:
        """The logical type; empty where it has none."""
        return str(self.declared.get("logicalType", "")) if isinstance(self.declared, Mapping) else ""

    @property
    def is_json(self) -> bool:
        """Whether it takes any value, as its JSON text."""
        return isinstance(self.declared, Mapping) and bool(self.declared.get("json"))

    def rank(self, kind: type) -> int:
        """Return how far it is from such a value's own kind: a number becomes no date, a text no time, if avoidable."""
        logical = next((names for known, names in LOGICAL.items() if issubclass(kind, known)), None)
        if logical is not None:
            return 0 if self.logical.rpartition("-")[0] in logical or self.logical in logical else 1
        plain = next((names for known, names in PLAIN.items() if issubclass(kind, known)), None)
        if self.is_json and kind is not str:
            return 3
        if plain is None:
            return 1
        return 2 if self.logical else int(self.base not in plain)


def branch_name(branch: Any) -> str:
    """Return what fastavro calls a branch of a union: the full name of a named type, the type of any other."""
    return str(branch.get("name", branch["type"]) if isinstance(branch, Mapping) else branch)


def to_branch(branches: Sequence[Branch], from_text: bool, losses: Losses) -> Convert:
    """Return the conversion of a value into a pair of its branch's name and itself; it raises ValueError.

    The first branch of the value's own kind that loses nothing of it is taken; where each does, the one that loses
    least. A pair of a branch's name and a value, as readers of Avro files give, has chosen.
    """
    branches = _exact_first(branches)
    names = [branch_name(branch.declared) for branch in branches]
    by_name = {name: branch.convert for name, branch in zip(names, branches, strict=True)}
    # Whether one of them keeps any text as it is.
    keeps_text = from_text and any(b.base == "string" and not b.logical and not b.is_json for b in branches)
    converts = [_weighed(branch, losses) if keeps_text else branch.convert for branch in branches]
    attempts = [*zip(names, converts, strict=True)]
    orders: dict[type, list[tuple[str, Convert]]] = {}

    def convert(value: Any) -> Any:
        if len(attempts) == 1:
            return attempts[0][0], attempts[0][1](value)
        if isinstance(value, tuple) and value[0] in by_name:
            return value[0], by_name[value[0]](value[1])
        kind = type(value)
        if kind not in orders:
            places = sorted(range(len(branches)), key=lambda place: 0 if from_text else branches[place].rank(kind))
            orders[kind] = [attempts[place] for place in places]
        return _least_loss(value, orders[kind], losses)

    return convert


def _least_loss(value: Any, attempts: list[tuple[str, Convert]], losses: Losses) -> tuple[str, Any]:
    before, noted = losses.weight, len(losses.notes)
    best: tuple[int, str, Any, list[str]] | None = None
    for name, attempt in attempts:
        try:
            # fastavro would choose a branch of its own; a pair of name and value tells it which.
            result = attempt(value)
            lost = losses.weight - before
            if best is None or lost < best[0]:
                best = lost, name, result, losses.notes[noted:]
            if not lost:
                break
        except MISFITS:
            continue
        finally:
            losses.weight = before
            del losses.notes[noted:]
    if best is None:
        raise ValueError(f"{shown(bare(value))} fits no type of its union")
    losses.weight += best[0]
    losses.notes += best[3]
    return best[1], best[2]


def _weighed(branch: Branch, losses: Losses) -> Convert:
    """Return the conversion of a text which weighs it where the number does not say all that the text did."""
    if branch.logical != "decimal" and (branch.logical or branch.base not in NUMBERS):
        return branch.convert

    def convert(text: Any) -> Any:
        number: int | float | Decimal = branch.convert(text)
        losses.weight += 0 if is_commonly_written(text, number) else OTHER_TEXT
        return number

    return convert


def _exact_first(branches: Sequence[Branch]) -> list[Branch]:
    places = [place for place, branch in enumerate(branches) if branch.declared in NUMBERS]
    ordered = list(branches)
    numbers = sorted((branches[place] for place in places), key=lambda number: NUMBERS.index(number.declared))
    for place, number in zip(places, numbers, strict=True):
        ordered[place] = number
    return ordered
