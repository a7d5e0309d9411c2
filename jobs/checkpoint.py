"""What Spark wrote into a query's checkpoint folder, read through Hadoop's file system, wherever the folder lies."""

import json
from typing import Any

from pyspark.sql import SparkSession

NO_OFFSET = "-"  # what Spark writes for a source that has not begun yet


def batch_offsets(spark: SparkSession, checkpoint: str, batch: int) -> dict[str, Any]:
    """The source offsets of micro-batch `batch`, an entry a source: from `from` to before `until`.

    `from` is where the batch before ended; of a source that had not begun then, its initial offsets (null, where it has
    none). It is null as a whole where Spark no longer keeps the batch before.
    """
    until = _sources(entry(spark, checkpoint, batch))
    before = _sources(entry(spark, checkpoint, batch - 1)) if batch else [None for _ in until or ()]
    if before is not None:
        before = [
            initial_offsets(spark, checkpoint, source) if offsets is None else offsets
            for source, offsets in enumerate(before)
        ]
    return {"from": before, "until": until}


def entry(spark: SparkSession, checkpoint: str, batch: int) -> str | None:
    """The text of micro-batch `batch` in the offset log, as Spark wrote it; None where it is not there."""
    return _read(spark, f"{checkpoint}/offsets/{batch}")


def initial_offsets(spark: SparkSession, checkpoint: str, source: int) -> dict[str, dict[str, int]] | None:
    """Where the Kafka source number `source` of the query began, by topic and partition; None for other sources."""
    text = _read(spark, f"{checkpoint}/sources/{source}/0")
    # Line 1 is the format's version, behind a zero byte for a Spark of long ago.
    lines = text.splitlines()[1:] if text else []
    offsets = json.loads(lines[0]) if len(lines) == 1 and lines[0].startswith("{") else None
    # Other sources keep files of their own there, a file source JSON too: only Kafka's has a table for every key.
    return offsets if offsets is not None and all(isinstance(value, dict) for value in offsets.values()) else None


def _sources(text: str | None) -> list[Any] | None:
    if text is None:
        return None
    # Line 1 is the format's version, line 2 the batch's metadata, then one line a source.
    return [_offsets(line) for line in text.splitlines()[2:]]


def _offsets(line: str) -> Any:
    if line == NO_OFFSET:
        return None
    return json.loads(line) if line.startswith("{") else line


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
