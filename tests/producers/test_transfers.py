"""The transfers of the bank: between two accounts, the same by each seed."""

import pyarrow as pa
import pyarrow.compute as pc

from producers.transfers import Bank, transfer_blocks


def test_transfers_go_between_two_accounts_and_are_the_same_by_their_seed() -> None:
    made = [
        pa.concat_tables([block.tables["transfers"] for block in transfer_blocks(Bank(seed), 25_000)])
        for seed in (1, 1, 2)
    ]
    assert made[0] == made[1] != made[2]
    assert made[0].num_rows == 25_000
    assert not pc.any(pc.equal(made[0]["from_account"], made[0]["to_account"])).as_py()
    assert pc.min(made[0]["amount"]).as_py() > 0
    assert set(made[0]["to_account"].to_pylist()) == set(range(100))
