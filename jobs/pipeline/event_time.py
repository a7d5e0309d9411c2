"""Finds the windows and lateness of a query in its plan, and how far its rows lie from the events they are made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pyspark.sql import DataFrame

from jobs.connectors.spark_internals import analyzed_plan, interval_parts, listed, nodes
from jobs.pipeline.plan_analysis import SESSION_MARK, WATERMARK, WINDOW_MARK, is_stateful

UNKNOWN = timedelta(days=1)  # the length of a session, or of what a processor of the job's own waits for
OPEN_ENDED = ("FlatMapGroupsWithState", "FlatMapGroupsInPandasWithState", "TransformWithState")


@dataclass(frozen=True)
class TimeWindow:
    """A window of event time that a node of the plan puts rows into; a session's length and slide are UNKNOWN."""

    length: timedelta
    slide: timedelta


@dataclass(frozen=True)
class EventTimeSpan:
    """How far the event times of a query's rows are from those of the events that the rows are made of.

    Args:
        back: a row's event time may be this much earlier than that of an event it is made of: a window's start.
        ahead: or this much later: a join's other side.
        context: a row is whole once all events this much before and after its event time are read.
    """

    back: timedelta = timedelta(0)
    ahead: timedelta = timedelta(0)
    context: timedelta = timedelta(0)


def event_time_span(frame: DataFrame) -> EventTimeSpan:
    """Return the span of the stream `frame`, from its windows, its lateness and its joins; zero without a watermark."""
    windows = lateness = timedelta(0)
    joined = False
    for node in nodes(analyzed_plan(frame)):
        name = str(node.nodeName())
        if name == WATERMARK:
            lateness += _lateness(node)
        elif name.startswith(OPEN_ENDED):
            windows += UNKNOWN
        windows += max((window.length for window in _windows_of(node)), default=timedelta(0))
        joined = joined or (name == "Join" and is_stateful(node))
    return EventTimeSpan(windows, lateness if joined else timedelta(0), windows + lateness)


def _lateness(node: Any) -> timedelta:
    months, days, microseconds = interval_parts(node.delay())
    return timedelta(days=days + 31 * months, microseconds=microseconds)


def time_windows(frame: DataFrame) -> tuple[TimeWindow, ...]:
    """Return the windows that a stream's rows are put into, the last of the plan first."""
    return tuple(window for node in nodes(analyzed_plan(frame)) for window in _windows_of(node))


def _windows_of(node: Any) -> Iterator[TimeWindow]:
    """Yield the windows that a node makes: columns with a mark of Spark's, and a struct of start and end."""
    if str(node.nodeName()) == "Project":
        aliases = [named for named in listed(node.projectList()) if str(named.nodeName()) == "Alias"]
        columns = [(alias, alias.child()) for alias in aliases]
    elif str(node.nodeName()) == "Expand":
        columns = list(zip(listed(node.output()), listed(node.projections().head()), strict=True))
    else:
        return
    for named, made in columns:
        if str(made.nodeName()) == "CreateNamedStruct" and named.metadata().contains(SESSION_MARK):
            yield TimeWindow(UNKNOWN, UNKNOWN)
        elif str(made.nodeName()) == "CreateNamedStruct" and named.metadata().contains(WINDOW_MARK):
            yield _time_window(made)


def _time_window(struct: Any) -> TimeWindow:
    """Return the window that the analyzer has replaced by its arithmetic, on microseconds.

    The end is `start + length`; the start is `(time - CASE ... ELSE (time - offset) % slide END) - number * slide`.
    """
    start, end = listed(struct.valExprs())
    length = _first_of_kind(end, "Add").right().value()
    slide = _first_of_kind(start, "Subtract").left().right().elseValue().get().right().value()
    return TimeWindow(timedelta(microseconds=int(length)), timedelta(microseconds=int(slide)))


def _first_of_kind(expression: Any, kind: str) -> Any:
    """Return the nearest expression of that kind on the way down the first children."""
    while str(expression.nodeName()) != kind:
        expression = expression.children().head()
    return expression
