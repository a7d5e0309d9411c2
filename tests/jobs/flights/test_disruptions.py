"""disruptions: session windows of delayed departures per airport."""

from collections.abc import Sequence

import pytest
from chispa import assert_df_equality

from jobs.flights.disruptions import MIN_DEPARTURES, disruptions
from tests.jobs.feed import Feed, Row, Rows

DEPARTURES = "flight_id string, departed_at timestamp, origin string, delay_minutes int"
SESSIONS = (
    "airport string, began_at timestamp, ended_at timestamp, departures long, mean_delay_minutes double, "
    "max_delay_minutes int"
)
# Punctual, and long after all others: it closes their sessions.
LATER = [("later", "2013-01-02 00:00", "EWR", 0)]


def check(feed: Feed, departures: Sequence[Rows], sessions: Rows) -> None:
    actual = feed.table(disruptions(feed.rows(DEPARTURES, *departures, LATER)))
    assert_df_equality(actual, feed.batch(SESSIONS, sessions), ignore_row_order=True, ignore_nullable=True)


def at(*minutes: int, origin: str = "EWR", delay: int = 40, hour: int = 10) -> list[Row]:
    """Departures at these minutes after the full hour, each a flight of its own."""
    return [
        (f"{origin}{hour}{minute}", f"2013-01-01 {hour + minute // 60}:{minute % 60:02}", origin, delay)
        for minute in minutes
    ]


def test_five_delayed_departures_in_a_row_make_a_disruption(feed: Feed) -> None:
    departures = [*at(0, 10, 20, 30), ("worst", "2013-01-01 10:40", "EWR", 90)]
    check(feed, [departures], [("EWR", "2013-01-01 10:00", "2013-01-01 10:40", 5, 50.0, 90)])


def test_four_are_too_few(feed: Feed) -> None:
    assert MIN_DEPARTURES == 5
    check(feed, [at(0, 10, 20, 30)], [])


def test_twenty_nine_minutes_are_no_long_delay_and_thirty_are(feed: Feed) -> None:
    departures = [at(0, 10, 20, 30), at(40, delay=29)]
    thirty = [at(0, 10, 20, 30, origin="JFK"), at(40, delay=30, origin="JFK")]
    expected = [("JFK", "2013-01-01 10:00", "2013-01-01 10:40", 5, 38.0, 40)]
    check(feed, [[row for rows in (*departures, *thirty) for row in rows]], expected)


def test_a_gap_of_half_an_hour_joins_and_a_minute_more_parts(feed: Feed) -> None:
    departures = [*at(0, 10, 20, 30, 60), *at(0, 10, 20, 30, 61, origin="JFK")]
    check(feed, [departures], [("EWR", "2013-01-01 10:00", "2013-01-01 11:00", 5, 40.0, 40)])


def test_airports_are_disrupted_each_for_itself(feed: Feed) -> None:
    departures = [*at(0, 5, 10, 15, 20), *at(0, 5, 10, 15, 20, origin="JFK"), *at(7, 8, 9, 10, origin="LGA")]
    sessions = [
        ("EWR", "2013-01-01 10:00", "2013-01-01 10:20", 5, 40.0, 40),
        ("JFK", "2013-01-01 10:00", "2013-01-01 10:20", 5, 40.0, 40),
    ]
    check(feed, [departures], sessions)


def test_repeats_do_not_make_up_the_number(feed: Feed) -> None:
    four = at(0, 10, 20, 30)
    check(feed, [[*four, four[0]], [four[3]]], [])


def test_a_late_departure_joins_two_runs_into_one(feed: Feed) -> None:
    departures = [at(0, 10, 20), at(65, 75), at(42)]
    check(feed, departures, [("EWR", "2013-01-01 10:00", "2013-01-01 11:15", 6, 40.0, 40)])


@pytest.mark.slow
def test_a_session_that_the_watermark_has_not_passed_is_not_told(stream: Feed) -> None:
    # It ends at 10:50, the watermark after the last batch is 10:49.
    departures = [at(0, 5, 10, 15, 20), [("later", "2013-01-01 11:49", "JFK", 30)]]
    told = stream.table(disruptions(stream.rows(DEPARTURES, *departures)))
    assert told.count() == 0
    departures = [at(0, 5, 10, 15, 20), [("later", "2013-01-01 11:50", "JFK", 30)]]
    told = stream.table(disruptions(stream.rows(DEPARTURES, *departures)))
    assert told.count() == 1


@pytest.mark.slow
def test_a_departure_more_than_an_hour_late_is_dropped(stream: Feed) -> None:
    departures = [at(0, 5, 10, 15), [("later", "2013-01-01 12:00", "JFK", 30)], [], at(20)]
    check(stream, departures, [])
    assert stream.late == 1
