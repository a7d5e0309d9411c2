"""The script that spark-submit starts for `local/tidemark maintain`."""

import json
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

# spark-submit puts this file's own folder first on the path.
sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from pyspark.sql import SparkSession  # noqa: E402

from conf.errors import exit_on_error  # noqa: E402
from conf.settings import Settings  # noqa: E402
from jobs.arguments import settings_of  # noqa: E402
from jobs.folders import Folders  # noqa: E402
from jobs.maintenance import arguments, states  # noqa: E402
from jobs.maintenance.checkpoints import Cleaning  # noqa: E402
from jobs.maintenance.ledgers import Ledgers  # noqa: E402
from jobs.maintenance.replays import replays  # noqa: E402
from jobs.maintenance.tables import Upkeep  # noqa: E402

NOTHING = {
    "tables": "there is no table",
    "checkpoints": "there is no checkpoint",
    "ledgers": "there is no ledger",
    "state": "no query keeps state",
}


class Report(Protocol):
    """What every action says, one at a time."""

    def to_json(self) -> dict[str, Any]: ...

    def lines(self) -> Iterable[str]: ...


def main() -> int:
    args = arguments.parse(sys.argv[1:])
    settings = settings_of(args)
    spark = SparkSession.builder.appName(f"maintain {args.action}").getOrCreate()
    spark.conf.set("spark.sql.shuffle.partitions", settings.spark.shuffle_partitions)
    _silence(spark)
    try:
        return run(spark, settings, args)
    finally:
        spark.stop()


def _silence(spark: SparkSession) -> None:
    """Delta tells the terminal what it has vacuumed, in the middle of what a program may read."""
    jvm: Any = spark._jvm
    nowhere = jvm.java.io.PrintStream(jvm.java.io.OutputStream.nullOutputStream())
    getattr(jvm.scala, "Console$").__getattr__("MODULE$").setOutDirect(nowhere)


def run(spark: SparkSession, settings: Settings, args: Namespace) -> int:
    """Carry out an action and print a line (or a JSON object) for each thing; the exit code."""
    failed, found = False, False
    for report in reports(spark, settings, args):
        found = True
        failed |= bool(getattr(report, "failed", "") or getattr(report, "problem", ""))
        for line in [json.dumps(report.to_json(), default=str)] if args.json else report.lines():
            print(line, flush=True)
    if not found and not args.json:
        print(NOTHING[args.action])
    return 1 if failed else 0


def reports(spark: SparkSession, settings: Settings, args: Namespace) -> Iterable[Report]:
    """What the action does, thing by thing."""
    if args.action == "state":
        return states.reports(spark, settings.paths.checkpoints)
    if args.action == "ledgers":
        return Ledgers(spark, settings).reports(args.remove, args.dry_run)
    known = replays(spark, Folders(spark), settings.paths.tables)
    if args.action == "checkpoints":
        return Cleaning(spark, settings, known, args.dry_run).findings()
    still_open = [replay for replay in known if not replay.is_finished]
    return Upkeep(spark, settings, still_open, args.dry_run).reports()


if __name__ == "__main__":
    exit_on_error(main)
