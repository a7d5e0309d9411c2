"""Reads and writes a query's checkpoint folder through Hadoop's file system, wherever the folder lies.

`jobs.pipeline.checkpoint_format` says what its files mean, for programs without a JVM too.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import count, takewhile
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pyspark.sql import SparkSession

from jobs.connectors.hadoop_files import located, rename
from jobs.connectors.hadoop_files import read as read
from jobs.connectors.hadoop_files import remove as remove
from jobs.connectors.hadoop_files import write as write
from jobs.pipeline import paths
from jobs.pipeline.checkpoint_format import (
    COMMITS,
    METADATA,
    NO_OFFSET,
    OFFSETS,
    before_batch,
    commit_file,
    entry_file,
    initial_offsets,
    source_offsets,
    start_file,
)

CUT = "is empty or cut short"
FILE_MANAGER = "spark.sql.streaming.checkpointFileManagerClass"
# Hadoop's FileContext starts the program `readlink` three times for each local file that is renamed: a third of the CPU
# time of a small batch with state. Both ways look whether the target is there, and then rename.
LOCAL_FILE_MANAGER = "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
NO_WATERMARK = 'v1\n{"nextBatchWatermarkMs":0}'  # the commit log entry of a query without state


def choose_file_manager(spark: SparkSession, checkpoint: str) -> None:
    """Let Spark write the files of a local checkpoint without starting processes; elsewhere its own choice stands."""
    if urlsplit(checkpoint).scheme in ("", "file"):
        spark.conf.set(FILE_MANAGER, LOCAL_FILE_MANAGER)


def opening(spark: SparkSession, checkpoint: str, batch: int, begun: dict[str, str] | None = None) -> dict[str, str]:
    """Return the texts of the files that fix micro-batch `batch`, by path in the checkpoint.

    They are its own entry in the offset log, the one before it, and where its sources began. Sources other than Kafka's
    have larger files: only those that had not begun with the entry before are included.

    Args:
        begun: the files of Kafka sources that were read for an earlier batch, and never change; new ones are added.
    """
    begun = {} if begun is None else begun
    texts = _texts(spark, checkpoint, [entry_file(batch), entry_file(batch - 1)] if batch else [entry_file(batch)])
    sources = map(start_file, range(len(source_offsets(texts.get(entry_file(batch))) or ())))
    read_now = _texts(spark, checkpoint, [file for file in sources if file not in begun])
    begun.update({path: text for path, text in read_now.items() if initial_offsets(text) is not None})
    before = before_batch(texts, batch) or ()
    first = {start_file(source) for source, at in enumerate(before) if at is None}
    return texts | begun | {path: text for path, text in read_now.items() if path in first}


def _texts(spark: SparkSession, checkpoint: str, paths: Iterable[str]) -> dict[str, str]:
    texts = {path: read(spark, f"{checkpoint}/{path}") for path in paths}
    return {path: text for path, text in texts.items() if text is not None}


def entry(spark: SparkSession, checkpoint: str, batch: int) -> str | None:
    """Return the text of micro-batch `batch` in the offset log, as Spark wrote it; None where it is not there."""
    return read(spark, f"{checkpoint}/{entry_file(batch)}")


def set_initial_offsets(spark: SparkSession, folder: str, source: int, offsets: Mapping[str, Any]) -> None:
    """Write that the Kafka source of that number began at `offsets`, by topic and partition."""
    # Spark skips a byte in front of the version.
    write(spark, f"{folder}/{start_file(source)}", f"\0v1\n{json.dumps(offsets)}")


def set_entry(spark: SparkSession, folder: str, batch: int, text: str, is_done: bool) -> None:
    """Write a micro-batch into the offset log and, unless it `is_done`, the commit log of a query without state."""
    write(spark, f"{folder}/{entry_file(batch)}", text)
    if not is_done:
        write(spark, f"{folder}/{commit_file(batch)}", NO_WATERMARK)


def query_id(spark: SparkSession, checkpoint: str) -> str | None:
    """Return the id that Spark gave the query; None where no query has used the folder yet."""
    return _id_in(read(spark, f"{checkpoint}/{METADATA}") or "")


def last_commit(spark: SparkSession, checkpoint: str) -> int | None:
    """Return the last micro-batch in the commit log: Spark takes it for done."""
    return max(_batches(spark, f"{checkpoint}/{COMMITS}"), default=None)


def conf(spark: SparkSession, checkpoint: str, batch: int) -> dict[str, str]:
    """Return Spark's configuration that the offset log froze with micro-batch `batch`; empty where it is not there."""
    text = entry(spark, checkpoint, batch)
    return dict(json.loads(text.splitlines()[1]).get("conf", {})) if text else {}


def positions(spark: SparkSession, checkpoint: str) -> list[Any]:
    """Return where each source goes on, by the checkpoint: behind the last batch that is done, else where it began.

    It is null for a source that has not begun, or of which neither is known.
    """
    done = last_commit(spark, checkpoint)
    ended = None if done is None else source_offsets(entry(spark, checkpoint, done))
    if ended is None:
        begun = (read(spark, f"{checkpoint}/{start_file(number)}") for number in count())
        return [initial_offsets(text) for text in takewhile(lambda text: text is not None, begun)]
    return [
        initial_offsets(read(spark, f"{checkpoint}/{start_file(number)}")) if at is None else at
        for number, at in enumerate(ended)
    ]


def last_entry(spark: SparkSession, checkpoint: str) -> int | None:
    return max(_batches(spark, f"{checkpoint}/{OFFSETS}"), default=None)


def has_begun(spark: SparkSession, checkpoint: str) -> bool:
    return query_id(spark, checkpoint) is not None or last_entry(spark, checkpoint) is not None


class Damage(NamedTuple):
    """A file that the next run begins with and cannot, by its path in the checkpoint, and what is wrong with it."""

    file: str
    what: str


def damage(spark: SparkSession, checkpoint: str) -> Damage | None:
    """Return the first damaged file of those that the next run begins with, as a crash or a copy may leave one.

    They are the last entry of the offset log, the one before it, the last of the commit log and `metadata`; and where
    Kafka sources began.
    """
    begun, done = last_entry(spark, checkpoint), last_commit(spark, checkpoint)
    if begun is None and done is None:
        metadata = read(spark, f"{checkpoint}/{METADATA}")
        return None if metadata is None or _is_readable(METADATA, metadata) else Damage(METADATA, CUT)
    last = max(number for number in (begun, done) if number is not None)
    needed = [METADATA, entry_file(last), *([commit_file(done)] if done is not None else [])]
    texts = {file: read(spark, f"{checkpoint}/{file}") for file in needed}
    # Spark may no longer keep these.
    sources = range(len((texts[entry_file(last)] or "").splitlines()[2:]))
    perhaps = [start_file(source) for source in sources] + ([entry_file(last - 1)] if last else [])
    texts |= _texts(spark, checkpoint, perhaps)
    for file, text in texts.items():
        if text is None:
            return Damage(file, "is missing")
        if not _is_readable(file, text):
            return Damage(file, CUT)
    before = source_offsets(texts.get(entry_file(last - 1)))
    # A query keeps its sources for as long as its checkpoint.
    if before is not None and len(source_offsets(texts[entry_file(last)]) or ()) < len(before):
        return Damage(entry_file(last), CUT)
    return None


def _is_readable(file: str, text: str) -> bool:
    if file == METADATA:
        return _id_in(text) is not None
    if file.startswith("sources/"):
        # Files of other kinds of sources are not checked here.
        lines = text.splitlines()[1:]
        return not (len(lines) == 1 and lines[0].startswith("{")) or _is_json(lines[0])
    version, *lines = text.splitlines() or [""]
    if not (version.startswith("v") and lines and all(line == NO_OFFSET or _is_json(line) for line in lines)):
        return False
    return bool(source_offsets(text)) or not file.startswith(f"{OFFSETS}/")


def _id_in(metadata: str) -> str | None:
    """Return the query's id in the text of a file `metadata`; None where it has none."""
    held = json.loads(metadata) if _is_json(metadata) else None
    id = held.get("id") if isinstance(held, dict) else None
    return id if isinstance(id, str) else None


def forget_after(spark: SparkSession, checkpoint: str, batch: int) -> None:
    """Remove the entries of all batches after `batch`, which the next run plans anew; where it is the -1st, all."""
    # Spark goes on behind a batch only with its entry in the offset log, so the oldest kept entry is not removed.
    last = max(batch, min(_batches(spark, f"{checkpoint}/{OFFSETS}"), default=-1)) if batch >= 0 else -1
    for log in (COMMITS, OFFSETS):
        for number in sorted(_batches(spark, f"{checkpoint}/{log}"), reverse=True):
            if number > last:
                remove(spark, f"{checkpoint}/{log}/{number}")
        if last < 0:
            remove(spark, f"{checkpoint}/{log}")  # in an empty one Spark takes checksums for entries


def _batches(spark: SparkSession, folder: str) -> list[int]:
    files, path = located(spark, folder)
    names = [str(status.getPath().getName()) for status in files.listStatus(path)] if files.exists(path) else []
    return [int(name) for name in names if name.isdecimal()]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def move_aside(spark: SparkSession, checkpoint: str) -> str | None:
    """Rename the folder, and return its new place; None where there is none. Raises TidemarkError FILE_NOT_CHANGED,
    before anything is made in the folder's place."""
    files, path = located(spark, checkpoint)
    if not files.exists(path):
        return None
    for number in count(1):
        _, aside = located(spark, paths.replaced(checkpoint, number))
        if not files.exists(aside):
            rename(spark, checkpoint, str(aside.toString()))
            return str(aside.toString())
    raise AssertionError("the loop has no end")


def rebuild(spark: SparkSession, checkpoint: str, query_id: str, batch: int, texts: Mapping[str, str]) -> None:
    """Make a checkpoint of a query without state, which begins micro-batch `batch` as `texts` (of `opening`) fix it."""
    files = {METADATA: json.dumps({"id": query_id}), **texts}
    if batch:
        files[commit_file(batch - 1)] = NO_WATERMARK
    for name, text in files.items():
        write(spark, f"{checkpoint}/{name}", text)
