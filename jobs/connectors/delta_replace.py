"""Rows of a Delta table swapped for others in one transaction, against the very version that was looked at.

Spark's own `replaceWhere` begins with the newest version when it starts: what a live query has written since the rows
were compared would be replaced unseen. Here the transaction begins with the version that was compared, and Delta itself
refuses it where a later one has touched those rows.
"""

from collections.abc import Mapping
from typing import Any

from delta.exceptions import DeltaConcurrentModificationException
from pyspark.sql import DataFrame

from jobs.connectors.delta import OVERTAKEN
from jobs.connectors.delta_history import snapshot

# Those of OVERTAKEN are no kinds of it, as Delta has them in Python.
CONFLICT = (*OVERTAKEN, DeltaConcurrentModificationException)


def replace_rows(frame: DataFrame, path: str, condition: str, version: int, metadata: str) -> int:
    """Swap the rows of the table at `path` that meet the SQL `condition` for those of `frame`; the new version.

    Args:
        version: of the table, that the swap is based on.
        metadata: what the commit says of itself.

    Raises:
        one of CONFLICT, where rows were written since `version` that may meet the condition.
    """
    spark = frame.sparkSession
    jvm: Any = spark._jvm
    delta = jvm.org.apache.spark.sql.delta
    none, some = jvm.scala.Option.empty(), jvm.scala.Option.apply
    log = snapshot(spark, path).deltaLog()
    at = log.getSnapshotAt(version, none, none, False)
    session = spark._jsparkSession
    options = {"replaceWhere": condition, "userMetadata": metadata, "mergeSchema": "true"}
    delta_options = delta.DeltaOptions(_scala_map(jvm, options), session.sessionState().conf())
    mode = jvm.org.apache.spark.sql.SaveMode.Overwrite
    transaction = log.startTransaction(none, some(at))
    columns = at.metadata().partitionColumns()
    how = log, mode, delta_options, columns, _scala_map(jvm, {}), frame._jdf, none, none, False
    data = delta.commands.WriteIntoDelta(*how).writeAndReturnCommitData(transaction, session, none, False)
    said = some(condition), some(metadata), none, none, none, none, none
    operation = getattr(delta, "DeltaOperations$Write")(mode, some(columns), *said)
    return int(transaction.commit(data.actions(), operation, data.stringTags()))


def _scala_map(jvm: Any, entries: Mapping[str, str]) -> Any:
    return jvm.org.apache.spark.api.python.PythonUtils.toScalaMap(dict(entries))
