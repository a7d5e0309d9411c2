"""Writes files that other processes read, whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a file beside `path` to write, which takes its place at the end of the block: a full disk, or a kill at any
    moment, leaves the old file or the new.

    Raises:
        OSError: with `path`, also where the system names none.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file)
        partial.replace(path)
    except OSError as exc:
        with suppress(OSError):
            partial.unlink()
        if exc.filename not in (None, str(partial)):
            raise
        raise OSError(exc.errno, exc.strerror, str(path)) from exc


def write_whole(path: Path, text: str) -> None:
    """Write a text as `written_whole` does."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
