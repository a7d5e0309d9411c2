"""overdue: departures that did not arrive by their deadline, in a batch and by state and timers."""

from collections.abc import Sequence
from typing import Any

import pytest
from chispa import assert_df_equality
from pyspark.sql import DataFrame, SparkSession

from jobs.flights.overdue import overdue
from tests.jobs.feed import Feed, Row, Rows

FLIGHT = "flight_id string, carrier string, flight int, tail_number string, origin string, destination string"
DEPARTURES = f"{FLIGHT}, departed_at timestamp, scheduled_arrival_at timestamp"
ARRIVALS = f"{FLIGHT}, arrived_at timestamp"
OVERDUE = f"{DEPARTURES}, overdue_at timestamp"


def flight(flight_id: str, destination: str = "IAH", tail_number: str | None = "N14228") -> Row:
    return (flight_id, "UA", 1545, tail_number, "EWR", destination)


def left(flight_id: str, at: str = "01 10:00", due: str | None = "01 13:00", **more: Any) -> Row:
    return (*flight(flight_id, **more), f"2013-01-{at}", due and f"2013-01-{due}")


def arrived(flight_id: str, at: str, **more: Any) -> Row:
    return (*flight(flight_id, **more), f"2013-01-{at}")


# A flight in time, so long after the others that it moves the watermark past all of their deadlines.
LATER = left("later", at="03 10:00", due="03 13:00"), arrived("later", at="03 13:00")


def told(feed: Feed, departures: Sequence[Rows], arrivals: Sequence[Rows]) -> DataFrame:
    return feed.table(overdue(feed.rows(DEPARTURES, *departures), feed.rows(ARRIVALS, *arrivals)))


def told_ids(feed: Feed, departures: Sequence[Rows], arrivals: Sequence[Rows]) -> list[str]:
    return sorted(row.flight_id for row in told(feed, departures, arrivals).collect())


def test_late_and_missing_flights_are_told_and_punctual_ones_are_not(rocksdb_feed: Feed) -> None:
    departures = [[left("punctual"), left("late"), left("missing", tail_number=None)], [LATER[0]]]
    arrivals = [[arrived("punctual", "01 13:30"), arrived("late", "01 13:31")], [LATER[1]]]
    expected = [
        (*left("late"), "2013-01-01 13:30"),
        (*left("missing", tail_number=None), "2013-01-01 13:30"),
    ]
    actual = told(rocksdb_feed, departures, arrivals)
    assert_df_equality(actual, rocksdb_feed.batch(OVERDUE, expected), ignore_row_order=True, ignore_nullable=True)


def test_reports_may_come_in_any_order_and_in_any_micro_batch(rocksdb_feed: Feed) -> None:
    departures = [[left("a"), left("b"), left("c")], [], [left("d"), left("e", due="01 10:30")], [LATER[0]]]
    arrivals = [
        [arrived("d", "01 13:20"), arrived("e", "01 11:01")],
        [arrived("a", "01 13:20"), arrived("b", "01 13:40")],
        [],
        [LATER[1]],
    ]
    assert told_ids(rocksdb_feed, departures, arrivals) == ["b", "c", "e"]


def test_an_arrival_without_a_departure_is_not_told(rocksdb_feed: Feed) -> None:
    assert told_ids(rocksdb_feed, [[], [LATER[0]]], [[arrived("a", "01 20:00")], [LATER[1]]]) == []


def test_a_flight_without_a_timetable_has_no_deadline(rocksdb_feed: Feed) -> None:
    assert told_ids(rocksdb_feed, [[left("a", due=None)], [LATER[0]]], [[], [LATER[1]]]) == []


def test_a_repeated_departure_is_not_waited_for_again(rocksdb_feed: Feed) -> None:
    departures = [[left("a"), left("a"), left("b")], [left("a"), left("b")], [LATER[0]]]
    arrivals = [[arrived("a", "01 13:00"), arrived("b", "01 14:00")], [arrived("a", "01 13:00")], [LATER[1]]]
    assert told_ids(rocksdb_feed, departures, arrivals) == ["b"]


def test_destinations_do_not_mix(rocksdb_feed: Feed) -> None:
    departures = [[left("a", destination="IAH"), left("b", destination="MIA")], [LATER[0]]]
    arrivals = [[arrived("a", "01 13:00", destination="IAH")], [LATER[1]]]
    assert told_ids(rocksdb_feed, departures, arrivals) == ["b"]


@pytest.mark.slow
def test_nothing_is_told_while_one_topic_is_behind(rocksdb_stream: Feed) -> None:
    departures = [[left("a")], [LATER[0]], [left("b", at="03 10:00", due="03 13:00")]]
    silent: Sequence[Rows] = [[arrived("z", "01 10:30")], [], []]
    assert told_ids(rocksdb_stream, departures, silent) == []


@pytest.mark.slow
def test_an_arrival_that_is_read_half_an_hour_too_late_is_dropped(rocksdb_stream: Feed) -> None:
    departures = [[left("a"), LATER[0]], [], []]
    arrivals: Sequence[Rows] = [[LATER[1]], [], [arrived("a", "01 13:00")]]
    assert told_ids(rocksdb_stream, departures, arrivals) == ["a"]
    assert rocksdb_stream.late == 1


@pytest.mark.slow
def test_a_repeated_arrival_does_not_keep_a_departure_waiting_that_the_first_one_has_met(rocksdb_stream: Feed) -> None:
    departures = [[left("a"), left("b"), LATER[0]], []]
    arrivals: Sequence[Rows] = [[LATER[1]], [arrived("a", "01 13:00"), arrived("a", "01 13:00")]]
    assert told_ids(rocksdb_stream, departures, arrivals) == ["b"]


@pytest.mark.exhaustive
def test_state_and_timers_are_gone_when_all_deadlines_have_passed(rocksdb_stream: Feed, spark: SparkSession) -> None:
    departures = [[left("punctual"), left("late"), left("missing")], [left("second")], [LATER[0]]]
    arrivals = [
        [arrived("late", "01 13:31"), arrived("second", "01 12:00")],
        [arrived("punctual", "01 13:30"), arrived("stray", "01 13:00")],
        [LATER[1]],
    ]
    assert told_ids(rocksdb_stream, departures, arrivals) == ["late", "missing"]
    state = spark.read.format("statestore").option("path", rocksdb_stream.checkpoint)
    assert state.option("stateVarName", "waiting").load().count() == 0
    timers = spark.read.format("statestore").option("path", rocksdb_stream.checkpoint)
    assert timers.option("readRegisteredTimers", True).load().count() == 0
