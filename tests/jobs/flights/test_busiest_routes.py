"""busiest_routes: the top ten of every day by the clock in New York."""

from collections.abc import Sequence

import pytest
from chispa import assert_df_equality

from jobs.flights.busiest_routes import TOP, busiest_routes
from tests.jobs.feed import Feed, Row, Rows

DEPARTURES = "flight_id string, departed_at timestamp, origin string, destination string"
ROUTES = "day date, rank int, origin string, destination string, departures long"
# Closes every day of 2013.
LATER = ("later", "2014-02-01 12:00", "ZZZ", "ZZZ")


def check(feed: Feed, departures: Sequence[Rows], routes: Rows) -> None:
    ranked = feed.table(busiest_routes(feed.rows(DEPARTURES, *departures, [LATER])))
    actual = ranked.where("origin <> 'ZZZ'")
    assert_df_equality(actual, feed.batch(ROUTES, routes), ignore_row_order=True, ignore_nullable=True)


def flights(day: str, *times: str, route: tuple[str, str] = ("JFK", "LAX")) -> list[Row]:
    return [(f"{route}{day}{time}", f"{day} {time}", *route) for time in times]


def test_more_departures_rank_first(feed: Feed) -> None:
    departures = [
        flights("2013-01-05", "15:00", route=("EWR", "ORD")),
        flights("2013-01-05", "15:00", "16:00", "17:00", route=("LGA", "ATL")),
        flights("2013-01-05", "15:00", "16:00", route=("JFK", "LAX")),
    ]
    routes = [
        ("2013-01-05", 1, "LGA", "ATL", 3),
        ("2013-01-05", 2, "JFK", "LAX", 2),
        ("2013-01-05", 3, "EWR", "ORD", 1),
    ]
    check(feed, departures, routes)


def test_equal_counts_rank_by_origin_then_by_destination(feed: Feed) -> None:
    ties = [("LGA", "ATL"), ("EWR", "SFO"), ("EWR", "ORD"), ("JFK", "LAX")]
    departures = [flight for route in ties for flight in flights("2013-01-05", "15:00", route=route)]
    routes = [
        ("2013-01-05", 1, "EWR", "ORD", 1),
        ("2013-01-05", 2, "EWR", "SFO", 1),
        ("2013-01-05", 3, "JFK", "LAX", 1),
        ("2013-01-05", 4, "LGA", "ATL", 1),
    ]
    check(feed, [departures], routes)


def test_the_eleventh_route_is_left_out(feed: Feed) -> None:
    assert TOP == 10
    destinations = "ABCDEFGHIJK"
    departures = [flight for name in destinations for flight in flights("2013-01-05", "15:00", route=("EWR", name))]
    check(feed, [departures], [("2013-01-05", place + 1, "EWR", destinations[place], 1) for place in range(10)])


def test_a_day_begins_and_ends_at_midnight_in_new_york(feed: Feed) -> None:
    departures = flights("2013-01-05", "04:59", "05:00") + flights("2013-01-06", "04:59", "05:00")
    routes = [
        ("2013-01-04", 1, "JFK", "LAX", 1),
        ("2013-01-05", 1, "JFK", "LAX", 2),
        ("2013-01-06", 1, "JFK", "LAX", 1),
    ]
    check(feed, [departures], routes)


def test_the_day_daylight_saving_begins_has_23_hours(feed: Feed) -> None:
    departures = flights("2013-03-10", "04:59", "05:00") + flights("2013-03-11", "03:59", "04:00")
    routes = [
        ("2013-03-09", 1, "JFK", "LAX", 1),
        ("2013-03-10", 1, "JFK", "LAX", 2),
        ("2013-03-11", 1, "JFK", "LAX", 1),
    ]
    check(feed, [departures], routes)


def test_the_day_daylight_saving_ends_has_25_hours(feed: Feed) -> None:
    departures = flights("2013-11-03", "03:59", "04:00", "05:30", "06:30") + flights("2013-11-04", "04:59", "05:00")
    routes = [
        ("2013-11-02", 1, "JFK", "LAX", 1),
        ("2013-11-03", 1, "JFK", "LAX", 4),
        ("2013-11-04", 1, "JFK", "LAX", 1),
    ]
    check(feed, [departures], routes)


def test_a_repeat_counts_once(feed: Feed) -> None:
    once = flights("2013-01-05", "15:00")
    check(feed, [once, once], [("2013-01-05", 1, "JFK", "LAX", 1)])


@pytest.mark.exhaustive
def test_a_day_is_not_told_before_the_watermark_has_passed_its_end(stream: Feed) -> None:
    # Midnight in New York is 05:00 UTC; three hours later the day of the 5th is closed.
    for last, days in (("2013-01-06 07:59", 0), ("2013-01-06 08:00", 1)):
        departures = [flights("2013-01-05", "15:00"), [("b", last, "EWR", "ORD")]]
        assert stream.table(busiest_routes(stream.rows(DEPARTURES, *departures))).count() == days


@pytest.mark.slow
def test_a_departure_three_hours_after_its_day_is_dropped(stream: Feed) -> None:
    early, late = flights("2013-01-05", "15:00"), flights("2013-01-05", "16:00")
    check(
        stream,
        [early, flights("2013-01-06", "08:01"), [], late],
        [("2013-01-05", 1, "JFK", "LAX", 1), ("2013-01-06", 1, "JFK", "LAX", 1)],
    )
    assert stream.late == 1
