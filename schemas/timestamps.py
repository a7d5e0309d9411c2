"""Converts dates, times and instants, from text or Python values, to the integers that Avro's logical types hold.

Nothing is rounded: a value finer than its type, or outside it, is a ValueError that says so. So is a time that no
clock of its zone showed, because it was put forward then.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from schemas.numbers import NUMBER, exact
from schemas.wire import DAY, FIRST, LAST, LONG

Ambiguous = Literal["earlier", "later", "reject"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOCAL_EPOCH = datetime(1970, 1, 1)
EPOCH_DAY = date(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
DAY_NS = 86_400 * 10**9
DAYS = range(FIRST // DAY, LAST // DAY + 1)  # of the years 1 to 9999, which Python's and SQL's dates hold
# Logical type -> nanoseconds in its unit.
UNIT_NS = {"millis": 1_000_000, "micros": 1_000, "nanos": 1}
INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s?(Z|UTC|[+-]\d\d(?::?\d\d)?)?", re.IGNORECASE
)
# Of nanoseconds since 1970: beyond, a number is no time, whatever its unit.
TIME_DIGITS = 24
CLOCK = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?")


@dataclass(frozen=True)
class WallClock:
    """The clock that showed the times without an offset: its zone, and what a time means that it showed twice.

    `notes` takes one line for each time that was shown twice, and of which one of the two was taken. `number_ns`:
    nanoseconds in the unit of numbers that stand for times; None: each is in the unit of its type.
    """

    zone: tzinfo = UTC
    ambiguous: Ambiguous = "earlier"
    notes: list[str] = field(default_factory=list, compare=False)
    number_ns: int | None = None

    def instant(self, shown: datetime) -> datetime:
        """Return the time with its offset; raises ValueError for one never shown,
        or shown twice where that is refused."""
        first = shown.replace(tzinfo=self.zone, fold=0)
        if self.zone.utcoffset(None) is not None:  # a zone of one offset
            return first
        second = shown.replace(tzinfo=self.zone, fold=1)
        before, after = first.utcoffset(), second.utcoffset()
        if before is None or after is None or before == after:
            return first
        if before < after:
            raise ValueError(f"{shown} was never shown by the clocks of {self.zone}, which were put forward then")
        if self.ambiguous == "reject":
            raise ValueError(f"{shown} was shown twice by the clocks of {self.zone}: say which with --ambiguous")
        self.notes.append(f"a time that the clocks of {self.zone} showed twice, taken as the {self.ambiguous}")
        return first if self.ambiguous == "earlier" else second


def instant(unit: str, clock: WallClock | None, number_ns: int | None = None) -> Callable[[Any], int]:
    """Make a converter to units since 1970.

    Takes ISO 8601 text, datetimes (pandas' with their nanoseconds), and integers already in the unit; or, where
    `number_ns` says how many nanoseconds the unit of the input's numbers has, any number in that unit, also as text.
    A time without an offset was shown by `clock`; where that is None, none may have an offset.
    """
    unit_ns = UNIT_NS[unit]
    low, high = max(FIRST * 10**6 // unit_ns, LONG[0]), min((LAST + 1) * 10**6 // unit_ns - 1, LONG[1])

    def convert(value: Any) -> int:
        number = _number(value, number_ns)
        if number is not None and number_ns is not None:
            count = _of_number(number, number_ns, unit_ns, unit)
        elif isinstance(value, int) and not isinstance(value, bool):
            count = value
        else:
            passed_ns = nanoseconds(value, clock) if isinstance(value, str) else _datetime_ns(value, clock)
            count = _in_units(passed_ns, unit_ns, unit, value)
        if not low <= count <= high:
            held = "1 to 9999" if unit != "nanos" else "1677 to 2262"
            raise ValueError(f"{value} is outside of what a time in {unit} holds, the years {held}")
        return count

    return convert


def day(number_ns: int | None = None) -> Callable[[Any], int]:
    """Make a converter to days since 1970, from text like 2013-01-31, a date, or days; or from numbers as `instant`,
    but for those in text, which may be dates like 20130131.
    """

    def convert(value: Any) -> int:
        number = None if isinstance(value, str) else _number(value, number_ns)
        if number is not None and number_ns is not None:
            value = _of_number(number, number_ns, DAY_NS, "days")
        if isinstance(value, str):
            value = _parsed(date.fromisoformat, value, "date like 2013-01-31")
        if isinstance(value, datetime):
            if value.time() != time(0):
                raise ValueError(f"{value} has a time of day, which a date cannot hold")
            value = value.date()
        if isinstance(value, date):
            return (value - EPOCH_DAY).days
        if isinstance(value, int) and not isinstance(value, bool) and value in DAYS:
            return value
        raise ValueError(f"{value!r} is no date")

    return convert


def time_of_day(unit: str) -> Callable[[Any], int]:
    """Make a converter to units since midnight, from text like 13:45:00.5, a time, or units."""
    unit_ns = UNIT_NS[unit]

    def convert(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value * unit_ns < DAY_NS:
            return value
        text = value.isoformat() if isinstance(value, time) and value.tzinfo is None else value
        match = CLOCK.fullmatch(text) if isinstance(text, str) else None
        if match is None or int(match[1]) > 23 or int(match[2]) > 59 or int(match[3] or 0) > 59:
            raise ValueError(f"{value!r} is no time of day like 13:45:00")
        seconds = int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3] or 0)
        return _in_units(seconds * 10**9 + int((match[4] or "0").ljust(9, "0")), unit_ns, unit, value)

    return convert


def _number(value: Any, number_ns: int | None) -> int | Decimal | None:
    """Return the number that a value is, or says as text; None where it is none, or numbers have no unit of theirs."""
    if number_ns is None or isinstance(value, bool):
        return None
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        return exact(value.strip())
    if isinstance(value, float):
        # A float stands for the shortest decimal that reads back as it, which is what its file showed.
        value = Decimal(repr(value))
    return value if isinstance(value, int) or (isinstance(value, Decimal) and value.is_finite()) else None


def _of_number(number: int | Decimal, number_ns: int, unit_ns: int, unit: str) -> int:
    if not number:
        return 0
    if isinstance(number, Decimal) and abs(number.adjusted()) > TIME_DIGITS:
        raise ValueError(f"{number} is no time")
    count = Fraction(number) * number_ns / unit_ns
    if count.denominator > 1:
        raise ValueError(f"{number} is finer than its type, which holds {unit}")
    return count.numerator


def nanoseconds(text: str, clock: WallClock | None) -> int:
    """Return the nanoseconds since 1970 of a time like 2013-01-31T13:45:00Z, of the years 1 to 9999."""
    match = INSTANT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time like 2013-01-31T13:45:00Z")
    day_text, minute, seconds, fraction, offset = match.groups()
    offset = (offset or "").upper().replace("UTC", "Z")
    whole = _parsed(datetime.fromisoformat, f"{day_text}T{minute}:{seconds or '00'}{offset}", "time", text)
    return _datetime_ns(whole, clock) + int((fraction or "0").ljust(9, "0"))


def _datetime_ns(time_value: Any, clock: WallClock | None) -> int:
    if not isinstance(time_value, datetime):
        raise ValueError(f"{time_value!r} is no time")
    if clock is None and time_value.tzinfo is not None:
        raise ValueError(f"{time_value} has an offset, which a local time cannot hold")
    extra = getattr(time_value, "nanosecond", 0)
    if hasattr(time_value, "to_pydatetime"):  # pandas' own, with rules of its own for times shown twice or never
        time_value = time_value.to_pydatetime(warn=False)
    if clock is None:
        passed = time_value - LOCAL_EPOCH
    else:
        passed = (time_value if time_value.tzinfo is not None else clock.instant(time_value)) - EPOCH
    return int(passed // MICROSECOND) * 1000 + int(extra)


def _in_units(passed_ns: int, unit_ns: int, unit: str, value: Any) -> int:
    count, lost = divmod(passed_ns, unit_ns)
    if lost:
        raise ValueError(f"{value} is finer than its type, which holds {unit}")
    return count


def _parsed(parse: Callable[[str], Any], text: str, what: str, shown: str | None = None) -> Any:
    try:
        return parse(text)
    except ValueError as exc:
        raise ValueError(f"{shown or text!r} is no {what}: {exc}") from exc
