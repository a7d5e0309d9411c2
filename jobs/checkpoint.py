"""What Spark wrote into a query's checkpoint folder, read through Hadoop's file system, wherever the folder lies."""

import json
from typing import Any

from pyspark.sql import SparkSession


def batch_offsets(spark: SparkSession, checkpoint: str, batch: int) -> dict[str, Any]:
    """The source offsets of micro-batch `batch`: `from` (null for a first batch) and `until` (exclusive), by source."""
    return {"from": _sources(spark, checkpoint, batch - 1), "until": _sources(spark, checkpoint, batch)}


def _sources(spark: SparkSession, checkpoint: str, batch: int) -> list[Any] | None:
    text = _read(spark, f"{checkpoint}/offsets/{batch}")
    if text is None:
        return None
    # Line 1 is the format's version, line 2 the batch's metadata, then one line a source.
    return [json.loads(line) if line.startswith("{") else line for line in text.splitlines()[2:]]


def _read(spark: SparkSession, uri: str) -> str | None:
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(uri)
    files = path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf())
    if not files.exists(path):
        return None
    stream = files.open(path)
    try:
        return str(jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
    finally:
        stream.close()
