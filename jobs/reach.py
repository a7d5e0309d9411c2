"""How far an event reaches: which rows of an output it may change, and what else those rows are made of.

Read off the plan of a stream. What Spark does not say there (how long a session grows, what a processor of one's own
remembers) is taken for a day.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from py4j.java_gateway import get_field  # type: ignore[import-untyped]
from pyspark.sql import DataFrame

from jobs.plans import analyzed, is_stateful, nodes

UNKNOWN = timedelta(days=1)
# A tumbling or sliding window, as the analyzer writes it: microseconds, of the slide and of the window.
WINDOW_MICROSECONDS = re.compile(r"[%+] (\d{4,})\)")
SESSION = "session_window"
OPEN_ENDED = ("FlatMapGroupsWithState", "FlatMapGroupsInPandasWithState", "TransformWithState")


@dataclass(frozen=True)
class Reach:
    """Of the events of a query.

    Args:
        back: a row may be told by an event time this much before that of an event it is made of: a window's start.
        ahead: or by one this much after it: a join's other side.
        context: a row is whole once all events this much before and after its event time are read.
    """

    back: timedelta = timedelta(0)
    ahead: timedelta = timedelta(0)
    context: timedelta = timedelta(0)


def reach(frame: DataFrame) -> Reach:
    """The reach of the events that the stream `frame` is made of; none of a query without watermark."""
    windows = delays = timedelta(0)
    joined = False
    for node in nodes(analyzed(frame)):
        name, text = str(node.nodeName()), ""
        if name == "EventTimeWatermark":
            delays += _delay(node)
        elif name in ("Project", "Expand", "Window"):
            text = str(node.expressions().mkString(", "))
        elif name.startswith(OPEN_ENDED):
            windows += UNKNOWN
        joined = joined or (name == "Join" and is_stateful(node))
        windows += _longest(text)
    return Reach(windows, delays if joined else timedelta(0), windows + delays)


def _delay(node: Any) -> timedelta:
    interval = node.delay()
    days = int(get_field(interval, "days")) + 31 * int(get_field(interval, "months"))
    return timedelta(days=days, microseconds=int(get_field(interval, "microseconds")))


def _longest(text: str) -> timedelta:
    if SESSION in text:
        return UNKNOWN
    if "precisetimestampconversion" not in text:
        return timedelta(0)
    found = [int(number) for number in WINDOW_MICROSECONDS.findall(text)]
    return timedelta(microseconds=max(found, default=0))
