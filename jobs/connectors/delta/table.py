"""Writes micro-batches or a range into Delta tables, each exactly once."""

from collections.abc import Sequence
from itertools import islice
from threading import Lock

from delta.exceptions import (
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    DeltaConcurrentModificationException,
)
from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructField, StructType

from conf.errors import TidemarkError
from jobs.connectors.delta.commit import (
    RANGE,
    Attempt,
    Commit,
    Repeats,
    Table,
    must_write,
    recorded_version,
    require_first,
)
from jobs.connectors.delta.log import History, snapshot
from jobs.connectors.delta.schema_evolution import RAISED, admit_types, refusal
from jobs.connectors.hadoop_files import Entry, Folders
from jobs.connectors.spark_internals import MERGE_COLUMNS, configured, nullable_schema

# Other modules import what they need of Delta from here.
__all__ = [
    "RANGE",
    "Attempt",
    "Commit",
    "Repeats",
    "Table",
    "create_if_missing",
    "exists",
    "newest",
    "read",
    "recorded_version",
    "write",
]

METADATA_CONF = "spark.databricks.delta.commitInfo.userMetadata"
APP_ID = "spark.databricks.delta.write.txnAppId"
VERSION = "spark.databricks.delta.write.txnVersion"
MERGE_ATTEMPTS = 3
COMMITS_SINCE = 20  # commits that others may have made in the moment since ours
PLACE, ROWS, ROW, CAME = "tidemark_place", "tidemark_rows", "tidemark_row", "tidemark_came"
KEY_REPEATED = "KEY_REPEATED"
SHOWN = 200  # characters of a key that a message shows: Spark chokes on a failure's text when it is long
OVERTAKEN = (ConcurrentAppendException, ConcurrentDeleteReadException, ConcurrentDeleteDeleteException)
# In Delta's Python classes, the exceptions of OVERTAKEN are no subclasses of this one.
CONFLICT = (*OVERTAKEN, DeltaConcurrentModificationException)
# Delta fails one of two queries that make the same table at the same moment.
_CREATING = Lock()


def write(frame: DataFrame, table: Table, commit: Commit) -> bool:
    """Append `frame` to `table`, or merge it by the table's keys; return False when the batch was there already.

    Raises:
        TidemarkError: STATEMENT_REPEATED, where the same attempt at a batch wrote this before; what `must_write`
            raises; TYPE_CHANGED, where a column has another type than in the table, and not a wider one. A new column
            is added to the table, a wider type widens the column. TABLE_REFUSES, where the table does not take it.
        Exception: with KEY_REPEATED in its text, where `frame` has a key twice and nothing says which row is the newer.
    """
    with commit.tally.phase(f"write {table.name}"):
        is_new = _write_once(frame, table, commit)
        commit.tally.wrote(table.name, _rows_of(frame.sparkSession, table, commit) if is_new else 0)
    return is_new


def _write_once(frame: DataFrame, table: Table, commit: Commit) -> bool:
    require_first(table, commit)
    if not must_write(frame.sparkSession, table, commit):
        if commit.keeps_state:
            # Spark ends a query if a batch has not computed its state, and no write to the table asks for its rows now.
            frame.write.format("noop").mode("overwrite").save()
        return False
    try:
        create_if_missing(frame, table)
        admit_types(frame, table)
        if table.keys:
            _upsert(frame, table, commit)
        else:
            current = snapshot(frame.sparkSession, table.path)
            current.append(frame, commit.app_id(table), commit.version, commit.metadata())
    except RAISED as exc:
        if refused := refusal(table.path, exc):
            raise refused from exc
        raise
    return True


def _rows_of(spark: SparkSession, table: Table, commit: Commit) -> int:
    """Return the rows of the commit that was just made, as Delta counted them; 0 where it made none."""
    own = {"sink": commit.sink, "query_id": commit.query_id, "statement": commit.statement, "batch": commit.version}
    newest = islice(History(spark, table.path).commits(), COMMITS_SINCE)
    return next((made.rows or 0 for made in newest if own.items() <= made.metadata.items()), 0)


def exists(spark: SparkSession, path: str) -> bool:
    """Return whether there is a table at `path`."""
    return bool(DeltaTable.isDeltaTable(spark, path))


def read(spark: SparkSession, path: str) -> DataFrame:
    """Return the table at `path` as it is now: later commits do not show in the frame, however often it is read.

    Raises:
        TidemarkError: TABLE_MISSING.
    """
    version = snapshot(spark, path).version
    if version < 0:
        raise TidemarkError("TABLE_MISSING", f"there is no table {path}", "run the job that writes it first")
    return spark.read.format("delta").option("versionAsOf", version).load(path)


def create_if_missing(frame: DataFrame, table: Table) -> None:
    """Create `table` with the columns of `frame`, its partitioning; nothing where it exists."""
    spark = frame.sparkSession
    with _CREATING:
        if exists(spark, table.path):
            return
        # As Spark's own writer does: what is never null today need not stay so, and in arrays Delta refuses it.
        columns = nullable_schema(frame)
        builder = DeltaTable.createIfNotExists(spark).location(table.path).addColumns(columns)
        if table.partition_by:
            builder = builder.partitionedBy(*table.partition_by)
        try:
            builder.execute()
        except (DeltaConcurrentModificationException, AnalysisException) as exc:
            # Another process may have made it at the same moment.
            if exists(spark, table.path):
                return
            # Or a kill, or a full disk, has left a log without a commit: only a write goes on with that.
            is_cut_short = exc.getCondition() == "DELTA_TABLE_NOT_FOUND"
            if not is_cut_short or any(_is_stored(file) for file in Folders(spark).files(table.path)):
                raise
            empty = spark.createDataFrame([], columns).write.format("delta").mode("append")
            empty.partitionBy(*table.partition_by).save(table.path)


def _is_stored(file: Entry) -> bool:
    """Return whether a file is a table's own: a commit, a checkpoint or data, not what a writer left on its way."""
    return not file.name.startswith(".") and file.name.endswith((".json", ".parquet"))


def newest(
    frame: DataFrame,
    keys: Sequence[str],
    newest_by: Sequence[str],
    repeats: Repeats = "none",
    sequence: tuple[str, str] | None = None,
) -> DataFrame:
    """Keep one row a key: the one whose `newest_by` columns are greatest; among equal ones, and without `newest_by`,
    `repeats` says which. Where that is "none", `frame` is taken to hold each key once. `sequence` as `Table` has it.
    """
    if sequence:
        # In two steps: where count and `newest_by` disagree, three rows of a key may have no greatest one.
        apart, count = sequence
        lasts = _greatest(frame, frame.columns, (*keys, apart), (count,))
        return _greatest(lasts, frame.columns, keys, (*newest_by, apart))
    in_order = repeats == "last"
    if not newest_by and not in_order:
        return frame
    placed = frame.withColumn(PLACE, F.monotonically_increasing_id()) if in_order else frame
    order = [*newest_by, PLACE] if in_order else newest_by
    return _greatest(placed, frame.columns, keys, order)


def _greatest(frame: DataFrame, columns: Sequence[str], keys: Sequence[str], order: Sequence[str]) -> DataFrame:
    row = F.max_by(F.struct(*map(_quoted, columns)), F.struct(*map(_quoted, order))).alias(ROW)
    return frame.groupBy(*map(_quoted, keys)).agg(row).select(f"{ROW}.*")


def _only(frame: DataFrame, table: Table, commit: Commit) -> DataFrame:
    """Let `frame` fail, when it is read, where a key comes twice."""
    keys = [_quoted(key) for key in table.keys]
    row = F.first(F.struct(*map(_quoted, frame.columns))).alias(ROW)
    counted = frame.groupBy(*keys).agg(row, F.count("*").alias(ROWS))
    place = F.format_string(
        f"{KEY_REPEATED}: batch {commit.version} of {commit.sink} has %s rows of the key %s for table {table.name}, "
        "and nothing says which of them is the newest; name the columns that do in newest_by, or leave one row a key",
        F.col(ROWS).cast("string"),
        F.substring(F.to_json(F.struct(*(F.col(ROW).getField(key).alias(key) for key in table.keys))), 1, SHOWN),
    )
    is_only = F.when(F.col(ROWS) > 1, F.raise_error(place).cast("boolean")).otherwise(True)
    return counted.where(is_only).select(f"{ROW}.*")


def _quoted(name: str) -> Column:
    return F.col(f"`{name}`")


def _upsert(frame: DataFrame, table: Table, commit: Commit) -> None:
    if table.repeats == "stop" and not table.newest_by:
        rows = _only(frame, table, commit)
    else:
        rows = newest(frame, table.keys, table.newest_by, table.repeats, table.sequence)
    created = snapshot(frame.sparkSession, table.path)
    if created.is_new():
        try:
            # There is nothing to look for: MERGE would plan a join, and take seconds for it.
            created.append(rows, commit.app_id(table), commit.version, commit.metadata(), alone=True)
            return
        except OVERTAKEN:
            pass
    columns = {name.lower() for name in (*rows.columns, *created.schema().names)}
    upsert = _merge if MERGE_COLUMNS.isdisjoint(columns) else _rewrite
    for attempt in range(1, MERGE_ATTEMPTS + 1):
        try:
            upsert(rows, table, commit)
            break
        except OVERTAKEN:
            # For example, its files were compacted meanwhile: nothing was committed, the next attempt reads anew.
            if attempt == MERGE_ATTEMPTS:
                raise


def _merge(rows: DataFrame, table: Table, commit: Commit) -> None:
    # MERGE takes these by session configuration only; a micro-batch has a session of its own.
    spark = rows.sparkSession
    conf = {METADATA_CONF: commit.metadata(), APP_ID: commit.app_id(table), VERSION: str(commit.version)}
    same_key = " AND ".join(f"s.`{key}` <=> t.`{key}`" for key in table.keys)
    with configured(spark, conf):
        merge = DeltaTable.forPath(spark, table.path).alias("t").merge(rows.alias("s"), same_key).withSchemaEvolution()
        merge.whenMatchedUpdateAll(_not_older(table)).whenNotMatchedInsertAll().execute()


def _rewrite(rows: DataFrame, table: Table, commit: Commit) -> None:
    """Merge rows by writing the table anew: for columns that MERGE cannot tell from its own."""
    current = snapshot(rows.sparkSession, table.path)
    held = rows.sparkSession.read.format("delta").option("versionAsOf", current.version).load(table.path)
    frame = _merged(held, rows, table.keys, _not_older(table))
    current.replace_rows(frame, "true", current.version, commit.metadata(), (commit.app_id(table), commit.version))


def _merged(held: DataFrame, rows: DataFrame, keys: Sequence[str], not_older: str | None) -> DataFrame:
    """Return all rows of the table `held` as MERGE would leave them, `rows` merged by `keys`.

    Args:
        rows: each key once; a column that they lack keeps its value in the table.
        not_older: SQL over `s`, a row that came, and `t`, the table's of the same key: whether it takes its place.
    """
    columns = _joined_columns(held.schema, rows.schema)
    names = columns.names
    both = held.to(columns).withColumn(CAME, F.lit(0)).unionByName(rows.to(columns).withColumn(CAME, F.lit(1)))
    row = F.struct(*map(_quoted, names))
    # Where only one side has the key, it is both `s` and `t`; a key may be called so, too.
    named = (_quoted(key).alias(f"{CAME}_{number}") for number, key in enumerate(keys))
    pairs = both.groupBy(*named).agg(F.max_by(row, CAME).alias("s"), F.min_by(row, CAME).alias("t"))
    given = {name.lower() for name in rows.columns}
    takes = F.expr(not_older) if not_older else F.lit(True)

    def value(name: str) -> Column:
        kept = F.col(f"t.`{name}`")
        return F.when(takes, F.col(f"s.`{name}`")).otherwise(kept) if name.lower() in given else kept

    return pairs.select(*(value(name).alias(name) for name in names))


def _joined_columns(old: StructType, new: StructType) -> StructType:
    """Return the fields of both, and of those that both have the wider type, which is the one in `new`."""
    came = {field.name.lower(): field.dataType for field in new.fields}
    joined = [(f.name, _joined_type(f.dataType, came.pop(f.name.lower(), f.dataType))) for f in old.fields]
    added = [(field.name, field.dataType) for field in new.fields if field.name.lower() in came]
    return StructType([StructField(name, kind) for name, kind in joined + added])


def _joined_type(old: DataType, new: DataType) -> DataType:
    if isinstance(old, StructType) and isinstance(new, StructType):
        return _joined_columns(old, new)
    if isinstance(old, ArrayType) and isinstance(new, ArrayType):
        return ArrayType(_joined_type(old.elementType, new.elementType))
    if isinstance(old, MapType) and isinstance(new, MapType):
        return MapType(_joined_type(old.keyType, new.keyType), _joined_type(old.valueType, new.valueType))
    return new


def _not_older(table: Table) -> str | None:
    if not table.newest_by:
        return None
    ours, theirs = (", ".join(f"{side}.`{name}`" for name in table.newest_by) for side in "st")
    not_older = f"struct({ours}) >= struct({theirs})"
    if not table.sequence:
        return not_older
    apart, count = table.sequence
    return f"IF(s.`{apart}` <=> t.`{apart}`, s.`{count}` >= t.`{count}`, {not_older})"
