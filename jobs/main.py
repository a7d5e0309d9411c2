"""The script that spark-submit starts: one job, from its arguments to its exit code."""

import logging
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

# spark-submit puts this file's own folder first on the path, where jobs' files would shadow other modules.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pyspark.sql import SparkSession  # noqa: E402

from conf.errors import TidemarkError, exit_on_error  # noqa: E402
from conf.settings import Settings  # noqa: E402
from jobs import arguments, catalog  # noqa: E402
from jobs.connectors.positions import Position, parse_position  # noqa: E402
from jobs.failures import await_all  # noqa: E402
from jobs.progress import ProgressLines  # noqa: E402
from jobs.restart import restarts  # noqa: E402
from jobs.run import Run  # noqa: E402


def main() -> int:
    args = arguments.parse(sys.argv[1:])
    settings = arguments.settings_of(args)
    module = catalog.load(args.job)
    log = _log_to_file(settings, args.job)
    signal.signal(signal.SIGTERM, _interrupt)
    spark = SparkSession.builder.appName(args.job).getOrCreate()
    try:
        run = Run(spark, settings, args.job, _bounds(args))
        module.build(run)
        _execute(spark, run, args, module.build)
    except TidemarkError:
        print(f"log: {log} and beside it", file=sys.stderr)
        raise
    finally:
        spark.stop()
    return 0


def _execute(spark: SparkSession, run: Run, args: Namespace, build: Callable[[Run], None]) -> None:
    if arguments.is_bounded(args):
        for line in run.write_range():
            print(line)
        return
    for line in run.adopt() if args.adopt else []:
        print(line, flush=True)
    spark.streams.addListener(ProgressLines(run.counted))
    continuous = not args.until_caught_up
    try:
        await_all(spark, run.start(continuous), restarts(run, build, continuous), run.ending.set)
    except KeyboardInterrupt:
        # Only this way does a continuous run end well.
        run.settle()
        raise
    run.settle()


def _log_to_file(settings: Settings, job: str) -> Path:
    """Python's own log, beside the JVM's `<job>.log`; the terminal is for progress."""
    path = Path(settings.paths.logs) / f"{job}.python.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=path, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return path


def _bounds(args: Namespace) -> tuple[Position, Position] | None:
    if not arguments.is_bounded(args):
        return None
    return parse_position(args.start or "earliest"), parse_position(args.end or "latest")


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    exit_on_error(main)
