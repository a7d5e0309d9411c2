"""Local clocks, at the days on which they change."""

from datetime import UTC, datetime

import numpy as np
import pytest

from producers.flights.data_set import Clocks, minutes_since_midnight

ZONES = ["America/New_York", "Pacific/Honolulu", "America/Puerto_Rico", "America/Phoenix"]


@pytest.fixture(scope="module")
def clocks() -> Clocks:
    return Clocks(ZONES, datetime(2012, 12, 30, tzinfo=UTC), datetime(2014, 1, 3, tzinfo=UTC))


def minutes(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp()) // 60


def showing(clocks: Clocks, hhmm: int, zone: str, after: str) -> str:
    columns = (np.array([value]) for value in (hhmm, ZONES.index(zone), minutes(after)))
    clock, index, start = columns
    found = clocks.first_showing(minutes_since_midnight(clock), index, start)
    return datetime.fromtimestamp(int(found[0]) * 60, UTC).isoformat()


@pytest.mark.parametrize(
    ("hhmm", "zone", "after", "expected"),
    [
        (1430, "America/New_York", "2013-01-01T15:00Z", "2013-01-01T19:30:00+00:00"),
        (1430, "America/New_York", "2013-07-01T15:00Z", "2013-07-01T18:30:00+00:00"),
        (30, "America/New_York", "2013-01-02T03:00Z", "2013-01-02T05:30:00+00:00"),
        (2400, "America/New_York", "2013-01-02T03:00Z", "2013-01-02T05:00:00+00:00"),
        (1000, "America/New_York", "2013-01-01T15:00Z", "2013-01-02T15:00:00+00:00"),
        # The clock goes from 02:00 EST to 03:00 EDT at 07:00 UTC, and from 02:00 EDT to 01:00 EST at 06:00 UTC.
        (330, "America/New_York", "2013-03-10T06:00Z", "2013-03-10T07:30:00+00:00"),
        (230, "America/New_York", "2013-11-03T05:00Z", "2013-11-03T07:30:00+00:00"),
        (1430, "Pacific/Honolulu", "2013-07-01T14:00Z", "2013-07-02T00:30:00+00:00"),
        (1430, "America/Puerto_Rico", "2013-07-01T14:00Z", "2013-07-01T18:30:00+00:00"),
        (1430, "America/Phoenix", "2013-07-01T14:00Z", "2013-07-01T21:30:00+00:00"),
    ],
)
def test_the_first_time_at_which_a_clock_shows_an_hour(
    clocks: Clocks, hhmm: int, zone: str, after: str, expected: str
) -> None:
    assert showing(clocks, hhmm, zone, after) == expected


def test_a_time_outside_the_range_is_an_error_not_a_guess(clocks: Clocks) -> None:
    with pytest.raises(IndexError):
        clocks.offset(np.array([0]), np.array([minutes("2015-01-01T00:00Z")]))
