"""A query's checkpoint folder, read and written through Hadoop's file system, wherever the folder lies."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import SparkSession

NO_OFFSET = "-"  # what Spark writes for a source that has not begun yet
NO_WATERMARK = 'v1\n{"nextBatchWatermarkMs":0}'  # the commit log entry of a query without state


def opening(spark: SparkSession, checkpoint: str, batch: int) -> dict[str, str]:
    """The texts of the files that fix micro-batch `batch`, by path in the checkpoint.

    They are its own entry in the offset log, the one before it, and where those sources began that had not begun then.
    """
    texts = _texts(spark, checkpoint, _entries(batch))
    begun = _before(texts, batch) or ()
    return texts | _texts(spark, checkpoint, [_start(source) for source, at in enumerate(begun) if at is None])


def batch_offsets(files: Mapping[str, str], batch: int) -> dict[str, Any]:
    """The source offsets of micro-batch `batch`, an entry a source: from `from` to before `until`.

    `from` is where the batch before ended; of a source that had not begun then, its initial offsets (null, where it has
    none). It is null as a whole where Spark no longer keeps the batch before.

    Args:
        files: the batch's `opening`.
    """
    before = _before(files, batch)
    if before is not None:
        before = [initial_offsets(files.get(_start(n))) if at is None else at for n, at in enumerate(before)]
    return {"from": before, "until": _sources(files.get(_entry(batch)))}


def planned_at(files: Mapping[str, str], batch: int) -> datetime:
    """When Spark fixed the offsets of micro-batch `batch`: `current_timestamp()` in its plan is the same.

    Args:
        files: the batch's `opening`.
    """
    milliseconds = json.loads(files[_entry(batch)].splitlines()[1])["batchTimestampMs"]
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _before(files: Mapping[str, str], batch: int) -> list[Any] | None:
    """Where each source was before the batch; None for one that had not begun."""
    if batch:
        return _sources(files.get(_entry(batch - 1)))
    return [None for _ in _sources(files.get(_entry(batch))) or ()]


def _entries(batch: int) -> list[str]:
    return [_entry(batch), _entry(batch - 1)] if batch else [_entry(batch)]


def _entry(batch: int) -> str:
    return f"offsets/{batch}"


def _start(source: int) -> str:
    return f"sources/{source}/0"


def _texts(spark: SparkSession, checkpoint: str, paths: Iterable[str]) -> dict[str, str]:
    """Of those of `paths` that are there."""
    texts = {path: read(spark, f"{checkpoint}/{path}") for path in paths}
    return {path: text for path, text in texts.items() if text is not None}


def entry(spark: SparkSession, checkpoint: str, batch: int) -> str | None:
    """The text of micro-batch `batch` in the offset log, as Spark wrote it; None where it is not there."""
    return read(spark, f"{checkpoint}/{_entry(batch)}")


def initial_offsets(text: str | None) -> dict[str, dict[str, int]] | None:
    """Where a Kafka source began, by topic and partition, in its file `sources/<number>/0`; None for other sources."""
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
