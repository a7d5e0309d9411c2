"""rolling_delays: sliding windows per origin."""

from collections.abc import Sequence

from chispa import assert_df_equality

from jobs.flights.rolling_delays import KEYS, rolling_delays
from tests.jobs.feed import Feed, Rows

DEPARTURES = "flight_id string, departed_at timestamp, origin string, delay_minutes int"
WINDOWS = (
    "window_start timestamp, window_end timestamp, origin string, departures long, delayed long, "
    "mean_delay_minutes double, max_delay_minutes int"
)


def check(feed: Feed, departures: Sequence[Rows], windows: Rows) -> None:
    actual = feed.table(rolling_delays(feed.rows(DEPARTURES, *departures)), *KEYS)
    assert_df_equality(actual, feed.batch(WINDOWS, windows), ignore_row_order=True, ignore_nullable=True)


def test_a_departure_counts_in_the_six_windows_that_hold_it(feed: Feed) -> None:
    windows = [
        ("2013-01-01 07:30", "2013-01-01 10:30", "EWR", 1, 1, 20.0, 20),
        ("2013-01-01 08:00", "2013-01-01 11:00", "EWR", 1, 1, 20.0, 20),
        ("2013-01-01 08:30", "2013-01-01 11:30", "EWR", 1, 1, 20.0, 20),
        ("2013-01-01 09:00", "2013-01-01 12:00", "EWR", 1, 1, 20.0, 20),
        ("2013-01-01 09:30", "2013-01-01 12:30", "EWR", 1, 1, 20.0, 20),
        ("2013-01-01 10:00", "2013-01-01 13:00", "EWR", 1, 1, 20.0, 20),
    ]
    check(feed, [[("a", "2013-01-01 10:00", "EWR", 20)]], windows)


def test_a_window_leaves_out_its_end_and_adds_up_over_micro_batches(feed: Feed) -> None:
    departures = [[("a", "2013-01-01 10:00", "EWR", 0)], [("b", "2013-01-01 12:59", "EWR", 30)]]
    actual = feed.table(rolling_delays(feed.rows(DEPARTURES, *departures)), *KEYS)
    around = actual.where("window_start in ('2013-01-01 09:30', '2013-01-01 10:00', '2013-01-01 10:30')")
    expected = [
        ("2013-01-01 09:30", "2013-01-01 12:30", "EWR", 1, 0, 0.0, 0),
        ("2013-01-01 10:00", "2013-01-01 13:00", "EWR", 2, 1, 15.0, 30),
        ("2013-01-01 10:30", "2013-01-01 13:30", "EWR", 1, 1, 30.0, 30),
    ]
    assert_df_equality(around, feed.batch(WINDOWS, expected), ignore_row_order=True, ignore_nullable=True)


def test_airports_have_windows_of_their_own_and_repeats_count_once(feed: Feed) -> None:
    again = ("a", "2013-01-01 10:00", "EWR", 4)
    departures = [[again, ("b", "2013-01-01 10:00", "LGA", 6)], [again]]
    actual = feed.table(rolling_delays(feed.rows(DEPARTURES, *departures)), *KEYS)
    latest = actual.where("window_start = '2013-01-01 10:00'")
    expected = [
        ("2013-01-01 10:00", "2013-01-01 13:00", "EWR", 1, 0, 4.0, 4),
        ("2013-01-01 10:00", "2013-01-01 13:00", "LGA", 1, 0, 6.0, 6),
    ]
    assert_df_equality(latest, feed.batch(WINDOWS, expected), ignore_row_order=True, ignore_nullable=True)


def test_a_departure_more_than_three_hours_late_is_dropped(stream: Feed) -> None:
    departures = [
        [("a", "2013-01-01 13:30", "EWR", 0)],
        [("b", "2013-01-01 13:40", "EWR", 0)],
        [("late", "2013-01-01 10:29", "EWR", 99)],
    ]
    actual = stream.table(rolling_delays(stream.rows(DEPARTURES, *departures)), *KEYS)
    assert stream.late == 1
    assert actual.where("max_delay_minutes = 99").count() == 0
    assert actual.where("departures = 2").count() == 6
