"""How does it grow: with keys of state, partitions, versions of a table, topics, batches, executors?

    .tidemark/venv/bin/python -m bench.growth NAME... [--small] [--arms ARM...] [--points N...] [--results FILE]

Each NAME is a curve (below), measured on a broker of its own. A line of its table is printed as it is there, and
appended to a file of JSON lines, which `python -m bench.growth.plot` draws. docs/scale.md says what follows from them.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.growth.workbench import Results, Workbench
from conf import command_line, state_dir
from conf.errors import exit_on_error
from local.broker import Cluster
from local.processes import end_on_signal

NAMES = ("keys", "partitions", "versions", "topics", "batches", "executors")


def main() -> int:
    curves = {name: import_module(f"bench.growth.{name}") for name in NAMES}
    questions = {name: str(curve.__doc__).splitlines()[0] for name, curve in curves.items()}
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth",
        description=__doc__,
        epilog="\n".join(f"  {name:<12}{question}" for name, question in questions.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME")
    parser.add_argument("--small", action="store_true", help="few points, to see that it works")
    parser.add_argument("--arms", nargs="+", help="some of the curve's arms alone")
    parser.add_argument("--points", nargs="+", type=int, help="others than the curve's own")
    parser.add_argument("--results", type=Path, default=state_dir() / "growth.jsonl")
    options = command_line.parse(parser, sys.argv[1:])
    end_on_signal()
    arms = [(name, arm) for name in options.names for arm in options.arms or curves[name].ARMS]
    if len(arms) > 1:
        # A process for each: one has but one JVM, which the arm before would have warmed and filled.
        commands = (_command(options, name, arm) for name, arm in arms)
        return next((code for command in commands if (code := subprocess.run(command).returncode)), 0)
    [(name, arm)] = arms
    points = options.points or (curves[name].SMALL if options.small else curves[name].POINTS)
    print(f"{name}, {arm}: {questions[name]}", flush=True)
    _measure(name, arm, points, options.results)
    return 0


def _command(options: argparse.Namespace, name: str, arm: str) -> list[str]:
    words = [sys.executable, "-m", "bench.growth", name, "--arms", arm, "--results", str(options.results)]
    words += ["--small"] if options.small else []
    return words + (["--points", *map(str, options.points)] if options.points else [])


def _measure(name: str, arm: str, points: Sequence[int], file: Path) -> None:
    curve, results = import_module(f"bench.growth.{name}"), Results(file, name)
    with TemporaryDirectory(dir=state_dir()) as scratch:
        folder = Path(scratch)
        with Cluster(folder / "broker", folder / "logs", attached=True) as cluster:
            bench = Workbench(folder, cluster, getattr(curve, "MEMORY", None))
            try:
                for row in curve.measure(bench, arm, points):
                    results.add(row)
            finally:
                bench.close()


if __name__ == "__main__":
    exit_on_error(main)
