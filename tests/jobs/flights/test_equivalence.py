"""Every job on flights says the same however it is run: in one batch, as a stream, killed, replayed."""

from datetime import date, timedelta

import pytest

from conf.settings import Settings
from producers.flights.publish import Disorder, publish_flights
from producers.kafka.pacing import Interrupt, Pace
from tests.equivalence import Equivalence, Publish

FIRST = date(2013, 3, 9)  # daylight saving time begins on the second day
DAYS = 2


def days(first: int, end: int) -> Publish:
    """Publishes some days of flights, out of order by up to 20 minutes, one in twenty twice."""

    def publish(settings: Settings) -> None:
        disorder = Disorder(first, delay_ms=20 * 60_000, duplicates=0.05)
        start, stop = (FIRST + timedelta(days=number) for number in (first, end))
        publish_flights(settings, start, stop, Pace(), disorder, Interrupt())

    return publish


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "job",
    [
        # tests/test_equivalence.py has one that aggregates, for each change.
        pytest.param("flights.overdue", marks=pytest.mark.exhaustive),
        pytest.param("flights.everything", marks=pytest.mark.exhaustive),
    ],
)
def test_flights_are_the_same_however_they_are_run(job: str, equivalence: Equivalence) -> None:
    equivalence.publish_by(days(0, 1), days(1, DAYS))
    equivalence.check(job)
