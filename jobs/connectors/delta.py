"""Delta tables as a sink of a stream's micro-batches or of a batch, each write exactly once.

Delta remembers, for every application id, the last version it committed, and silently skips a write whose version is
not above it. That makes a replayed micro-batch harmless, and makes two writes that share an id, or an id that outlives
its checkpoint, lose rows. So an id names the query, the table and the statement, and every skip is decided here, in the
open, before Delta would.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from delta.exceptions import DeltaConcurrentModificationException
from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructType

from conf.errors import TidemarkError

APP_ID = "txnAppId"
VERSION = "txnVersion"
METADATA_CONF = "spark.databricks.delta.commitInfo.userMetadata"
TXN_CONF = "spark.databricks.delta.write."
WIDENING = "delta.enableTypeWidening"
# Delta fails one of two queries that make the same table at the same moment.
_CREATING = Lock()


@dataclass(frozen=True)
class Table:
    """A table by its name and path.

    Args:
        keys: make it an upserted table, with one row a key; nulls are equal.
        newest_by: which of two events of a key stays: the greater, the later one of equals. Left out, a batch must hold
            one row a key, as a windowed aggregate does, and replaces what is there.
        partition_by, properties: of the table when it is made.
    """

    name: str
    path: str
    keys: tuple[str, ...] = ()
    newest_by: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Commit:
    """Who writes (`query_id`: the checkpoint's, or a range's own), which statement, which batch, from which offsets."""

    query_id: str
    statement: str
    version: int
    offsets: Mapping[str, Any] = field(default_factory=dict)

    def app_id(self, table: Table) -> str:
        return f"{self.query_id}/{table.name}/{self.statement}"

    def metadata(self) -> str:
        written = {
            "query_id": self.query_id,
            "statement": self.statement,
            "batch": self.version,
            "offsets": dict(self.offsets),
        }
        return json.dumps(written, sort_keys=True)


def write(frame: DataFrame, table: Table, commit: Commit) -> bool:
    """Append `frame` to `table`, or merge it by the table's keys; False when the batch was there already.

    Raises:
        TidemarkError: CHECKPOINT_ROLLED_BACK, where the table holds a later batch of the same query; TYPE_CHANGED,
            where a column has another type than in the table. A new column is added to the table.
    """
    spark = frame.sparkSession
    create_if_missing(frame, table)
    if not is_due(spark, table, commit):
        return False
    _check_types(frame, table)
    if table.keys:
        _upsert(frame, table, commit)
    else:
        _append(frame, table, commit)
    return True


def is_due(spark: SparkSession, table: Table, commit: Commit) -> bool:
    """Whether `commit` has not been made yet."""
    recorded = recorded_version(spark, table.path, commit.app_id(table))
    if recorded is not None and recorded > commit.version:
        message = (
            f"table {table.path} holds batch {recorded} of this query, and batch {commit.version} asks to be written"
        )
        raise TidemarkError(
            "CHECKPOINT_ROLLED_BACK", message, "restore the newest checkpoint; an older one would lose or double rows"
        )
    return recorded != commit.version


def recorded_version(spark: SparkSession, path: str, app_id: str) -> int | None:
    """The last version that `app_id` committed to the table at `path`; None for a first one."""
    recorded = _snapshot(spark, path).transactions().get(app_id)
    return int(recorded.get()) if recorded.isDefined() else None


def create_if_missing(frame: DataFrame, table: Table) -> None:
    """Create `table` with the columns of `frame`, its partitioning and properties; nothing where it exists."""
    spark = frame.sparkSession
    with _CREATING:
        if DeltaTable.isDeltaTable(spark, table.path):
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
            if not DeltaTable.isDeltaTable(spark, table.path):
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
        merge = DeltaTable.forPath(spark, table.path).alias("t").merge(source, same_key).withSchemaEvolution()
        merge.whenMatchedUpdateAll(_not_older(table)).whenNotMatchedInsertAll().execute()
    finally:
        for name in conf:
            spark.conf.unset(name)


def _not_older(table: Table) -> str | None:
    if not table.newest_by:
        return None
    ours, theirs = (", ".join(f"{side}.`{name}`" for name in table.newest_by) for side in "st")
    return f"struct({ours}) >= struct({theirs})"


def _check_types(frame: DataFrame, table: Table) -> None:
    """Delta would refuse the types in words of its own, or cast them to the table's until a value does not fit."""
    snapshot = _snapshot(frame.sparkSession, table.path)
    widening = snapshot.metadata().configuration().get(WIDENING)
    if widening.isDefined() and widening.get() == "true":
        return
    schema = StructType.fromJson(json.loads(snapshot.schema().json()))
    for change in _type_changes(schema, frame.schema, ""):
        remedy = f"write to a new table, or allow Delta to widen it: ALTER TABLE delta.`{table.path}` SET TBLPROPERTIES"
        raise TidemarkError("TYPE_CHANGED", f"table {table.path}: {change}", f"{remedy} ('{WIDENING}' = 'true')")


def _type_changes(old: DataType, new: DataType, name: str) -> Iterator[str]:
    if isinstance(old, StructType) and isinstance(new, StructType):
        for field in old.fields:
            if field.name in new.names:
                yield from _type_changes(field.dataType, new[field.name].dataType, f"{name}.{field.name}".lstrip("."))
    elif isinstance(old, ArrayType) and isinstance(new, ArrayType):
        yield from _type_changes(old.elementType, new.elementType, f"{name}[]")
    elif isinstance(old, MapType) and isinstance(new, MapType):
        yield from _type_changes(old.keyType, new.keyType, f"{name} keys")
        yield from _type_changes(old.valueType, new.valueType, f"{name} values")
    elif old != new:
        yield f"column {name} is {old.simpleString()} there and {new.simpleString()} in what is written"


def _snapshot(spark: SparkSession, path: str) -> Any:
    jvm: Any = spark._jvm
    none = jvm.scala.Option.empty()
    return jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path).update(False, none, none)
