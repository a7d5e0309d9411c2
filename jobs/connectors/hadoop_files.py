"""Reads, writes, lists, sizes, dates, moves and removes files and folders on any of Hadoop's file systems."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from jobs.connectors.causes import cause_line
from jobs.connectors.spark_internals import hadoop_conf, jvm

MOVING = "_tidemark_moving.json"  # in a folder on its way: where to, and whether all of it is there
FILE_UNREADABLE, FILE_NOT_CHANGED = "FILE_UNREADABLE", "FILE_NOT_CHANGED"
OPEN_IT = (
    "see that it is a file that the job's user may read, and how many files may be open (`ulimit -n`); "
    "then start the job again: it goes on where it was"
)
# File systems that rename a folder in one step; an object store copies what is in it, one by one, and then deletes.
RENAMING = ("file", "hdfs", "viewfs")


def located(spark: SparkSession, uri: str) -> tuple[Any, Any]:
    """Return the file system that holds `uri`, and its path there."""
    path = jvm(spark).org.apache.hadoop.fs.Path(uri)
    return path.getFileSystem(hadoop_conf(spark)), path


def read(spark: SparkSession, uri: str) -> str | None:
    """Return the text of a file; empty where its checksum is another one's, None where it is not there.

    Raises:
        TidemarkError: FILE_UNREADABLE.
    """
    files, path = located(spark, uri)
    if not files.exists(path):
        return None
    with opened(spark, uri) as stream:
        try:
            return str(jvm(spark).org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        except Py4JJavaError as exc:
            if exc.java_exception.getClass().getSimpleName() != "ChecksumException":
                raise
            return ""


@contextmanager
def opened(spark: SparkSession, uri: str) -> Iterator[Any]:
    """Give the stream of a file's bytes to the block.

    Raises:
        TidemarkError: FILE_UNREADABLE.
    """
    files, path = located(spark, uri)
    try:
        stream = files.open(path)
    except Py4JJavaError as exc:
        raise unreadable(uri, cause_line(exc)) from exc
    try:
        yield stream
    finally:
        stream.close()


def unreadable(uri: str, why: str) -> TidemarkError:
    """Make the FILE_UNREADABLE of a file that cannot be opened: what it holds may be whole."""
    return TidemarkError(FILE_UNREADABLE, f"{uri} cannot be opened: {why}", OPEN_IT)


def readable_bytes(spark: SparkSession, uri: str) -> int | None:
    """Return how long a file is that can be opened; None where there is no such file.

    Raises:
        TidemarkError: FILE_UNREADABLE.
    """
    files, path = located(spark, uri)
    if not files.exists(path) or files.getFileStatus(path).isDirectory():
        return None
    with opened(spark, uri):
        return int(files.getFileStatus(path).getLen())


def write(spark: SparkSession, uri: str, text: str) -> None:
    """Write a file, over one that is there."""
    files, path = located(spark, uri)
    stream = files.create(path, True)
    try:
        stream.write(bytearray(text.encode()))
    finally:
        stream.close()


def remove(spark: SparkSession, uri: str) -> None:
    """Remove a file and its checksum, or a folder with all that is in it; nothing where there is none.

    Raises:
        TidemarkError: FILE_NOT_CHANGED.
    """
    _remove(*located(spark, uri))


def rename(spark: SparkSession, uri: str, to: str) -> None:
    """Give a file or folder another place in its folder, where nothing is.

    Raises:
        TidemarkError: FILE_NOT_CHANGED.
    """
    files, path = located(spark, uri)
    _, target = located(spark, to)
    try:
        is_renamed = files.rename(path, target)
    except Py4JJavaError as exc:
        raise _not_changed(f"{uri} cannot be renamed to {to}: {cause_line(exc)}") from exc
    if not is_renamed:
        raise _not_changed(f"{uri} cannot be renamed to {to}")


def _remove(files: Any, path: Any) -> None:
    uri = str(path.toString())
    try:
        # Where nothing is, there is nothing to remove.
        is_removed = files.delete(path, True) or not files.exists(path)
    except Py4JJavaError as exc:
        raise _not_changed(f"{uri} cannot be removed: {cause_line(exc)}") from exc
    if not is_removed:
        raise _not_changed(f"{uri} cannot be removed")


def _not_changed(what: str) -> TidemarkError:
    remedy = "let this user write the folder that it lies in, and free space there; then run the same command again"
    return TidemarkError(FILE_NOT_CHANGED, what, remedy)


@dataclass(frozen=True)
class Entry:
    """A file or folder; `modified` is what the file system says: for a folder often only its creation time."""

    uri: str
    name: str
    is_folder: bool
    bytes: int
    modified: datetime


@dataclass(frozen=True)
class Size:
    """How much lies in a folder, at any depth."""

    files: int = 0
    bytes: int = 0


class Folders:
    """Reads and removes; checksum files, which Hadoop hides, are shown too."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark

    def entries(self, uri: str) -> list[Entry]:
        """List what lies in the folder, by name; nothing where there is none."""
        files, path = self._located(uri)
        if not files.exists(path):
            return []
        return sorted((_entry(status) for status in files.listStatus(path)), key=lambda entry: entry.name)

    def files(self, uri: str) -> Iterator[Entry]:
        """Yield every file at any depth."""
        for entry in self.entries(uri):
            if entry.is_folder:
                yield from self.files(entry.uri)
            else:
                yield entry

    def size(self, uri: str) -> Size:
        """Return how much lies there; nothing where there is no such folder."""
        files, path = self._located(uri)
        if not files.exists(path):
            return Size()
        summary = files.getContentSummary(path)
        return Size(int(summary.getFileCount()), int(summary.getLength()))

    def exists(self, uri: str) -> bool:
        files, path = self._located(uri)
        return bool(files.exists(path))

    def read(self, uri: str) -> str | None:
        """See `read`."""
        return read(self._spark, uri)

    def modified(self, uri: str) -> datetime | None:
        """Return when the newest file in it was written; None for a folder without files."""
        return max((entry.modified for entry in self.files(uri)), default=None)

    def remove(self, uri: str) -> None:
        """Remove a file, or a folder with all that is in it; errors as `remove`."""
        _remove(*self._located(uri))

    def copy(self, uri: str, to: str) -> None:
        """Copy a file, or a folder with all that is in it, to where nothing is yet; raises OSError where it cannot."""
        files, path = located(self._spark, uri)
        targets, target = located(self._spark, to)
        targets.mkdirs(target.getParent())
        copy = jvm(self._spark).org.apache.hadoop.fs.FileUtil.copy
        if not copy(files, path, targets, target, False, hadoop_conf(self._spark)):
            raise OSError(f"{uri} cannot be copied to {to}")

    def move(self, uri: str, to: str) -> None:
        """Give a folder another place; raises OSError where that is taken, or the file system refuses.

        Where the file system has no rename in one step, a move that was cut short goes on when it is asked for again:
        nothing is deleted before everything is copied.
        """
        files, path = self._located(uri)
        _, target = self._located(to)
        if files.exists(target) and not self.is_moving(uri, to):
            raise OSError(f"{uri} cannot be renamed to {to}")
        if str(files.getUri().getScheme()) not in RENAMING:
            self._copy_and_delete(uri, to)
            return
        files.mkdirs(target.getParent())
        if not files.rename(path, target):
            raise OSError(f"{uri} cannot be renamed to {to}")

    def is_moving(self, uri: str, to: str) -> bool:
        """Return whether a move of the folder to that place was begun, and cut short."""
        return self._moving(uri).get("to") == to

    def _moving(self, uri: str) -> dict[str, Any]:
        return dict(json.loads(read(self._spark, f"{uri}/{MOVING}") or "{}"))

    def _copy_and_delete(self, uri: str, to: str) -> None:
        note = f"{uri}/{MOVING}"
        if not self._moving(uri).get("copied"):
            write(self._spark, note, json.dumps({"to": to, "copied": False}))
            base = str(self._located(uri)[1].toString())
            for entry in self.files(uri):
                if entry.name != MOVING:
                    self.copy(entry.uri, f"{to}{entry.uri.removeprefix(base)}")
            write(self._spark, note, json.dumps({"to": to, "copied": True}))
        for entry in self.entries(uri):
            if entry.name != MOVING:
                self.remove(entry.uri)
        self.remove(uri)

    def _located(self, uri: str) -> tuple[Any, Any]:
        files, path = located(self._spark, uri)
        # The local disk's is wrapped in what hides checksum files; other file systems have none.
        is_local = str(files.getUri().getScheme()) == "file"
        return (files.getRawFileSystem() if is_local else files), path


def _entry(status: Any) -> Entry:
    path = status.getPath()
    modified = datetime.fromtimestamp(status.getModificationTime() / 1000, UTC)
    is_folder = bool(status.isDirectory())
    return Entry(str(path.toString()), str(path.getName()), is_folder, int(status.getLen()), modified)
