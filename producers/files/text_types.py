"""Infers from the cells of a column the narrowest type that each of them reads back from unchanged."""

import re
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from producers.files.avro_fields import Field
from producers.files.rows import Input, readable
from schemas.conversions import scalar
from schemas.numbers import is_printed_alike
from schemas.timestamps import WallClock

# What most readers take for a number.
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$|^[+-]?(?i:nan|inf(inity)?)$"
NOT_FINITE = re.compile(r"[+-]?[nNiI]")
EXACT_DIGITS = 15  # a double holds every number of so many digits
PRECISIONS = (18, 38)  # what fits into a long, and Spark's most
SPARE_DIGITS = 2  # in front, for later files
TOO_LONG, TRAILING = "more digits than a double holds", "a trailing zero"
TWO_WAYS = "numbers are written in two ways"
# What makes a text a code rather than a number.
CODES = {
    "a leading zero": re.compile(r"[+-]?0[0-9]"),
    "a plus sign": re.compile(r"\+"),
    "an exponent": re.compile(r"(?!-?[1-9](\.[0-9]+[eE]|[eE][+-]|[eE]-|\.[0-9]+[eE]-)[+-]?[0-9]+\Z).*[0-9.][eE]"),
}
TRAILING_ZERO = re.compile(r".*\.([0-9]*[1-9]0+|00+)([eE]|\Z)")
NEGATIVE_ZERO = re.compile(r"-0*\.?0*\Z")
# Ways to write the same number: a column may have one of each line.
WAY_PATTERNS = [
    {"5": r"-?[0-9]+\Z", "5.": r".*\.\Z", "5.0": r".*\.0\Z"},
    {"5e9": r"-?[0-9]+[eE]", "5.e9": r".*\.[eE]", "5.0e9": r".*\.0[eE]"},
    {".5": r"-?\.", "0.5": r"-?0\."},
    {"1e9": r".*[0-9.]e", "1E9": r".*[0-9.]E"},
    {"1e9": r".*[eE][0-9]", "1e+9": r".*[eE]\+"},
    {"1e-9": r".*[eE][+-]?[0-9]\Z", "1e-09": r".*[eE][+-]?0[0-9]\Z"},
]
WAYS = [{way: re.compile(pattern) for way, pattern in ways.items()} for ways in WAY_PATTERNS]
LEADING_POINT = 2


class Numbers:
    """How the numbers of one column were seen to be written, and by which text for the first time."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}
        self._ways: list[dict[str, str]] = [{} for _ in WAYS]
        self._finite = False
        self._exponents: set[int] = set()
        self._zeros, self._whole_digits = -1, 0
        self._fraction_digits: set[int] = set()
        self.note = ""

    def add(self, values: pa.Array) -> None:
        """Look at more numbers, texts that match NUMBER."""
        has_exponent = pc.match_substring_regex(values, "[0-9.][eE]")
        plain = values.filter(pc.invert(has_exponent))
        # The digits between the first and the last that is no zero make no difference: few shapes are left.
        shapes = pc.replace_substring_regex(plain, "[1-9][0-9]*[1-9]", "1")
        for shape in pc.unique(shapes).to_pylist():
            self._look(shape, plain, shapes)
        texts = values.filter(has_exponent)
        for text in pc.unique(texts).to_pylist():
            self._look(text, texts, texts)
            self._exponents.add(int(re.split("[eE]", text)[1]))
        self._measure(plain)
        self._check_digits(pa.concat_arrays([plain.filter(pc.greater(pc.utf8_length(plain), EXACT_DIGITS)), texts]))

    def kind(self) -> Any:
        """Return the Avro type: "double", a decimal, or None where the column must stay text; `note` says why."""
        code = next((reason for reason in CODES if reason in self._seen), None)
        if code or not self._finite:
            return self._text(code or "no number at all")
        lost = next((reason for reason in (TOO_LONG, TRAILING) if reason in self._seen), None)
        if lost:
            return self._decimal() or self._text(lost)
        twice = next((list(ways.values()) for ways in self._ways if len(ways) > 1), None)
        if twice or self._overlap():
            return self._text(TWO_WAYS, *(twice or ()))
        return "double"

    def _text(self, reason: str, *examples: str) -> Any:
        examples = examples or tuple(self._seen[cause] for cause in (reason,) if cause in self._seen)
        shown = f", as {' and '.join(map(repr, examples[:2]))}" if examples else ""
        self.note = f"as numbers, its values would not read back the same: {reason}{shown}"
        return None

    def _look(self, shape: str, values: pa.Array, shapes: pa.Array) -> None:
        if NOT_FINITE.match(shape):
            self._seen.setdefault("not finite", shape)
            return
        self._finite = True
        text = None
        for reason, pattern in (*CODES.items(), (TRAILING, TRAILING_ZERO), ("-0", NEGATIVE_ZERO)):
            if reason not in self._seen and pattern.match(shape):
                text = text or values[pc.index(shapes, shape).as_py()].as_py()
                self._seen.setdefault(reason, text)
        for seen, ways in zip(self._ways, WAYS, strict=True):
            for way, pattern in ways.items():
                if way not in seen and pattern.match(shape):
                    text = text or values[pc.index(shapes, shape).as_py()].as_py()
                    seen[way] = text
        zeros = re.match(r"-?0?\.(0*)[1-9]", shape)
        self._zeros = max(self._zeros, len(zeros[1])) if zeros and "e" not in shape.lower() else self._zeros

    def _measure(self, plain: pa.Array) -> None:
        finite = plain.filter(pc.invert(pc.match_substring_regex(plain, "[nN]")))
        if not len(finite):
            return
        length, point = pc.utf8_length(finite), pc.find_substring(finite, ".")
        whole = pc.if_else(pc.less(point, 0), length, point)
        behind = pc.if_else(pc.less(point, 0), 0, pc.subtract(pc.subtract(length, point), 1))
        self._whole_digits = max(self._whole_digits, pc.max(whole).as_py())
        edges = pc.min_max(behind).as_py()
        self._fraction_digits |= {edges["min"], edges["max"]}

    def _check_digits(self, long: pa.Array) -> None:
        if TOO_LONG in self._seen:
            return
        for text in long.to_pylist():
            if not NOT_FINITE.match(text) and not is_printed_alike(float(text), text):
                self._seen[TOO_LONG] = text
                return

    def _decimal(self) -> dict[str, Any] | None:
        if self._exponents or len(self._fraction_digits) != 1 or {"not finite", "-0"} & self._seen.keys():
            return None
        scale, needed = *self._fraction_digits, self._whole_digits + max(self._fraction_digits)
        if not scale or needed > PRECISIONS[-1] or len(self._ways[LEADING_POINT]) > 1:
            return None
        precision = next(digits for digits in PRECISIONS if needed + SPARE_DIGITS <= digits or digits == PRECISIONS[-1])
        self.note = f"all its numbers have {scale} digits behind the point, which a double would not keep"
        return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}

    def _overlap(self) -> bool:
        """Return whether a number without an exponent may be the same as one with an exponent."""
        small = [exponent for exponent in self._exponents if exponent < 0]
        large = [exponent for exponent in self._exponents if exponent >= 0]
        return bool(small and max(small) + 1 > -(self._zeros + 1)) or bool(large and min(large) < self._whole_digits)


CHUNK_ROWS = 20_000
# A type that fits less than this share of the values is no candidate any more, not even worth a note.
WORTH_A_NOTE = 0.9
# In order of preference. A leading zero or a plus makes a code, not a number; 18 digits fit a long; which numbers fit a
# double, `Numbers` knows. What matches and still is no time (31 February, 24:00) is sorted out by `Column`.
PATTERNS = {
    # Letter by letter: a pattern that ignores case takes a long s (U+017F) for an s, as nobody else does.
    "boolean": r"^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$",
    "long": r"^(0|-?[1-9][0-9]{0,17})$",
    "double": NUMBER,
    "date": r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$",
    "timestamp": r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[T ][0-2][0-9]:[0-5][0-9]"
    r"(:[0-5][0-9](\.[0-9]{1,6})?)?(Z|[+-][0-2][0-9](:?[0-5][0-9])?)?$",
}
# What matches both is a time beyond doubt: not in the first or last years, nor at the end of a month.
SURE_DAY = r"^([1-8][0-9]{3}|0[1-9][0-9]{2})-[01][0-9]-([01][0-9]|2[0-8])"
SURE_TIME = SURE_DAY + r"($|[T ]([01][0-9]|2[0-3])[0-9:.]*(Z|[+-][01][0-9:]*)?$)"
AVRO = {
    "date": {"type": "int", "logicalType": "date"},
    "timestamp": {"type": "long", "logicalType": "timestamp-micros"},
}


# As they are published, in UTC: the clocks of another zone may never have shown a time.
CONVERTS = {kind: scalar(avro, WallClock(), from_text=True) for kind, avro in AVRO.items()}
TIMES = {kind: re.compile(PATTERNS[kind].strip("^$")) for kind in AVRO}
SURE = re.compile(SURE_TIME)


def is_time(kind: str, text: str) -> bool:
    """Return whether a text looks like a "date" or a "timestamp", and is published as one."""
    convert = CONVERTS[kind]
    if convert is None or not TIMES[kind].fullmatch(text):
        return False
    if SURE.match(text):
        return True
    try:
        convert(text)
    except ValueError:
        return False
    return True


def _fit(kind: str, values: pa.Array) -> pa.Array:
    fits = pc.match_substring_regex(values, PATTERNS[kind])
    if kind not in TIMES or not pc.any(fits).as_py():
        return fits
    doubts = pc.unique(values.filter(pc.and_not(fits, pc.match_substring_regex(values, SURE_TIME))))
    refused = pa.array([text for text in doubts.to_pylist() if not is_time(kind, text)], pa.string())
    return pc.and_not(fits, pc.is_in(values, refused))


@dataclass
class Column:
    """A column as far as it was read: how many values, and, per type, how many did not fit, and the first."""

    count: int = 0
    numbers: Numbers = field(default_factory=Numbers)
    misfits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PATTERNS, 0))
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, values: pa.Array) -> None:
        """Look at more values, none of them null."""
        self.count += len(values)
        for kind in list(self.misfits) if len(values) else []:
            fits = _fit(kind, values)
            bad = len(values) - (pc.sum(fits).as_py() or 0)
            if bad:
                self.examples.setdefault(kind, values.filter(pc.invert(fits))[0].as_py())
            elif kind == "double":
                self.numbers.add(values)
            self.misfits[kind] += bad
            if self.misfits[kind] > (1 - WORTH_A_NOTE) * self.count:
                del self.misfits[kind]

    def avro(self) -> Any:
        """Return the column's type, without null."""
        kind = next((kind for kind, bad in self.misfits.items() if bad == 0 and self.count), "string")
        return AVRO.get(kind, kind) if kind != "double" else self.numbers.kind() or "string"

    def note(self, name: str) -> str | None:
        """Say why the column is text, where few values make it so, or a decimal, or what its numbers look like."""
        avro = self.avro()
        if isinstance(avro, dict) and avro.get("logicalType") == "decimal":
            return f"`{name}` is decimal({avro['precision']}, {avro['scale']}): {self.numbers.note}"
        if avro != "string" or not self.misfits or not self.count:
            return None
        kind, bad = min(self.misfits.items(), key=lambda item: item[1])
        if not bad:
            return f"`{name}` is string: {self.numbers.note}"
        return f"`{name}` is string: {bad:,} of {self.count:,} values are no {kind}, as {self.examples[kind]!r}"


class CellTypes:
    """The columns of CSV files, by name."""

    def __init__(self, nulls: frozenset[str]) -> None:
        self._nulls = pa.array(sorted(nulls), pa.string())
        self._columns: dict[str, Column] = {}
        self.count = 0
        self.problems: list[str] = []

    def add(self, file: Input) -> None:
        for name in file.columns() or []:
            self._columns.setdefault(name, Column())
        rows = readable(file, self.problems)
        while chunk := list(islice(rows, CHUNK_ROWS)):
            self.count += len(chunk)
            for name in chunk[0]:
                values = pa.array([row[name] for row in chunk], pa.string())
                self._columns[name].add(values.filter(pc.invert(pc.is_in(values, self._nulls))))

    def fields(self, _: str) -> list[Field]:
        return [Field(name, column.avro()) for name, column in self._columns.items()]

    def notes(self) -> list[str]:
        notes = [column.note(name) for name, column in self._columns.items()]
        empty = [name for name, column in self._columns.items() if not column.count]
        filled = [note for note in notes if note]
        return filled + [f"`{name}` is string: it has no value" for name in empty]
