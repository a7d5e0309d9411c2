"""Is the bank's sum zero whenever anybody looks? Prints it for every version of the table that a reader could see.

    .tidemark/venv/bin/python -m bench.bank [--count 20000] [--batch 2000] [--accounts 100]

On a broker of its own: transfers are published, the job auctions.balances reads them in micro-batches of `--batch`, and
every version of its table is read back. The exit code is 1 where one does not sum to zero.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import pyarrow.compute as pc
from deltalake import DeltaTable

from conf import command_line
from conf.errors import exit_on_error
from conf.settings import Settings, load
from conf.topics import load_topics
from jobs.auctions import balances
from jobs.connectors.kafka.access import connect
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from local.broker import Cluster
from local.driver import spark_session
from local.topics import bring_in_step
from producers.kafka.pacing import Interrupt
from producers.transfers import TOPIC, Bank, publish_transfers

JOB = "auctions.balances"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=2_000)
    parser.add_argument("--accounts", type=int, default=100)
    arguments = command_line.parse(parser, sys.argv[1:])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with Cluster(folder / "broker", folder / "logs", attached=True) as cluster:
            own = {
                "kafka.bootstrap_servers": cluster.bootstrap_servers,
                "paths.tables": folder / "tables",
                "paths.checkpoints": folder / "checkpoints",
                "source.max_offsets_per_trigger": arguments.batch,
            }
            settings = load("local", [f"{key}={value}" for key, value in own.items()])
            bring_in_step(connect(settings.kafka), [load_topics()[TOPIC]], 1)
            bank = Bank(accounts=arguments.accounts)
            publish_transfers(settings, bank, arguments.count, Interrupt()).require_complete()
            _run(settings, folder / "spark.log")
        return _print_versions(f"{settings.paths.tables}/balances")


def _run(settings: Settings, log: Path) -> None:
    spark = spark_session(settings, JOB, log)
    run = Run(spark, settings, JOB)
    balances.build(run)
    await_all(spark, run.start(continuous=False))
    spark.stop()


def _print_versions(path: str) -> int:
    print("version  transfers  accounts  least balance  greatest balance  sum of all")
    sums = []
    for version in range(DeltaTable(path).version() + 1):
        table = DeltaTable(path, version=version).to_pyarrow_table()
        if table.num_rows == 0:
            continue
        bounds = pc.min_max(table["balance"]).as_py()
        sums.append(pc.sum(table["balance"]).as_py())
        transfers = pc.sum(table["transfers"]).as_py() // 2
        print(
            f"{version:>7}  {transfers:>9,}  {table.num_rows:>8}  {bounds['min']:>13,}  {bounds['max']:>16,}"
            f"  {sums[-1]:>10,}"
        )
    print(f"{len(sums)} versions, {sum(map(bool, sums))} of them do not sum to zero")
    return 1 if any(sums) or not sums else 0


if __name__ == "__main__":
    exit_on_error(main)
