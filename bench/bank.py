"""Is the bank's sum zero whenever anybody looks? Prints it for every version of the table that a reader could see.

    .tidemark/venv/bin/python -m bench.bank [--count 20000] [--batch 2000] [--accounts 100]

On a broker of its own: transfers are published, the job auctions.balances reads them in micro-batches of `--batch`, and
every version of its table is read back. The exit code is 1 where one does not sum to zero.
"""

import pyarrow.compute as pc
from deltalake import DeltaTable

from bench.workbench import catch_up, line, own_workbench, read_options
from conf.errors import exit_on_error
from conf.topics import load_topics
from jobs.auctions import balances
from jobs.connectors.kafka.access import connect
from local.topics import bring_in_step
from producers.kafka.pacing import Interrupt
from producers.transfers import TOPIC, Bank, publish_transfers

JOB = "auctions.balances"


def main() -> int:
    options = read_options(__doc__, count=20_000, batch=2_000, accounts=100)
    with own_workbench() as bench:
        run = bench.run(JOB, options.batch)
        bring_in_step(connect(run.settings.kafka), [load_topics()[TOPIC]], 1)
        bank = Bank(accounts=options.accounts)
        publish_transfers(run.settings, bank, options.count, Interrupt()).require_complete()
        balances.build(run)
        catch_up(run)
        return _print_versions(f"{run.settings.paths.tables}/balances")


def _print_versions(path: str) -> int:
    print(line("version", ("transfers", "accounts", "least balance", "greatest balance", "sum of all"), 18))
    sums = []
    for version in range(DeltaTable(path).version() + 1):
        table = DeltaTable(path, version=version).to_pyarrow_table()
        if table.num_rows == 0:
            continue
        bounds = pc.min_max(table["balance"]).as_py()
        sums.append(pc.sum(table["balance"]).as_py())
        transfers = pc.sum(table["transfers"]).as_py() // 2
        print(line(version, (transfers, table.num_rows, bounds["min"], bounds["max"], sums[-1]), 18))
    print(f"{len(sums)} versions, {sum(map(bool, sums))} of them do not sum to zero")
    return 1 if any(sums) or not sums else 0


if __name__ == "__main__":
    exit_on_error(main)
