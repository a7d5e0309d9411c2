"""The daemon that forks Spark's Python workers, for victims: workers outlive it, and are quick to start.

A worker that is stopped (SIGSTOP) is woken by the kernel when its daemon dies, and told to hang up: in a session of its
own, deaf to SIGHUP, it stays the zombie that a test wants. What the workers import is imported once, here.

$FAULTS_PATCH=no-barrier takes the barrier out of the workers' transactions: a negative control.
"""

import os
import signal
from typing import Any

import pyspark.sql.pandas.serializers
import pyspark.worker
from pyspark.daemon import manager

from jobs.connectors.exactly_once import shards, transaction  # noqa: F401

PATCH = "FAULTS_PATCH"

_main = pyspark.worker.main


def main(infile: Any, outfile: Any) -> None:
    """In place of the worker's own, which runs one task after the other."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _main(infile, outfile)


READ = transaction.read_to_end  # type: ignore[attr-defined]


def read_to_any_end(connection: Any, start: Any, seconds: float, take: Any, suffices: Any = None) -> int:
    """In place of `read_to_end`: up to whatever end the broker tells first."""
    return READ(connection, start, seconds, take)


def remove_barrier() -> None:
    transaction.__dict__["read_to_end"] = read_to_any_end
    transaction.Transaction._barrier = lambda self: 0  # type: ignore[method-assign]


if __name__ == "__main__":
    if os.environ.get(PATCH) == "no-barrier":
        remove_barrier()
    pyspark.worker.main = main
    manager()
