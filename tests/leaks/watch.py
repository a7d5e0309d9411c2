"""What a test's child processes show, and spill, from moment to moment while something runs."""

import fnmatch
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.leaks.search import LZ4_MAGIC, command_line, environment, listening

SECONDS = 0.5


@dataclass
class Watched:
    """What was seen.

    Attributes:
        lines: command lines of all processes; `workers`: what Python workers were started with.
        addresses: on which any process listened.
        spilled: by the names of files of shuffles, whether they could be read: they begin as Spark's codec does.
    """

    lines: set[bytes] = field(default_factory=set)
    workers: set[bytes] = field(default_factory=set)
    addresses: set[tuple[str, int]] = field(default_factory=set)
    spilled: dict[str, bool] = field(default_factory=dict)

    def look(self, spills: Path) -> None:
        """See what is there now."""
        children = psutil.Process().children(recursive=True)
        lines = {child: command_line(child) for child in children}
        self.lines |= set(lines.values())
        self.workers |= {environment(child) for child, line in lines.items() if b"pyspark.daemon" in line}
        self.addresses |= listening(children)
        for place, _, files in os.walk(spills):
            for name in fnmatch.filter(files, "shuffle_*.data"):
                with suppress(FileNotFoundError):
                    if head := Path(place, name).read_bytes()[: len(LZ4_MAGIC)]:
                        self.spilled[name] = head == LZ4_MAGIC


@contextmanager
def watched(spills: Path) -> Iterator[Watched]:
    """Look at all children of this process and at the files under `spills`, twice a second, while the block runs."""
    seen, ended = Watched(), threading.Event()

    def watch() -> None:
        while not ended.wait(SECONDS):
            seen.look(spills)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
