"""How does it grow: with keys of state, partitions, versions of a table, topics, batches, executors?

    .tidemark/venv/bin/python -m bench.growth NAME... [--small] [--arms ARM...] [--points N...] [--results FILE]

Each NAME is a curve (below), measured on a broker of its own. A line of its table is printed as it is there, and
appended to a file of JSON lines, which `python -m bench.growth.plot` draws. docs/scale.md says what follows from them.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.growth.workbench import Results, Workbench
from conf import state_dir
from conf.errors import exit_on_error
from local.broker import Cluster

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
    options = parser.parse_args()
    for name in options.names:
        curve = curves[name]
        points = options.points or (curve.SMALL if options.small else curve.POINTS)
        print(f"{name}: {questions[name]}", flush=True)
        for arm in options.arms or curve.ARMS:
            # A process of its own: one has but one JVM, which the arm before would have warmed and filled.
            measured = get_context("spawn").Process(target=_measure, args=(name, arm, points, options.results))
            measured.start()
            measured.join()
            if measured.exitcode:
                return 1
    return 0


def _measure(name: str, arm: str, points: Sequence[int], file: Path) -> None:
    exit_on_error(partial(_measured, name, arm, points, file))


def _measured(name: str, arm: str, points: Sequence[int], file: Path) -> int:
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
    return 0


if __name__ == "__main__":
    exit_on_error(main)
