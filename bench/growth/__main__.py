"""How does it grow: with keys of state, partitions, versions of a table, topics, batches, executors?

    .tidemark/venv/bin/python -m bench.growth NAME... [--small] [--arms ARM...] [--points N...] [--results FILE]

Each NAME is a curve (below), measured on a broker of its own. A line of its table is printed as it is there, and
appended to a file of JSON lines, which `python -m bench.growth.plot` draws. docs/scale.md says what follows from them.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.growth.jobs import measure_executors, measure_topics
from bench.growth.queries import measure_batches, measure_keys, measure_partitions, measure_versions
from bench.workbench import Row, Workbench, option_parser, own_workbench
from conf import command_line, state_dir
from conf.errors import exit_on_error
from local.processes import end_on_signal


@dataclass(frozen=True)
class Curve:
    """One curve: each of `arms` is a line of it, measured at `points`, or at the few that are `small`.

    Args:
        sets: settings of the workbench, as NAME=VALUE.
    """

    question: str
    measure: Callable[[Workbench, str, Sequence[int]], Iterator[Row]]
    arms: tuple[str, ...]
    points: tuple[int, ...]
    small: tuple[int, ...]
    sets: tuple[str, ...] = ()


CURVES = {
    "keys": Curve(
        "What does a key of state cost, on the heap and in RocksDB?",
        measure_keys,
        ("heap", "rocksdb"),
        (1_000, 10_000, 100_000, 1_000_000, 10_000_000),
        (1_000, 10_000),
        ("spark.driver_memory=7g",),  # what ten million keys on the heap need
    ),
    "partitions": Curve(
        "What does a partition of the source cost?", measure_partitions, ("table", "topic"), (1, 4, 16, 64), (1, 4)
    ),
    "versions": Curve(
        "What does a table's age cost a batch of `ingest`, that appends (departures) or merges (planes)?",
        measure_versions,
        ("append", "upsert"),
        (1, 100, 1_000, 10_000),
        (1, 20),
    ),
    "topics": Curve(
        "How many topics may one `ingest` have?", measure_topics, ("catch-up", "continuous"), (1, 10, 50), (1, 3)
    ),
    "batches": Curve(
        "What does a query's own age cost: the thousandth batch beside the first?",
        measure_batches,
        ("ingest", "state"),
        (10, 50, 100, 200, 400, 600, 800, 1_000),
        (10, 20),
    ),
    "executors": Curve(
        "What does another executor give?", measure_executors, ("ingest", "flights.hourly_delays"), (1, 2, 3), (1, 2)
    ),
}


def main() -> int:
    parser = option_parser(__doc__)
    parser.prog = "python -m bench.growth"
    parser.epilog = "\n".join(f"  {name:<12}{curve.question}" for name, curve in CURVES.items())
    parser.add_argument("names", nargs="+", choices=CURVES, metavar="NAME")
    parser.add_argument("--small", action="store_true", help="few points, to see that it works")
    parser.add_argument("--arms", nargs="+", help="some of the curve's arms alone")
    parser.add_argument("--points", nargs="+", type=int, help="others than the curve's own")
    parser.add_argument("--results", type=Path, default=state_dir() / "growth.jsonl")
    options = command_line.parse(parser, sys.argv[1:])
    end_on_signal()
    arms = [(name, arm) for name in options.names for arm in options.arms or CURVES[name].arms]
    if len(arms) > 1:
        # A process for each: one has but one JVM, which the arm before would have warmed and filled.
        commands = (_command(options, name, arm) for name, arm in arms)
        return next((code for command in commands if (code := subprocess.run(command).returncode)), 0)
    [(name, arm)] = arms
    curve, results = CURVES[name], Results(options.results, name)
    points = options.points or (curve.small if options.small else curve.points)
    print(f"{name}, {arm}: {curve.question}", flush=True)
    with own_workbench(*curve.sets) as bench:
        for row in curve.measure(bench, arm, points):
            results.add(row)
    return 0


def _command(options: argparse.Namespace, name: str, arm: str) -> list[str]:
    words = [sys.executable, "-m", "bench.growth", name, "--arms", arm, "--results", str(options.results)]
    words += ["--small"] if options.small else []
    return words + (["--points", *map(str, options.points)] if options.points else [])


class Results:
    """Prints each row of a curve as a line of its table, and appends it to a file of JSON lines."""

    def __init__(self, file: Path, curve: str) -> None:
        self._file, self._curve = file, curve
        self._columns: list[str] = []

    def add(self, row: Row) -> None:
        stamps = {"curve": self._curve, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "cores": os.cpu_count()}
        with self._file.open("a") as lines:
            lines.write(json.dumps(stamps | dict(row)) + "\n")
        if list(row) != self._columns:
            self._columns = list(row)
            print("".join(f"{name:>{_width(name)}}" for name in row))
        print("".join(f"{_cell(value):>{_width(name)}}" for name, value in row.items()), flush=True)


def _width(name: str) -> int:
    return max(len(name), 10) + 2


def _cell(value: Any) -> str:
    if isinstance(value, float) and value < 10:
        return f"{value:.2f}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


if __name__ == "__main__":
    exit_on_error(main)
