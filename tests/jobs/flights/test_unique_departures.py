"""unique_departures: every departure once, in the columns of its contract."""

import json
from collections.abc import Sequence

import pytest
from chispa import assert_df_equality

from jobs.flights.unique_departures import COLUMNS, unique_departures
from schemas.contracts import contract
from tests.jobs.feed import Feed, Row, Rows

DEPARTURES = (
    "flight_id string, carrier string, flight int, tail_number string, origin string, destination string, "
    "scheduled_departure_at timestamp, departed_at timestamp, delay_minutes int, scheduled_arrival_at timestamp, "
    "distance_miles int"
)


def departure(flight_id: str, departed_at: str, tail_number: str | None = "N14228") -> Row:
    timetable = ("2013-01-01 10:15", departed_at, 2, "2013-01-01 13:19", 1400)
    return (flight_id, "UA", 1545, tail_number, "EWR", "IAH", *timetable)


def check(feed: Feed, departures: Sequence[Rows], unique: Rows) -> None:
    actual = feed.table(unique_departures(feed.rows(DEPARTURES, *departures)))
    assert_df_equality(actual, feed.batch(DEPARTURES, unique), ignore_row_order=True, ignore_nullable=True)


def test_the_columns_are_those_of_the_contract() -> None:
    assert list(COLUMNS) == [field["name"] for field in json.loads(contract("departure"))["fields"]]


def test_a_repeat_is_dropped_in_its_own_and_in_a_later_micro_batch(feed: Feed) -> None:
    one, other = departure("a", "2013-01-01 10:17"), departure("b", "2013-01-01 10:17")
    check(feed, [[one, one, other], [one], [other]], [one, other])


def test_a_missing_tail_number_stays_missing(feed: Feed) -> None:
    unknown = departure("a", "2013-01-01 10:17", tail_number=None)
    check(feed, [[unknown], [unknown]], [unknown])


@pytest.mark.slow
def test_a_repeat_that_comes_after_its_key_was_forgotten_is_dropped_as_late(stream: Feed) -> None:
    first, tomorrow = departure("a", "2013-01-01 10:17"), departure("b", "2013-01-02 10:18")
    check(
        stream,
        [[first], [tomorrow], [departure("c", "2013-01-02 10:19")], [first]],
        [first, tomorrow, departure("c", "2013-01-02 10:19")],
    )
    assert stream.late == 1


def test_a_departure_within_a_day_is_not_late(stream: Feed) -> None:
    yesterday = departure("old", "2013-01-01 10:19")
    today = [departure("a", "2013-01-02 10:18"), departure("b", "2013-01-02 10:18")]
    check(stream, [today[:1], today[1:], [yesterday]], [*today, yesterday])
    assert stream.late == 0
