"""Reads durations as settings and declarations write them: `30 minutes`, `1 day`; Spark's INTERVAL takes the same.

And times, as command lines write them.
"""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator

from conf.secret_words import shown

UNIT_MS = {"second": 1000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "week": 604_800_000}
EXAMPLE = 'write for example "1 day", "2 weeks"'
LONGEST_DAYS = 365_000  # a thousand years: before or after any time of today, it is still a time


def milliseconds(text: str) -> int:
    """Return how long `text` lasts; raises ValueError where it is no whole number of one unit, or too long."""
    match = re.fullmatch(rf"([1-9][0-9]*) ({'|'.join(UNIT_MS)})s?", text)
    if match is None:
        raise ValueError(f"{shown(text)} is no duration: {EXAMPLE}")
    # Python takes no text of thousands of digits for a number.
    lasts = int(match[1][:18]) * UNIT_MS[match[2]]
    if len(match[1]) > 18 or lasts > LONGEST_DAYS * UNIT_MS["day"]:
        raise ValueError(f"{shown(text)} is longer than {LONGEST_DAYS:,} days: {EXAMPLE}")
    return lasts


def require_interval(text: str) -> str:
    """Return `text`, how often micro-batches begin: a duration, in milliseconds too, or 0 for one after the other.

    Raises:
        ValueError: Spark does not read it so.
    """
    if re.fullmatch(r"[0-9]{1,9} milliseconds?|0 seconds?", text):
        return text
    try:
        milliseconds(text)
    except ValueError:
        example = '"5 seconds", "100 milliseconds", or "0 seconds" for one batch after the other'
        raise ValueError(f"{shown(text)} is no interval between batches: write for example {example}") from None
    return text


def moment(text: str) -> datetime:
    """Return a time in ISO's form, in UTC where it names no zone; raises ValueError, also for one that UTC has not."""
    at = datetime.fromisoformat(text)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    try:
        at.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is before the year 1 or after 9999 in UTC") from None
    return at


def _checked(text: str) -> str:
    milliseconds(text)
    return text


Duration = Annotated[str, AfterValidator(_checked)]
Interval = Annotated[str, AfterValidator(require_interval)]
