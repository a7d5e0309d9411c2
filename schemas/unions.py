"""Chooses the branch of a union that a value is written by: the one that says all that the value said."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from schemas.numerals import MinusZero, is_commonly_written
from schemas.scalars import Convert, bare, shown

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
LOGICAL: dict[type, tuple[str, ...]] = {
    **{datetime: ("timestamp", "local-timestamp"), date: ("date",), time: ("time",)},
}
# How much it weighs that a field is left out, that a whole number was written with a point, or a number otherwise than
# it is printed.
LEFT_OUT, WITH_POINT, OTHER_TEXT = 1_000_000, 2, 1


@dataclass
class Losses:
    """What the conversions of the value at hand have lost of it so far, and the notes on them."""

    notes: list[str] = field(default_factory=list)
    weight: int = 0


@dataclass(frozen=True)
class Branch:
    """A type of a union, and the conversion into it."""

    declared: Any
    convert: Convert

    @property
    def name(self) -> str:
        """What fastavro calls it."""
        return branch_name(self.declared)

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

    @property
    def is_plain_text(self) -> bool:
        """Whether it keeps any text as it is."""
        return self.base == "string" and not self.logical and not self.is_json

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers, rather than times."""
        return self.logical == "decimal" or (not self.logical and self.base in NUMBERS)

    def rank(self, kind: type) -> int:
        """Return how far it is from such a value's own kind: a number becomes no date, a text no time, if avoidable."""
        logical = next((names for each, names in LOGICAL.items() if issubclass(kind, each)), None)
        if logical is not None:
            return 0 if self.logical.rpartition("-")[0] in logical or self.logical in logical else 1
        plain = next((names for each, names in PLAIN.items() if issubclass(kind, each)), None)
        if self.is_json and kind is not str:
            return 3
        if plain is None:
            return 1
        return 2 if self.logical else int(self.base not in plain)


def branch_name(branch: Any) -> str:
    """Return what fastavro calls a branch of a union: the full name of a named type, the type of any other."""
    if isinstance(branch, Mapping):
        return str(branch.get("name", branch["type"]))
    return str(branch)


def chosen(branches: Sequence[Branch], from_text: bool, losses: Losses) -> Convert:
    """Return the conversion of a value into a pair of its branch's name and itself; it raises ValueError.

    The first branch of the value's own kind that loses nothing of it is taken; where each does, the one that loses
    least. A pair of a branch's name and a value, as readers of Avro files give, has chosen.
    """
    branches = _exact_first(branches)
    by_name = {branch.name: branch.convert for branch in branches}
    keeps_text = from_text and any(branch.is_plain_text for branch in branches)
    attempts = [(branch.name, _told(branch, losses) if keeps_text else branch.convert) for branch in branches]
    orders: dict[type, list[tuple[str, Convert]]] = {}

    def order(kind: type) -> list[tuple[str, Convert]]:
        places = sorted(range(len(branches)), key=lambda place: 0 if from_text else branches[place].rank(kind))
        return [attempts[place] for place in places]

    def convert(value: Any) -> Any:
        if len(attempts) == 1:
            return attempts[0][0], attempts[0][1](value)
        if isinstance(value, tuple) and value[0] in by_name:
            return value[0], by_name[value[0]](value[1])
        kind = type(value)
        if kind not in orders:
            orders[kind] = order(kind)
        return _least_loss(value, orders[kind], losses)

    return convert


def _least_loss(value: Any, attempts: list[tuple[str, Convert]], losses: Losses) -> tuple[str, Any]:
    before, noted = losses.weight, len(losses.notes)
    best: tuple[int, str, Any, list[str]] | None = None
    for name, attempt in attempts:
        try:
            # fastavro would choose a branch of its own; a pair of name and value tells it which.
            result = attempt(value)
        except MISFITS:
            losses.weight = before
            del losses.notes[noted:]
            continue
        lost = losses.weight - before
        if best is None or lost < best[0]:
            best = lost, name, result, losses.notes[noted:]
        losses.weight = before
        del losses.notes[noted:]
        if not lost:
            break
    if best is None:
        raise ValueError(f"{shown(bare(value))} fits no type of its union")
    losses.weight += best[0]
    losses.notes += best[3]
    return best[1], best[2]


def _told(branch: Branch, losses: Losses) -> Convert:
    """Return the conversion of a text which tells where the number does not say all that the text did."""
    if not branch.is_number:
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


def whole_too(convert: Convert, of_whole: Callable[[Any], int | None], losses: Losses) -> Convert:
    """Return a conversion into whole numbers that also takes those with a point or an exponent: 1.0, 1e3."""

    def convert_whole(value: Any) -> Any:
        try:
            return convert(value)
        except ValueError:
            number = of_whole(value)
            if number is None:
                raise
            losses.weight += WITH_POINT
            return convert(str(number) if isinstance(value, str) else number)

    return convert_whole
