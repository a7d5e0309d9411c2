"""Every job on auctions says the same however it is run: in one batch, as a stream, killed, replayed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conf.settings import Settings
from jobs.auctions import everything
from producers.auctions import AuctionHouse, publish_auctions
from producers.kafka.pacing import Interrupt, Pace
from producers.transfers import Bank, publish_transfers
from tests.equivalence import Equivalence

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(1800)]

COUNT = 6_000
# Ten minutes of event time, out of order by up to two seconds, which is less than any job waits; fifty, where a replay
# reads half an hour around a row. Twenty seconds, where a job waits for ten: hot auctions fill one partition after
# another, so that parts of one are read far behind the others. The first of two windows closes at the end.
EVENTS_PER_SECOND = {"auctions.local_sellers": 2.0, "auctions.bid_counts": 280.0}
# The clock that auctions.bids_by_arrival asks stands still, or no two runs would say the same.
CLOCK = "quarantine.as_of=2025-01-02T00:00:00Z"
CHAINED = ("auctions.category_prices", "auctions.seller_prices")
BEGAN = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("job", [job for job in everything.JOBS if job not in CHAINED])
def test_a_job_on_auctions_is_the_same_however_it_is_run(job: str, equivalence: Equivalence) -> None:
    def publish(settings: Settings) -> None:
        house = AuctionHouse(14, EVENTS_PER_SECOND.get(job, 10.0), disorder_ms=2_000)
        publish_auctions(settings, house, COUNT, Pace(), Interrupt()).require_complete()
        publish_transfers(settings, Bank(14), COUNT, Interrupt()).require_complete()

    equivalence.publish_by(publish)
    equivalence.check(job, CLOCK)


@pytest.mark.parametrize("job", CHAINED)
def test_a_job_on_winning_bids_is_the_same_however_it_is_run(job: str, equivalence: Equivalence) -> None:
    equivalence.publish("winning_bids", [winning_bid(number) for number in range(COUNT)])
    equivalence.check(job)


def winning_bid(number: int) -> dict[str, Any]:
    opened_at = BEGAN + timedelta(seconds=number)
    bid = {"bidder": 1000, "price": number * 7_919 % 1_000 + 1, "bid_at": opened_at}
    auction = {"auction": number, "item": "vase", "category": 10 + number % 5, "seller": number % 23}
    return auction | bid | {"opened_at": opened_at, "expires_at": opened_at + timedelta(seconds=number * 31 % 60)}
