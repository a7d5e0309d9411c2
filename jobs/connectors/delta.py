"""Delta tables as a sink of a stream's micro-batches or of a batch, each write exactly once.

Delta skips a write that it has recorded. Whether that is right, or would lose or double rows, `delta_guards` decides.
"""

import json
from collections.abc import Sequence
from threading import Lock

from delta.exceptions import (
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    DeltaConcurrentModificationException,
)
from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from conf.errors import TidemarkError
from jobs.connectors.delta_commit import RANGE, Attempt, Commit, Table
from jobs.connectors.delta_evolution import admit_types
from jobs.connectors.delta_guards import is_due, recorded_version, require_first
from jobs.connectors.delta_history import snapshot

# All that others need of Delta is had from here.
__all__ = [
    "OVERTAKEN",
    "RANGE",
    "Attempt",
    "Commit",
    "Table",
    "create_if_missing",
    "exists",
    "is_due",
    "newest",
    "read",
    "recorded_version",
    "write",
]

APP_ID = "txnAppId"
VERSION = "txnVersion"
METADATA_CONF = "spark.databricks.delta.commitInfo.userMetadata"
TXN_CONF = "spark.databricks.delta.write."
MERGE_ATTEMPTS = 3
OVERTAKEN = (ConcurrentAppendException, ConcurrentDeleteReadException, ConcurrentDeleteDeleteException)
# Delta fails one of two queries that make the same table at the same moment.
_CREATING = Lock()


def write(frame: DataFrame, table: Table, commit: Commit) -> bool:
    """Append `frame` to `table`, or merge it by the table's keys; False when the batch was there already.

    Raises:
        TidemarkError: STATEMENT_REPEATED, where the same attempt at a batch wrote this before; what `is_due` raises;
            TYPE_CHANGED, where a column has another type than in the table, and not a wider one. A new column is added
            to the table, a wider type widens the column.
    """
    require_first(table, commit)
    if not is_due(frame.sparkSession, table, commit):
        if commit.keeps_state:
            # Spark ends a query one of whose batches has not made its state, and the table asks for no rows now.
            frame.write.format("noop").mode("overwrite").save()
        return False
    create_if_missing(frame, table)
    admit_types(frame, table)
    if table.keys:
        _upsert(frame, table, commit)
    else:
        _append(frame, table, commit)
    return True


def exists(spark: SparkSession, path: str) -> bool:
    """Whether there is a table at `path`."""
    return bool(DeltaTable.isDeltaTable(spark, path))


def read(spark: SparkSession, path: str) -> DataFrame:
    """The table at `path` as it is now: later commits do not show in the frame, however often it is read.

    Raises:
        TidemarkError: TABLE_MISSING.
    """
    version = int(snapshot(spark, path).version())
    if version < 0:
        raise TidemarkError("TABLE_MISSING", f"there is no table {path}", "run the job that writes it first")
    return spark.read.format("delta").option("versionAsOf", version).load(path)


def create_if_missing(frame: DataFrame, table: Table) -> None:
    """Create `table` with the columns of `frame`, its partitioning and properties; nothing where it exists."""
    spark = frame.sparkSession
    with _CREATING:
        if exists(spark, table.path):
            return
        builder = DeltaTable.createIfNotExists(spark).location(table.path).addColumns(_nullable(frame))
        if table.partition_by:
            builder = builder.partitionedBy(*table.partition_by)
        for name, value in table.properties.items():
            builder = builder.property(name, value)
        try:
            builder.execute()
        except (DeltaConcurrentModificationException, AnalysisException):
            # Another process may have made it at the same moment.
            if not exists(spark, table.path):
                raise


def _nullable(frame: DataFrame) -> StructType:
    # As Spark's own writer does: what is never null today need not stay so, and in arrays Delta refuses it altogether.
    return StructType.fromJson(json.loads(frame._jdf.schema().asNullable().json()))


def newest(frame: DataFrame, keys: Sequence[str], newest_by: Sequence[str]) -> DataFrame:
    """One row a key: the one whose `newest_by` columns are greatest; `frame` as it is without `newest_by`."""
    if not newest_by:
        return frame
    row = F.max_by(F.struct(*frame.columns), F.struct(*newest_by)).alias("row")
    return frame.groupBy(*keys).agg(row).select("row.*")


def _append(frame: DataFrame, table: Table, commit: Commit) -> None:
    options = {
        APP_ID: commit.app_id(table),
        VERSION: str(commit.version),
        "userMetadata": commit.metadata(),
        "mergeSchema": "true",
    }
    frame.write.format("delta").mode("append").options(**options).save(table.path)


def _upsert(frame: DataFrame, table: Table, commit: Commit) -> None:
    # MERGE takes these by session configuration only; a micro-batch has a session of its own.
    spark = frame.sparkSession
    conf = {
        METADATA_CONF: commit.metadata(),
        TXN_CONF + APP_ID: commit.app_id(table),
        TXN_CONF + VERSION: str(commit.version),
    }
    for name, value in conf.items():
        spark.conf.set(name, value)
    try:
        source = newest(frame, table.keys, table.newest_by).alias("s")
        same_key = " AND ".join(f"s.`{key}` <=> t.`{key}`" for key in table.keys)
        for attempt in range(1, MERGE_ATTEMPTS + 1):
            merge = DeltaTable.forPath(spark, table.path).alias("t").merge(source, same_key).withSchemaEvolution()
            try:
                merge.whenMatchedUpdateAll(_not_older(table)).whenNotMatchedInsertAll().execute()
                break
            except OVERTAKEN:
                # The files that it read were compacted meanwhile, say: nothing was committed, the next one reads anew.
                if attempt == MERGE_ATTEMPTS:
                    raise
    finally:
        for name in conf:
            spark.conf.unset(name)


def _not_older(table: Table) -> str | None:
    if not table.newest_by:
        return None
    ours, theirs = (", ".join(f"{side}.`{name}`" for name in table.newest_by) for side in "st")
    return f"struct({ours}) >= struct({theirs})"
