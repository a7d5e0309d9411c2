"""Carries out the actions of `maintain`, and prints a line for each thing that was looked at."""

import json
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime

from pyspark.sql import SparkSession

from conf.settings import Settings
from jobs import arguments
from jobs.connectors.delta.maintenance import say_single_driver
from jobs.connectors.hadoop_files import Folders
from jobs.connectors.spark_internals import silence_scala
from jobs.operations.maintenance.checkpoints import (
    CheckpointCleanup,
    CleanupReport,
    StateReport,
    read_replays,
    state_reports,
)
from jobs.operations.maintenance.ledgers import LedgerMaintenance, LedgerReport
from jobs.operations.maintenance.tables import TableMaintenance, TableReport
from jobs.pipeline.session import session

NOTHING_FOUND = {
    "tables": "there is no table",
    "checkpoints": "there is no checkpoint",
    "ledgers": "there is no ledger",
    "state": "no query keeps state",
}
Report = TableReport | LedgerReport | CleanupReport | StateReport


def main(words: Sequence[str]) -> int:
    """Carry out one action; return the exit code."""
    args = arguments.parse_maintain(words)
    settings = arguments.settings_of(args)
    with session(settings, f"maintain {args.action}", "maintenance") as spark:
        spark.conf.set("spark.sql.shuffle.partitions", settings.spark.shuffle_partitions)
        silence_scala(spark)
        return run(spark, settings, args)


def run(spark: SparkSession, settings: Settings, args: Namespace) -> int:
    """Carry out an action and print a line (or a JSON object) for each report; return the exit code."""
    has_failed, is_empty = False, True
    for report in reports(spark, settings, args):
        is_empty = False
        has_failed |= bool(getattr(report, "failed", "") or getattr(report, "problem", ""))
        for line in [json.dumps(asdict(report), default=datetime.isoformat)] if args.json else report.lines():
            print(line, flush=True)
    if is_empty and not args.json:
        print(NOTHING_FOUND[args.action])
    return 1 if has_failed else 0


def reports(spark: SparkSession, settings: Settings, args: Namespace) -> Iterable[Report]:
    """Carry the action out, and give one report at a time."""
    if args.action == "state":
        return state_reports(spark, settings.paths.checkpoints)
    if args.action == "ledgers":
        return LedgerMaintenance(spark, settings).reports(args.remove, args.dry_run)
    replays = read_replays(spark, Folders(spark), settings.paths.tables)
    if args.action == "checkpoints":
        return CheckpointCleanup(spark, settings, replays, args.dry_run).reports()
    say_single_driver(spark, settings.paths.tables)
    return TableMaintenance(spark, settings, replays, args.dry_run).reports()
