"""Reads durations as settings and declarations write them: `30 minutes`, `1 day`; Spark's INTERVAL takes the same."""

import re
from typing import Annotated

from pydantic import AfterValidator

UNIT_MS = {"second": 1000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "week": 604_800_000}
EXAMPLE = 'write for example "1 day", "2 weeks"'


def milliseconds(text: str) -> int:
    """Return how long `text` lasts; raises ValueError where it is no whole number of one unit."""
    match = re.fullmatch(rf"([1-9][0-9]*) ({'|'.join(UNIT_MS)})s?", text)
    if match is None:
        raise ValueError(f"{text!r} is no duration: {EXAMPLE}")
    return int(match[1]) * UNIT_MS[match[2]]


def _checked(text: str) -> str:
    milliseconds(text)
    return text


Duration = Annotated[str, AfterValidator(_checked)]
