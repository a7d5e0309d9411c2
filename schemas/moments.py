"""Dates, times and instants: from text or Python values to the integers that Avro's logical types hold.

Nothing is rounded: a value finer than its type, or outside it, is a ValueError that says so.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOCAL_EPOCH = datetime(1970, 1, 1)
EPOCH_DAY = date(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
DAY_NS = 86_400 * 10**9
DAYS_LIMIT = 1 << 31  # Avro keeps days in an int
# Logical type -> nanoseconds in its unit.
UNIT_NS = {"millis": 1_000_000, "micros": 1_000, "nanos": 1}
INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s?(Z|UTC|[+-]\d\d(?::?\d\d)?)?", re.IGNORECASE
)
CLOCK = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?")


def instant(unit: str, zone: tzinfo | None) -> Callable[[Any], int]:
    """-> units since 1970. A time without an offset is taken to be in `zone`; with `zone` None none may have one.

    Takes ISO 8601 text, datetimes (pandas' with their nanoseconds), and integers already in the unit.
    """
    unit_ns = UNIT_NS[unit]

    def convert(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        nanoseconds = _text_ns(value, zone) if isinstance(value, str) else _datetime_ns(value, zone)
        return _in_units(nanoseconds, unit_ns, unit, value)

    return convert


def day(value: Any) -> int:
    """-> days since 1970; from text like 2013-01-31, a date, or days."""
    if isinstance(value, str):
        value = _parsed(date.fromisoformat, value, "date like 2013-01-31")
    if isinstance(value, datetime) and value.time() != time(0):
        raise ValueError(f"{value} has a time of day, which a date cannot hold")
    if isinstance(value, datetime):
        value = value.date()
    if isinstance(value, date):
        return (value - EPOCH_DAY).days
    if isinstance(value, int) and not isinstance(value, bool) and -DAYS_LIMIT <= value < DAYS_LIMIT:
        return value
    raise ValueError(f"{value!r} is no date")


def time_of_day(unit: str) -> Callable[[Any], int]:
    """-> units since midnight; from text like 13:45:00.5, a time, or units."""
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


def _text_ns(text: str, zone: tzinfo | None) -> int:
    match = INSTANT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time like 2013-01-31T13:45:00Z")
    day_text, clock, seconds, fraction, offset = match.groups()
    offset = (offset or "").upper().replace("UTC", "Z")
    whole = _parsed(datetime.fromisoformat, f"{day_text}T{clock}:{seconds or '00'}{offset}", "time", text)
    return _datetime_ns(whole, zone) + int((fraction or "0").ljust(9, "0"))


def _datetime_ns(moment: Any, zone: tzinfo | None) -> int:
    if not isinstance(moment, datetime):
        raise ValueError(f"{moment!r} is no time")
    if zone is None and moment.tzinfo is not None:
        raise ValueError(f"{moment} has an offset, which a local time cannot hold")
    extra = getattr(moment, "nanosecond", 0)
    if zone is None:
        return (moment - LOCAL_EPOCH) // MICROSECOND * 1000 + extra
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
    return (aware - EPOCH) // MICROSECOND * 1000 + extra


def _in_units(nanoseconds: int, unit_ns: int, unit: str, value: Any) -> int:
    count, lost = divmod(nanoseconds, unit_ns)
    if lost:
        raise ValueError(f"{value} is finer than its type, which holds {unit}")
    return count


def _parsed(parse: Callable[[str], Any], text: str, what: str, shown: str | None = None) -> Any:
    try:
        return parse(text)
    except ValueError as exc:
        raise ValueError(f"{shown or text!r} is no {what}: {exc}") from exc
