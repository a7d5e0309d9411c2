"""A Delta table that freezes each micro-batch before it is published: what was computed first is what is published."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.connectors import delta

BATCH = "tidemark_batch"
POSITION = "tidemark_position"
# Old batches are removed now and then: each removal is a commit of its own.
KEPT_BATCHES = 10


def frozen(frame: DataFrame, path: str, commit: delta.Commit) -> DataFrame:
    """The rows of `frame` as they were when the batch was first computed, read from the table at `path`.

    Further column: POSITION long, which tells the order that rows had within their partition.
    """
    spark = frame.sparkSession
    table = delta.Table("outbox", path, partition_by=(BATCH,))
    numbered = frame.withColumn(BATCH, F.lit(commit.version)).withColumn(POSITION, F.monotonically_increasing_id())
    delta.write(numbered, table, commit)
    if commit.version % KEPT_BATCHES == 0:
        spark.sql(f"DELETE FROM delta.`{path}` WHERE {BATCH} < {commit.version - KEPT_BATCHES}")
    rows = spark.read.format("delta").load(path).where(F.col(BATCH) == commit.version)
    return rows.drop(BATCH)
