"""What does observing cost a micro-batch? Prints milliseconds of a batch of `ingest`, and of what the monitor does.

    .tidemark/venv/bin/python -m bench.recorder [--rounds 4]

Batches of 100,000 records and of 100 are read from the topic departures, on a broker of its own and in one warm JVM,
with the monitor and without it in turn (ABBA); the first round is cold and stays out. What the monitor does is timed by
itself too: a difference of one in a hundred between two runs is less than what two equal runs differ by.
"""

import statistics
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from bench.workbench import YEAR, Workbench, milliseconds, own_workbench, read_options, stop, wait_for_batch
from conf.errors import exit_on_error
from jobs.ingest import job
from jobs.pipeline.monitoring.monitor import Monitor
from jobs.pipeline.run import Run

TOPIC = "departures"
SIZES = {100_000: 300_000, 100: 2_000}  # records of a batch -> records that are read
IN_THE_WAY, BESIDE, FOLD = "in the query's thread", "in other threads", "fold, once a minute"


class TimedMonitor(Monitor):
    """A monitor that adds up how long each of its parts takes."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._began = self._timed(IN_THE_WAY, self._began)  # type: ignore[method-assign]
        self.onQueryProgress = self._timed(BESIDE, self.onQueryProgress)  # type: ignore[method-assign]
        self._recorder.fold = self._timed(FOLD, self._recorder.fold)  # type: ignore[method-assign]

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                self.seconds[part].append(time.perf_counter() - began)

        return timed


def main() -> int:
    """Run the rounds of both sizes, and print a table for each."""
    rounds = read_options(__doc__, rounds=4).rounds
    with own_workbench() as bench:
        bench.publish_flights(YEAR)
        for size in SIZES:
            _measure(bench, size, rounds)
    return 0


def _measure(bench: Workbench, size: int, rounds: int) -> None:
    batches: dict[bool, list[float]] = {True: [], False: []}
    parts: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for observed in (True, False, False, True):
            took, seconds = _batches(bench, size, observed)
            if number:
                batches[observed] += took
                for part, values in seconds.items():
                    parts[part] += values
    whole, bare = statistics.median(batches[True]), statistics.median(batches[False])
    print(f"a batch of {size:,} records, medians of {len(batches[True])} batches")
    print(f"  {'with the monitor':<28}{whole:>10.1f} ms\n  {'without':<28}{bare:>10.1f} ms")
    for part, values in parts.items():
        middle = statistics.median(values) * 1000
        print(f"  {part:<28}{middle:>10.2f} ms{middle / bare:>10.2%} of a batch")


def _batches(bench: Workbench, size: int, observed: bool) -> tuple[list[float], dict[str, list[float]]]:
    """Milliseconds of each batch of one run, and seconds of each part of what observed it."""
    run = bench.run(f"ingest/{uuid.uuid4().hex}", size, f"ingest.topics={TOPIC}")
    job.build(run)
    monitor = TimedMonitor(run) if observed else nullcontext()
    with monitor:
        (query,) = run.start(continuous=False)
        wait_for_batch(query, SIZES[size] // size)
        stop(query)
    return milliseconds(query.recentProgress)[1:], monitor.seconds if isinstance(monitor, TimedMonitor) else {}


if __name__ == "__main__":
    exit_on_error(main)
