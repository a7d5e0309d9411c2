"""Keeps Delta tables in order while jobs write them: makes large files of small ones, removes files of the past."""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from delta.exceptions import DeltaConcurrentModificationException
from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.connectors.delta.log import snapshot
from jobs.connectors.spark_internals import configured

ATTEMPTS = 3
CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
# By default Delta keeps files as the table's own property says, and ignores any other time without a word.
IGNORE = "spark.databricks.delta.vacuum.retentionWindowIgnore.enabled"
# Delta lists folders in as many tasks as this says, 10,000 by default: 40 s for an empty table on two cores.
LISTING = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
LISTERS = "8"


def say_single_driver(spark: SparkSession, root: str) -> None:
    """Print a note where two drivers at once may write over each other's commits to tables under `root`.

    Delta's log store for S3 looks whether a commit is there, and then writes it; others of its stores do both in one.
    """
    if root.startswith("s3a://") and spark.conf.get("spark.delta.logStore.s3a.impl", None) is None:
        what = f"tables in {root} take commits of one driver at a time"
        print(f"note: {what}: no job may write them meanwhile (docs/object-store.md)", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Files:
    """The data files of a table's newest version; `crowd`: the most small ones that a single partition has."""

    count: int
    bytes: int
    small: int
    crowd: int


def data_files(spark: SparkSession, path: str, small_bytes: int) -> Files:
    """Return the files of the table at `path`, of which those below `small_bytes` are small."""
    all_files = snapshot(spark, path).files()
    is_small = F.col("size") < small_bytes
    partition = F.to_json("partitionValues")
    by_partition = all_files.groupBy(partition).agg(
        F.count("*").alias("count"), F.sum("size").alias("bytes"), F.count_if(is_small).alias("small")
    )
    row = by_partition.agg(F.sum("count"), F.sum("bytes"), F.sum("small"), F.max("small")).collect()[0]
    return Files(*(int(value or 0) for value in row))


def compact(spark: SparkSession, path: str, small_bytes: int, target_bytes: int) -> int | None:
    """Rewrite the small files into ones of `target_bytes`; return how many, None where writers were in the way.

    Appends are never in the way. A MERGE at the same moment makes one of the two fail: this one tries again, and then
    leaves it.
    """
    sizes = {"minFileSize": small_bytes, "maxFileSize": target_bytes}
    conf = {f"spark.databricks.delta.optimize.{name}": str(size) for name, size in sizes.items()}
    with configured(spark, conf):
        for _ in range(ATTEMPTS):
            try:
                metrics = DeltaTable.forPath(spark, path).optimize().executeCompaction()
                return int(metrics.select("metrics.numFilesRemoved").collect()[0][0])
            except DeltaConcurrentModificationException:
                continue
    return None


def retention(spark: SparkSession, path: str) -> timedelta:
    """Return how long the table itself wants removed files kept (`delta.deletedFileRetentionDuration`,
    7 days by default)."""
    return timedelta(milliseconds=snapshot(spark, path).retention_ms())


def version_time(spark: SparkSession, path: str, version: int) -> datetime | None:
    """Return when `version` was committed; None where the table's log no longer has it."""
    commits = DeltaTable.forPath(spark, path).history().where(F.col("version") == version)
    rows = commits.select(F.unix_millis("timestamp")).collect()
    return datetime.fromtimestamp(rows[0][0] / 1000, UTC) if rows else None


def vacuum(spark: SparkSession, path: str, keep: timedelta, checked: bool, dry_run: bool) -> int:
    """Remove files that no version younger than `keep` needs; return how many in a dry run (Delta names 1,000 at most).

    Args:
        checked: whether Delta refuses what is less than the table's own retention.
    """
    hours = keep / timedelta(hours=1)
    with configured(spark, {CHECK: str(checked).lower(), IGNORE: "false", LISTING: LISTERS}):
        if dry_run:
            return spark.sql(f"VACUUM delta.`{path}` RETAIN {hours:f} HOURS DRY RUN").count()
        DeltaTable.forPath(spark, path).vacuum(hours)
        return 0
