"""Windows and lateness of a stream's plan, and how far its rows lie from the events that they are made of."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.event_time import UNKNOWN, EventTimeSpan, TimeWindow, event_time_span, time_windows

MINUTE, HOUR, NONE = timedelta(minutes=1), timedelta(hours=1), timedelta(0)


@pytest.fixture(scope="module")
def minutely(ticks: DataFrame) -> DataFrame:
    return ticks.withWatermark("timestamp", "1 minute")


@pytest.mark.parametrize(
    ("grouping", "windows"),
    [
        (lambda: [F.window("timestamp", "1 hour"), "value"], [TimeWindow(HOUR, HOUR)]),
        (lambda: [F.window("timestamp", "1 day", "1 day", "5 hours")], [TimeWindow(24 * HOUR, 24 * HOUR)]),
        (lambda: [F.window("timestamp", "3 hours", "30 minutes")], [TimeWindow(3 * HOUR, HOUR / 2)]),
        (lambda: [F.window("timestamp", "1 hour", "40 minutes")], [TimeWindow(HOUR, HOUR * 2 / 3)]),
        (lambda: [F.session_window("timestamp", "30 minutes")], [TimeWindow(UNKNOWN, UNKNOWN)]),
        (lambda: ["value"], []),
    ],
)
def test_windows_and_how_far_they_reach(
    grouping: Callable[[], list[Any]], windows: list[TimeWindow], minutely: DataFrame
) -> None:
    frame = minutely.groupBy(*grouping()).count()
    assert list(time_windows(frame.where("count > 1"))) == windows
    length = windows[0].length if windows else NONE
    assert event_time_span(frame) == EventTimeSpan(length, NONE, length + MINUTE)


def test_windows_of_windows_reach_as_far_as_both_and_a_join_as_far_as_lateness(minutely: DataFrame) -> None:
    inner = minutely.groupBy(F.window("timestamp", "10 minutes")).count()
    outer = inner.groupBy(F.window(F.window_time("window"), "1 hour")).count()
    assert event_time_span(outer) == EventTimeSpan(70 * MINUTE, NONE, 71 * MINUTE)
    joined = minutely.alias("a").join(minutely.alias("b"), F.expr("a.value = b.value"))
    assert event_time_span(joined) == EventTimeSpan(NONE, 2 * MINUTE, 2 * MINUTE)
