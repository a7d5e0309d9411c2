"""The model of the auction house: what comes how often, the same by each seed, whatever it is cut into."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from conf.topics import load_topics
from producers.auctions import BLOCK, FIRST_ID, HOT_BATCH, TOPICS, AuctionHouse, auction_blocks, auction_tables
from producers.kafka.pacing import Pace, Pacer
from producers.kafka.publisher import never
from producers.kafka.tables import encoded_batches, topic_encoders
from schemas.columnar import ColumnarEncoder
from schemas.contracts import contract

DECLARED = load_topics()


@pytest.fixture(scope="module")
def house() -> dict[str, pa.Table]:
    return auction_tables(AuctionHouse(seed=1), 2 * BLOCK)


def test_of_fifty_events_one_is_a_person_and_three_are_auctions(house: dict[str, pa.Table]) -> None:
    assert [house[topic].num_rows for topic in TOPICS] == [800, 2_400, 36_800]
    some = auction_tables(AuctionHouse(), 51)
    assert [some[topic].num_rows for topic in TOPICS] == [2, 3, 46]


def test_the_same_seed_gives_the_same_events_and_another_others(house: dict[str, pa.Table]) -> None:
    assert auction_tables(AuctionHouse(seed=1), 2 * BLOCK) == house
    for topic, table in auction_tables(AuctionHouse(seed=2), 2 * BLOCK).items():
        assert table != house[topic]


def test_a_longer_run_begins_with_a_shorter_one(house: dict[str, pa.Table]) -> None:
    for topic, table in auction_tables(AuctionHouse(seed=1), BLOCK + 1_234).items():
        assert table == house[topic].slice(0, table.num_rows)


def test_ids_count_up_and_half_of_all_bids_are_for_hot_auctions(house: dict[str, pa.Table]) -> None:
    assert house["persons"]["person"].to_pylist() == list(range(FIRST_ID, FIRST_ID + 800))
    assert house["auctions"]["auction"].to_pylist() == list(range(FIRST_ID, FIRST_ID + 2_400))
    hot_bids = (house["bids"]["auction"].to_numpy() - FIRST_ID) % HOT_BATCH == 0
    hot_bidders = (house["bids"]["bidder"].to_numpy() - FIRST_ID) % HOT_BATCH == 1
    assert 0.5 < hot_bids.mean() < 0.53
    assert 0.75 < hot_bidders.mean() < 0.78


def test_events_are_in_order_unless_disorder_is_asked_for(house: dict[str, pa.Table]) -> None:
    times = house["bids"]["bid_at"].cast(pa.int64()).to_numpy()
    assert (np.diff(times) >= 0).all()
    disturbed = auction_tables(AuctionHouse(seed=1, disorder_ms=500), 2 * BLOCK)
    late = disturbed["bids"]["bid_at"].cast(pa.int64()).to_numpy()
    assert 0 < (times - late).max() <= 500
    assert (times - late).min() == 0
    assert (np.diff(late) < 0).any()


def test_the_rate_of_events_is_that_of_event_time() -> None:
    times = auction_tables(AuctionHouse(events_per_second=100), 10_000)["bids"]["bid_at"].cast(pa.int64())
    assert pc.max(times).as_py() - pc.min(times).as_py() == pytest.approx(100_000, abs=100)


def test_records_have_the_size_and_the_text_that_the_contract_asks_for(house: dict[str, pa.Table]) -> None:
    sizes = {}
    for topic, table in house.items():
        encoded = ColumnarEncoder(1, contract(DECLARED[topic].schema))(table)
        sizes[topic] = sum(map(len, encoded)) / len(encoded)
    assert sizes == pytest.approx({"persons": 205, "auctions": 485, "bids": 165}, rel=0.1)
    urls = house["bids"]["url"]
    assert pc.all(pc.match_substring_regex(urls, r"^https://[a-z.]+/\w{5}/\w{5}/\w{5}/item\.htm\?query=1")).as_py()


def test_batches_hold_the_events_of_all_topics_in_their_order_however_they_are_cut() -> None:
    count = BLOCK + 1_000
    house = AuctionHouse(events_per_second=1_000)
    encoders = topic_encoders(dict.fromkeys(TOPICS, 1))
    seconds = iter(range(10_000))
    due = Pace(rate=3_000).due(np.arange(count))
    pacers = (Pacer(count), Pacer(count, due, lambda _: None, lambda: float(next(seconds))))
    whole, paced = (list(encoded_batches(auction_blocks(house, count), encoders, pacer, never)) for pacer in pacers)
    assert [len(batch.values) for batch in whole] == [BLOCK, 1_000]
    assert len(paced) > 5
    for column in ("topics", "values", "keys", "timestamps"):
        both = ([each for batch in cut for each in getattr(batch, column)] for cut in (whole, paced))
        first, second = both
        assert first == second
    assert whole[0].topics[:5] == ["persons", "auctions", "auctions", "auctions", "bids"]
    assert whole[0].keys[:4] == ["1000", "1000", "1001", "1002"]
    assert whole[0].timestamps == sorted(whole[0].timestamps)
