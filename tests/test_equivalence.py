"""The plug-in as it is used for a job of one's own, and that it fails where a job is not the same."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.equivalence import Equivalence

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

JOB = "flights.hourly_delays"
BEGAN = datetime(2013, 1, 1, 10, tzinfo=UTC)


def departure(number: int, minute: int) -> dict[str, Any]:
    at = BEGAN + timedelta(minutes=minute)
    carrier, origin = ("AA", "UA")[number % 2], ("JFK", "EWR", "LGA")[number % 3]
    return {
        "flight_id": f"{carrier}{number + 1}-{origin}-{at:%Y%m%dT%H%MZ}",
        "carrier": carrier,
        "flight": number + 1,
        "tail_number": None,
        "origin": origin,
        "destination": "SFO",
        "scheduled_departure_at": at - timedelta(minutes=number % 40),
        "departed_at": at,
        "delay_minutes": number % 40,
        "scheduled_arrival_at": None,
        "distance_miles": 2586,
    }


def departures() -> Iterator[dict[str, Any]]:
    """One every five minutes of a day and a half, each tenth twice."""
    for number in range(430):
        yield departure(number, 5 * number)
        if number % 10 == 0:
            yield departure(number, 5 * number)


def test_a_job_is_the_same_however_it_is_run(equivalence: Equivalence) -> None:
    equivalence.publish("departures", list(departures()))
    equivalence.check(JOB)


@pytest.mark.exhaustive
def test_a_job_that_drops_what_a_batch_keeps_is_found(equivalence: Equivalence) -> None:
    equivalence.publish("departures", list(departures()))
    # A day late, for a job that waits for three hours.
    equivalence.publish("departures", [departure(1001, 60), departure(1002, 61), departure(1003, 62)])
    with pytest.raises(AssertionError, match=r"hourly_delays of a stream in random .*: 3 rows .* too late: 3"):
        equivalence.check(JOB)
