"""Every job on flights says the same however it is run: in one batch, as a stream, killed, replayed."""

from datetime import date, timedelta

import pytest

from conf.settings import Settings
from producers.interrupt import Interrupt
from producers.pacing import Pace
from producers.publish_flights import Disorder, publish_flights
from tests.equivalence import Equivalence, Publish

FIRST = date(2013, 3, 8)  # daylight saving time begins on the third day
DAYS = 3


def days(first: int, end: int) -> Publish:
    """Publishes some days of flights, out of order by up to 20 minutes, one in twenty twice."""

    def publish(settings: Settings) -> None:
        disorder = Disorder(first, delay_ms=20 * 60_000, duplicates=0.05)
        start, stop = (FIRST + timedelta(days=number) for number in (first, end))
        publish_flights(settings, start, stop, Pace(), disorder, Interrupt())

    return publish


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_flights_are_the_same_however_they_are_run(equivalence: Equivalence) -> None:
    equivalence.publish_by(days(0, 2), days(2, DAYS))
    equivalence.check("flights.everything")
