"""A query's checkpoint folder, read and written through Hadoop's file system, wherever the folder lies."""

import json
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import SparkSession

from jobs.offset_log import (
    NO_OFFSET,
    batch_offsets,
    before_batch,
    entry_file,
    initial_offsets,
    late_watermark_ms,
    planned_at,
    source_offsets,
    start_file,
)

# What the texts mean is had from here too; programs without a JVM have it from `jobs.offset_log`.
__all__ = [
    "NO_OFFSET",
    "batch_offsets",
    "entry",
    "initial_offsets",
    "is_damaged",
    "last_commit",
    "late_watermark_ms",
    "move_aside",
    "opening",
    "planned_at",
    "query_id",
    "read",
    "rebuild",
    "set_initial_offsets",
    "write",
]

NO_WATERMARK = 'v1\n{"nextBatchWatermarkMs":0}'  # the commit log entry of a query without state


def opening(spark: SparkSession, checkpoint: str, batch: int, begun: dict[str, str] | None = None) -> dict[str, str]:
    """The texts of the files that fix micro-batch `batch`, by path in the checkpoint.

    They are its own entry in the offset log, the one before it, and where its sources began: of sources other than
    Kafka's, whose files are larger, only where those began that had not begun then.

    Args:
        begun: the files of Kafka sources that were read for an earlier batch, and never change; new ones are added.
    """
    begun = {} if begun is None else begun
    texts = _texts(spark, checkpoint, [entry_file(batch), entry_file(batch - 1)] if batch else [entry_file(batch)])
    sources = range(len(source_offsets(texts.get(entry_file(batch))) or ()))
    missing = [start_file(source) for source in sources if start_file(source) not in begun]
    read_now = _texts(spark, checkpoint, missing)
    begun.update({path: text for path, text in read_now.items() if initial_offsets(text) is not None})
    before = before_batch(texts, batch) or ()
    first = {start_file(source) for source, at in enumerate(before) if at is None}
    return texts | begun | {path: text for path, text in read_now.items() if path in first}


def _texts(spark: SparkSession, checkpoint: str, paths: Iterable[str]) -> dict[str, str]:
    """Of those of `paths` that are there."""
    texts = {path: read(spark, f"{checkpoint}/{path}") for path in paths}
    return {path: text for path, text in texts.items() if text is not None}


def entry(spark: SparkSession, checkpoint: str, batch: int) -> str | None:
    """The text of micro-batch `batch` in the offset log, as Spark wrote it; None where it is not there."""
    return read(spark, f"{checkpoint}/{entry_file(batch)}")


def set_initial_offsets(spark: SparkSession, folder: str, source: int, offsets: Mapping[str, Any]) -> None:
    """Let the Kafka source of that number have begun at `offsets`, by topic and partition."""
    # Spark skips a byte in front of the version.
    write(spark, f"{folder}/{start_file(source)}", f"\0v1\n{json.dumps(offsets)}")


def located(spark: SparkSession, uri: str) -> tuple[Any, Any]:
    """The file system that holds `uri`, and its path there."""
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(uri)
    return path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf()), path


def read(spark: SparkSession, uri: str) -> str | None:
    """The text of a file; empty where its checksum is another one's, None where it is not there."""
    jvm: Any = spark._jvm
    files, path = located(spark, uri)
    if not files.exists(path):
        return None
    stream = files.open(path)
    try:
        return str(jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
    except Py4JJavaError as exc:
        if exc.java_exception.getClass().getSimpleName() != "ChecksumException":
            raise
        return ""
    finally:
        stream.close()


def query_id(spark: SparkSession, checkpoint: str) -> str | None:
    """The id that Spark gave the query; None where no query has used the folder yet."""
    text = read(spark, f"{checkpoint}/metadata")
    return str(json.loads(text)["id"]) if text and _is_json(text) else None


def last_commit(spark: SparkSession, checkpoint: str) -> int | None:
    """The last micro-batch that Spark took for done."""
    return _last(spark, f"{checkpoint}/commits")


def conf(spark: SparkSession, checkpoint: str, batch: int) -> dict[str, str]:
    """Spark's configuration that the offset log froze with micro-batch `batch`; empty where it is not there."""
    text = entry(spark, checkpoint, batch)
    return dict(json.loads(text.splitlines()[1]).get("conf", {})) if text else {}


def is_damaged(spark: SparkSession, checkpoint: str) -> bool:
    """Whether a file that the next run begins with is empty or cut short, as the end of a machine may leave it."""
    logs = [(log, _last(spark, f"{checkpoint}/{log}")) for log in ("offsets", "commits")]
    texts = [read(spark, f"{checkpoint}/{log}/{last}") or "" for log, last in logs if last is not None]
    metadata = read(spark, f"{checkpoint}/metadata")
    return any(not _is_whole(text) for text in texts) or (metadata is not None and not _is_json(metadata))


def _last(spark: SparkSession, folder: str) -> int | None:
    files, path = located(spark, folder)
    names = [str(status.getPath().getName()) for status in files.listStatus(path)] if files.exists(path) else []
    return max((int(name) for name in names if name.isdecimal()), default=None)


def _is_whole(entry: str) -> bool:
    version, *lines = entry.splitlines() or [""]
    return version.startswith("v") and bool(lines) and all(line == NO_OFFSET or _is_json(line) for line in lines)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def move_aside(spark: SparkSession, checkpoint: str) -> str | None:
    """Rename the folder, and return its new place; None where there is none."""
    files, path = located(spark, checkpoint)
    if not files.exists(path):
        return None
    for number in count(1):
        _, aside = located(spark, f"{checkpoint}.replaced-{number}")
        if not files.exists(aside):
            files.rename(path, aside)
            return str(aside.toString())
    raise AssertionError("the loop has no end")


def rebuild(spark: SparkSession, checkpoint: str, query_id: str, batch: int, texts: Mapping[str, str]) -> None:
    """A new checkpoint of a query without state, which begins micro-batch `batch` as `texts` (of `opening`) fix it."""
    files = {"metadata": json.dumps({"id": query_id}), **texts}
    if batch:
        files[f"commits/{batch - 1}"] = NO_WATERMARK
    for name, text in files.items():
        write(spark, f"{checkpoint}/{name}", text)


def write(spark: SparkSession, uri: str, text: str) -> None:
    """Write a file, over one that is there."""
    files, path = located(spark, uri)
    stream = files.create(path, True)
    try:
        stream.write(bytearray(text.encode()))
    finally:
        stream.close()
