"""Makes the transfers of a bank, from a seed and nothing else, and publishes them: money from account to account."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from conf.settings import Settings
from producers.auctions import BEGAN_MS, BLOCK, MILLIS, random_of
from producers.kafka.pacing import Interrupt
from producers.kafka.publisher import Report
from producers.kafka.tables import Block, publish_blocks

TOPIC = "transfers"
MOST_CENTS = 100_000


@dataclass(frozen=True)
class Bank:
    """The numbers that decide on transfers: `accounts` are 0, 1, 2 ...; transfers are a millisecond apart."""

    seed: int = 0
    accounts: int = 100


def publish_transfers(settings: Settings, bank: Bank, count: int, interrupt: Interrupt) -> Report:
    """Publish the first `count` transfers of `bank`; raises what `publish_blocks` does."""
    return publish_blocks(settings, [TOPIC], transfer_blocks(bank, count), count, None, interrupt)


def transfer_blocks(bank: Bank, count: int) -> Iterator[Block]:
    """Yield the first `count` transfers; the first ones of a longer run are the same."""
    for number in range(-(-count // BLOCK)):
        yield _block(bank, number).part(0, min(BLOCK, count - number * BLOCK))


def _block(bank: Bank, number: int) -> Block:
    random = random_of(bank.seed, number)
    transfer = np.arange(number * BLOCK, (number + 1) * BLOCK)
    giver = random.integers(0, bank.accounts, size=BLOCK)
    # Never the giver itself.
    taker = (giver + random.integers(1, bank.accounts, size=BLOCK)) % bank.accounts
    columns = {
        "transfer": pa.array(transfer),
        "from_account": pa.array(giver),
        "to_account": pa.array(taker),
        "amount": pa.array(random.integers(1, MOST_CENTS, endpoint=True, size=BLOCK)),
        "transferred_at": pa.array(BEGAN_MS + transfer, MILLIS),
    }
    return Block({TOPIC: pa.table(columns)}, np.zeros(BLOCK, dtype=np.int64), BEGAN_MS + transfer)
