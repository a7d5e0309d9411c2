"""hourly_delays: tumbling windows per origin and carrier."""

from collections.abc import Sequence

import pytest
from chispa import assert_df_equality

from jobs.flights.hourly_delays import KEYS, hourly_delays
from tests.jobs.feed import Feed, Rows

DEPARTURES = "flight_id string, departed_at timestamp, origin string, carrier string, delay_minutes int"
HOURS = (
    "hour timestamp, origin string, carrier string, departures long, delayed long, "
    "mean_delay_minutes double, max_delay_minutes int"
)


def check(feed: Feed, departures: Sequence[Rows], hours: Rows) -> None:
    actual = feed.table(hourly_delays(feed.rows(DEPARTURES, *departures)), *KEYS)
    assert_df_equality(actual, feed.batch(HOURS, hours), ignore_row_order=True, ignore_nullable=True)


def test_an_hour_begins_with_its_first_minute_and_ends_before_the_next(feed: Feed) -> None:
    departures = [
        [("a", "2013-01-01 10:00", "EWR", "UA", 0), ("b", "2013-01-01 10:59:59.999", "EWR", "UA", 4)],
        [("c", "2013-01-01 11:00", "EWR", "UA", 6)],
    ]
    hours = [
        ("2013-01-01 10:00", "EWR", "UA", 2, 0, 2.0, 4),
        ("2013-01-01 11:00", "EWR", "UA", 1, 0, 6.0, 6),
    ]
    check(feed, departures, hours)


def test_an_hour_adds_up_over_micro_batches(feed: Feed) -> None:
    departures = [[("a", "2013-01-01 10:05", "EWR", "UA", -4)], [("b", "2013-01-01 10:20", "EWR", "UA", 5)]]
    check(feed, departures, [("2013-01-01 10:00", "EWR", "UA", 2, 0, 0.5, 5)])


def test_airports_and_carriers_have_rows_of_their_own(feed: Feed) -> None:
    departures = [
        [
            ("a", "2013-01-01 10:05", "EWR", "UA", 1),
            ("b", "2013-01-01 10:05", "JFK", "UA", 2),
            ("c", "2013-01-01 10:05", "EWR", "B6", 3),
        ]
    ]
    hours = [
        ("2013-01-01 10:00", "EWR", "UA", 1, 0, 1.0, 1),
        ("2013-01-01 10:00", "JFK", "UA", 1, 0, 2.0, 2),
        ("2013-01-01 10:00", "EWR", "B6", 1, 0, 3.0, 3),
    ]
    check(feed, departures, hours)


def test_fifteen_minutes_count_as_delayed_fourteen_do_not(feed: Feed) -> None:
    departures = [[("a", "2013-01-01 10:05", "EWR", "UA", 14), ("b", "2013-01-01 10:06", "EWR", "UA", 15)]]
    check(feed, departures, [("2013-01-01 10:00", "EWR", "UA", 2, 1, 14.5, 15)])


def test_a_departure_that_is_reported_again_counts_once(feed: Feed) -> None:
    again = ("a", "2013-01-01 10:05", "EWR", "UA", 8)
    departures = [[again, again, ("b", "2013-01-01 10:20", "EWR", "UA", 2)], [again]]
    check(feed, departures, [("2013-01-01 10:00", "EWR", "UA", 2, 0, 5.0, 8)])


def test_the_hours_of_the_change_to_standard_time_stay_apart(feed: Feed) -> None:
    # 01:30 in New York, twice: at 05:30 UTC by daylight saving time, and an hour later.
    departures = [[("a", "2013-11-03 05:30", "JFK", "B6", 1), ("b", "2013-11-03 06:30", "JFK", "B6", 2)]]
    hours = [
        ("2013-11-03 05:00", "JFK", "B6", 1, 0, 1.0, 1),
        ("2013-11-03 06:00", "JFK", "B6", 1, 0, 2.0, 2),
    ]
    check(feed, departures, hours)


@pytest.mark.slow
def test_a_departure_counts_until_it_is_three_hours_late_and_not_after(stream: Feed) -> None:
    # Spark drops what is older than the watermark before the last: the one after the batch before the one before.
    departures = [
        [("a", "2013-01-01 13:30", "EWR", "UA", 1)],
        [("b", "2013-01-01 13:31", "EWR", "UA", 3)],
        [("within", "2013-01-01 10:31", "EWR", "UA", 5), ("late", "2013-01-01 10:29", "EWR", "UA", 99)],
    ]
    hours = [
        ("2013-01-01 13:00", "EWR", "UA", 2, 0, 2.0, 3),
        ("2013-01-01 10:00", "EWR", "UA", 1, 0, 5.0, 5),
    ]
    check(stream, departures, hours)
    assert stream.late == 1
