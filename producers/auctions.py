"""Makes and publishes the events of an auction house by the model of the Nexmark benchmark, from nothing but a seed.

One of every 50 events is a person, three are auctions, 46 are bids. Events are made in blocks of a fixed size, each
with random numbers of its own, so that any block can be made without those before it. The model's numbers are those of
the generator of https://github.com/nexmark/nexmark, after Tucker, Tufte, Papadimos and Maier: "NEXMark, a benchmark
for queries over data streams" (2002).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from conf.settings import Settings
from producers.kafka.pacing import Interrupt, Pace
from producers.kafka.publisher import Report
from producers.kafka.tables import Block, Integers, publish_blocks

Random = np.random.Generator

TOPICS = ("persons", "auctions", "bids")
BLOCK = 20_000  # a multiple of EPOCH; as many as the publisher sends at once
PERSONS, AUCTIONS, BIDS = 1, 3, 46
EPOCH = PERSONS + AUCTIONS + BIDS
BEGAN_MS = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp() * 1000)
FIRST_ID = 1000  # of persons and of auctions
CATEGORIES = (10, 15)  # the first, and the one behind the last
# Ids that are spoken of before their own event: a bid may come before its auction, an auction before its seller.
LEAD = 10
HOT_BATCH = 100  # one of this many ids in a row is the hot one
HOT_CHANNELS = ("Google", "Facebook", "Baidu", "Apple")
CHANNELS = 10_000
FIRST_NAMES = ("Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter")
LAST_NAMES = ("Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris")
CITIES = (
    *("Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland"),
    *("Bend", "Redmond", "Seattle", "Kent", "Cheyenne"),
)
STATES = ("AZ", "CA", "ID", "OR", "WA", "WY")
# Letters behind an event of each kind, on average; they bring persons to 200 bytes, auctions to 500 and bids to 100, by
# the benchmark's count, which leaves channel and URL of a bid out.
EXTRA = {"persons": 135, "auctions": 390, "bids": 68}
POOL = 1 << 16
MILLIS = pa.timestamp("ms", "UTC")


@dataclass(frozen=True)
class AuctionHouse:
    """The numbers that decide on the events.

    Args:
        events_per_second: how many fall into a second of event time.
        disorder_ms: an event goes out up to so long after it happened; 0 is in order of event time.
        in_flight: auctions that are bid for at any time; an auction is open, on average, until so many have opened.
        active: persons who sell and bid, the newest ones.
        hot_auction, hot_seller, hot_bidder: all but one in so many bids go to a hot auction, and so on.
    """

    seed: int = 0
    events_per_second: float = 10_000
    disorder_ms: int = 0
    in_flight: int = 100
    active: int = 1_000
    hot_auction: int = 2
    hot_seller: int = 4
    hot_bidder: int = 4

    def due_ms(self, number: Integers) -> Integers:
        """Return when events go out, by their numbers, on the scale of event time."""
        return BEGAN_MS + (number * (1000 / self.events_per_second)).astype(np.int64)


def publish_auctions(settings: Settings, house: AuctionHouse, count: int, pace: Pace, interrupt: Interrupt) -> Report:
    """Publish the first `count` events of `house` into persons, auctions and bids; raises as `publish_blocks`."""
    is_paced = pace.speed is not None or pace.rate is not None
    due = pace.due(house.due_ms(np.arange(count))) if is_paced else None
    return publish_blocks(settings, TOPICS, auction_blocks(house, count), count, due, interrupt)


def auction_blocks(house: AuctionHouse, count: int) -> Iterator[Block]:
    """Yield the first `count` events; the first ones of a longer run are the same."""
    for number in range(-(-count // BLOCK)):
        yield _block(house, number).part(0, min(BLOCK, count - number * BLOCK))


def auction_tables(house: AuctionHouse, count: int) -> dict[str, pa.Table]:
    """Return the first `count` events, topic -> table with the columns of its contract."""
    blocks = list(auction_blocks(house, count))
    return {topic: pa.concat_tables([block.tables[topic] for block in blocks]) for topic in TOPICS}


def _block(house: AuctionHouse, number: int) -> Block:
    """Return the BLOCK events from the one of the number `number` * BLOCK on."""
    random = random_of(house.seed, number)
    event = np.arange(number * BLOCK, (number + 1) * BLOCK)
    time = house.due_ms(event) - random.integers(0, house.disorder_ms, endpoint=True, size=BLOCK)
    place = event % EPOCH
    topic = np.where(place < PERSONS, 0, np.where(place < PERSONS + AUCTIONS, 1, 2))
    tables = {
        name: table_of(house, random, event[topic == index], time[topic == index])
        for index, (name, table_of) in enumerate(zip(TOPICS, (_persons, _auctions, _bids), strict=True))
    }
    return Block(tables, topic, time)


def random_of(seed: int, block_number: int) -> Random:
    """Return the random numbers of one block."""
    return np.random.Generator(np.random.Philox(key=np.array([seed % (1 << 64), block_number], dtype=np.uint64)))


def _persons(house: AuctionHouse, random: Random, event: Integers, time: Integers) -> pa.Table:
    count = len(event)
    space, dot = pa.scalar(" "), pa.scalar(".com")
    name = pc.binary_join_element_wise(_one_of(random, FIRST_NAMES, count), _one_of(random, LAST_NAMES, count), space)
    address = pc.binary_join_element_wise(_letters(random, np.full(count, 7)), _letters(random, np.full(count, 5)), "@")
    digits = [_four_digits().take(pa.array(random.integers(0, 10_000, size=count))) for _ in range(4)]
    columns = {
        "person": pa.array(_last_person(event) + FIRST_ID),
        "name": name,
        "email": pc.binary_join_element_wise(address, dot, ""),
        "credit_card": pc.binary_join_element_wise(*digits, space),
        "city": _one_of(random, CITIES, count),
        "state": _one_of(random, STATES, count),
        "registered_at": pa.array(time, MILLIS),
        "extra": _extra(random, "persons", count),
    }
    return pa.table(columns)


def _auctions(house: AuctionHouse, random: Random, event: Integers, time: Integers) -> pa.Table:
    count = len(event)
    last_person = _last_person(event)
    hot = random.integers(0, house.hot_seller, size=count) > 0
    seller = np.where(hot, last_person // HOT_BATCH * HOT_BATCH, _active_person(house, random, last_person))
    initial_bid = _prices(random, count)
    # As long as it takes, on average, until as many auctions have opened as are in flight.
    horizon_ms = max(int(house.in_flight * EPOCH / AUCTIONS * 1000 / house.events_per_second), 1)
    columns = {
        "auction": pa.array(_last_auction(event) + FIRST_ID),
        "item": _letters(random, random.integers(3, 20, size=count)),
        "description": _letters(random, random.integers(3, 100, size=count)),
        "initial_bid": pa.array(initial_bid),
        "reserve": pa.array(initial_bid + _prices(random, count)),
        "opened_at": pa.array(time, MILLIS),
        "expires_at": pa.array(time + 1 + random.integers(0, 2 * horizon_ms, size=count), MILLIS),
        "seller": pa.array(seller + FIRST_ID),
        "category": pa.array(random.integers(*CATEGORIES, size=count)),
        "extra": _extra(random, "auctions", count),
    }
    return pa.table(columns)


def _bids(house: AuctionHouse, random: Random, event: Integers, time: Integers) -> pa.Table:
    count = len(event)
    last_person, last_auction = _last_person(event), _last_auction(event)
    first_in_flight = np.maximum(last_auction - house.in_flight, 0)
    cold_auction = first_in_flight + _below(random, last_auction - first_in_flight + 1 + LEAD)
    hot_auction = random.integers(0, house.hot_auction, size=count) > 0
    hot_bidder = random.integers(0, house.hot_bidder, size=count) > 0
    # The second of its batch, so that nobody is both a hot seller and a hot bidder.
    hottest = last_person // HOT_BATCH * HOT_BATCH + 1
    auction = np.where(hot_auction, last_auction // HOT_BATCH * HOT_BATCH, cold_auction)
    bidder = np.where(hot_bidder, hottest, _active_person(house, random, last_person))
    hot_channel = random.integers(0, 2, size=count) > 0
    channel = np.where(
        hot_channel,
        CHANNELS + random.integers(0, len(HOT_CHANNELS), size=count),
        random.integers(0, CHANNELS, size=count),
    )
    names, urls = _channels()
    columns = {
        "auction": pa.array(auction + FIRST_ID),
        "bidder": pa.array(bidder + FIRST_ID),
        "price": pa.array(_prices(random, count)),
        "channel": names.take(pa.array(channel)),
        "url": urls.take(pa.array(channel)),
        "bid_at": pa.array(time, MILLIS),
        "extra": _extra(random, "bids", count),
    }
    return pa.table(columns)


def _last_person(event: Integers) -> Integers:
    """Return the newest person's number at each event: its own, where it is one."""
    return event // EPOCH


def _last_auction(event: Integers) -> Integers:
    """Return the newest auction's number at each event that is not a person's."""
    return event // EPOCH * AUCTIONS + np.minimum(event % EPOCH - PERSONS, AUCTIONS - 1)


def _active_person(house: AuctionHouse, random: Random, last: Integers) -> Integers:
    active = np.minimum(last + 1, house.active)
    return last + 1 - active + _below(random, active + LEAD)


def _prices(random: Random, count: int) -> Integers:
    """Draw prices from 100 to a hundred million cents, each magnitude as often as the next."""
    return np.round(10.0 ** (random.random(count) * 6) * 100).astype(np.int64)


def _below(random: Random, bound: Integers) -> Integers:
    return (random.random(len(bound)) * bound).astype(np.int64)


def _one_of(random: Random, names: tuple[str, ...], count: int) -> pa.Array:
    return pa.array(names).take(pa.array(random.integers(0, len(names), size=count)))


def _extra(random: Random, topic: str, count: int) -> pa.Array:
    least, most = round(EXTRA[topic] * 0.8), round(EXTRA[topic] * 1.2)
    return _letters(random, random.integers(least, most, endpoint=True, size=count))


def _letters(random: Random, lengths: Integers) -> pa.Array:
    """Return the texts of these lengths, each cut out of the pool of letters at a random place."""
    place = np.arange(lengths.max(initial=0))
    start = random.integers(0, POOL - len(place), size=len(lengths))
    letters = _pool()[start[:, None] + place][place < lengths[:, None]]
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.StringArray.from_buffers(len(lengths), pa.py_buffer(ends), pa.py_buffer(letters))


@cache
def _pool() -> npt.NDArray[np.uint8]:
    return random_of(0, 0).integers(ord("a"), ord("z"), endpoint=True, size=POOL).astype(np.uint8)


@cache
def _four_digits() -> pa.Array:
    return pa.array([f"{number:04}" for number in range(10_000)])


@cache
def _channels() -> tuple[pa.Array, pa.Array]:
    """Names and URLs of all channels, the hot ones last; one URL in ten has no channel_id, nor has any hot one's."""
    random, count = random_of(0, 1), CHANNELS + len(HOT_CHANNELS)
    folders = [_letters(random, np.full(count, 5)).to_pylist() for _ in range(3)]
    urls = [f"https://auctions.example/{'/'.join(three)}/item.htm?query=1" for three in zip(*folders, strict=True)]
    with_id = random.integers(0, 10, size=CHANNELS) > 0
    ids = random.permutation(1 << 20)[:CHANNELS]
    urls[:CHANNELS] = [
        f"{url}&channel_id={id}" if has else url for url, id, has in zip(urls, ids, with_id, strict=False)
    ]
    return pa.array([*(f"channel-{number}" for number in range(CHANNELS)), *HOT_CHANNELS]), pa.array(urls)
