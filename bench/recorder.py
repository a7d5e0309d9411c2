"""What does observing cost a micro-batch? Prints milliseconds of a batch of `ingest`, and of what the monitor does.

    local/tidemark broker start && local/tidemark topics apply && local/tidemark publish flights
    .tidemark/venv/bin/python -m bench.recorder [--rounds 4]

Batches of 100,000 records and of 100 are read from the topic departures in one warm JVM, with the monitor and without
it in turn (ABBA); the first round is cold and stays out. What the monitor does is timed by itself too: a difference of
one in a hundred between two runs is less than what two equal runs differ by.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from conf import command_line, state_dir
from conf.errors import TidemarkError, exit_on_error
from conf.settings import load
from jobs.ingest import job
from jobs.pipeline.monitoring.monitor import Monitor
from jobs.pipeline.run import Run
from local.demo import records_in
from local.driver import spark_session

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    options = command_line.parse(parser, sys.argv[1:])
    if records_in(load(), TOPIC) < max(SIZES.values()):
        raise TidemarkError("NO_RECORDS", f"topic {TOPIC} is too short", "`local/tidemark publish flights` fills it")
    spark = spark_session(load(), "bench")
    for size in SIZES:
        _measure(spark, size, options.rounds)
    spark.stop()
    return 0


def _measure(spark: SparkSession, size: int, rounds: int) -> None:
    batches: dict[bool, list[float]] = {True: [], False: []}
    parts: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for observed in (True, False, False, True):
            milliseconds, seconds = _caught_up(spark, size, observed)
            if number:
                batches[observed] += milliseconds
                for part, values in seconds.items():
                    parts[part] += values
    whole, bare = statistics.median(batches[True]), statistics.median(batches[False])
    print(f"a batch of {size:,} records, medians of {len(batches[True])} batches")
    print(f"  {'with the monitor':<28}{whole:>10.1f} ms\n  {'without':<28}{bare:>10.1f} ms")
    for part, values in parts.items():
        middle = statistics.median(values) * 1000
        print(f"  {part:<28}{middle:>10.2f} ms{middle / bare:>10.2%} of a batch")


def _caught_up(spark: SparkSession, size: int, observed: bool) -> tuple[list[float], dict[str, list[float]]]:
    """Milliseconds of each batch of one run, and seconds of each part of what observed it."""
    with tempfile.TemporaryDirectory(dir=state_dir()) as scratch:
        places = [f"paths.{name}={Path(scratch) / name}" for name in ("tables", "checkpoints")]
        bounds = [f"ingest.topics={TOPIC}", f"source.max_offsets_per_trigger={size}"]
        run = Run(spark, load(overrides=[*places, *bounds]), "ingest")
        job.build(run)
        monitor = TimedMonitor(run) if observed else nullcontext()
        with monitor:
            queries = run.start(continuous=False)
            until = SIZES[size] // size
            while not (seen := queries[0].lastProgress) or (queries[0].isActive and seen.batchId < until):
                time.sleep(0.05)
            for query in queries:
                query.stop()
            if error := queries[0].exception():
                raise error
            milliseconds = [float(each.durationMs["triggerExecution"]) for each in queries[0].recentProgress]
        return milliseconds[1:], monitor.seconds if isinstance(monitor, TimedMonitor) else {}


if __name__ == "__main__":
    exit_on_error(main)
