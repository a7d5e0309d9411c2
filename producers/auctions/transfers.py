"""Makes the transfers of a bank, from a seed and nothing else: money goes from account to account."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from producers.auctions.model import BEGAN_MS, BLOCK, MILLIS, Block, random_of

TOPIC = "transfers"
MOST_CENTS = 100_000


@dataclass(frozen=True)
class Bank:
    """The numbers that decide on transfers: `accounts` are 0, 1, 2 ...; transfers are a millisecond apart."""

    seed: int = 0
    accounts: int = 100


def blocks(bank: Bank, count: int) -> Iterator[Block]:
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
        "transferred_at": pa.array(BEGAN_MS + transfer).cast(MILLIS),
    }
    return Block({TOPIC: pa.table(columns)}, np.zeros(BLOCK, dtype=np.int64), BEGAN_MS + transfer)
