"""Names a process for all times, and says whether it has ended.

A transaction lives in the memory of the process that began it: once that is gone, nobody can commit it. Linux names a
process for all times by boot, PID namespace, PID and start.
"""

import os
import socket
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

PROC = Path("/proc")
# The field of /proc/PID/stat with the start, in ticks after the boot, counted behind the name, which may hold anything.
STARTED = 19
# These states mean that a process has ended, and that its parent has not asked how.
STATE, ENDED = 0, ("Z", "X")


@dataclass(frozen=True)
class Author:
    """A process: `boot`, `namespace` and `started` are empty where there is no /proc."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def from_fields(cls, fields: Any) -> Self | None:
        """Return the author that an `open` marker holds; None for one of an earlier version."""
        try:
            return cls(**fields)
        except TypeError:
            return None

    @property
    def fields(self) -> dict[str, Any]:
        """Return the process as a marker holds it."""
        return asdict(self)

    def __str__(self) -> str:
        return f"process {self.pid} of {self.host}"


def this_process() -> Author:
    """Return the process that asks."""
    return _process(os.getpid())  # a worker that was forked is another process than the one that was asked before


@cache
def _process(pid: int) -> Author:
    boot, namespace = _place()
    stat = _stat(pid)
    return Author(socket.gethostname(), boot, namespace, pid, stat[STARTED] if stat else "")


def is_gone(author: Author) -> bool | None:
    """Return whether the process has ended; None where this machine cannot know it."""
    boot, namespace = _place()
    if not (author.started and boot and namespace) or (author.boot, author.namespace) != (boot, namespace):
        return None
    stat = _stat(author.pid)
    return stat is None or stat[STARTED] != author.started or stat[STATE] in ENDED


def _place() -> tuple[str, str]:
    try:
        boot = (PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
        return boot, str((PROC / "self" / "ns" / "pid").readlink())
    except OSError:
        return "", ""


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat behind the process's name; None where there is no such process."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
