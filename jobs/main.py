# ruff: noqa: E402
"""The one script that spark-submit starts: the name of an operation, then what its command line says."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    # While modules load, Ctrl-C ends this process without a word: the JVM, which gets it too, ends in order.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

# spark-submit puts this file's own folder first on the path, where jobs' files would shadow other modules.
sys.path[0] = str(Path(__file__).resolve().parent.parent)
# It puts pyspark there as zips too, which Python would compile at each start: what is installed comes before them.
sys.path.sort(key=lambda entry: entry.endswith(("pyspark.zip", "-src.zip")))

from pyspark.sql import SparkSession

from conf.errors import Interrupted, TidemarkError, exit_on_error
from jobs import arguments, catalog
from jobs.connectors.kafka.offsets import parse_position
from jobs.pipeline.monitoring.monitor import Monitor
from jobs.pipeline.run import Run
from jobs.pipeline.session import log_path, session
from jobs.pipeline.supervision import Failures, make_restart, supervise


def main() -> int:
    """Carry out the operation; return its exit code."""
    operation, *words = sys.argv[1:]
    if operation == arguments.RUN:
        return run_job(words)
    # Only the module of the operation that is asked for is loaded.
    code: int = import_module(f"jobs.operations.{operation}.commands").main(words)
    return code


def run_job(words: Sequence[str]) -> int:
    """Run one job, from its command line to its exit code."""
    args = arguments.parse_job(words)
    settings = arguments.settings_of(args)
    if args.until_caught_up:
        settings = settings.without_waiting()
    module = catalog.load(args.job)
    failures = Failures(settings.run, settings.kafka)
    try:
        run: Run | None = None
        try:
            with session(settings, args.job, args.job) as spark:
                bounds = parse_position(args.start or "earliest"), parse_position(args.end or "latest")
                run = Run(spark, settings, args.job, bounds if arguments.is_bounded(args) else None)
                run.left_out.is_allowed = not (arguments.is_bounded(args) or args.adopt)
                run.skips_lost = args.skip_lost
                module.build(run)
                _execute(spark, run, args, module.build, failures)
        except Interrupted as stop:
            # It is the way to end a run that has no end of its own.
            if stop.number != signal.SIGTERM or args.until_caught_up or arguments.is_bounded(args):
                raise
            print("stopped by SIGTERM; a new run goes on", file=sys.stderr)
        _require_all(failures, run)
    except TidemarkError:
        print(f"log: {log_path(settings, args.job)} and beside it", file=sys.stderr)
        raise
    return 0


def _require_all(failures: Failures, run: Run | None) -> None:
    """Raise what a run ends with in which a query was isolated, or left out; both are said."""
    errors = [error for error in (failures.error(), run.left_out.error() if run else None) if error]
    for error in errors[:-1]:
        print(f"error: {error}", file=sys.stderr)
    if errors:
        raise errors[-1]


def _execute(spark: SparkSession, run: Run, args: Namespace, build: Callable[[Run], None], failures: Failures) -> None:
    if arguments.is_bounded(args):
        with Monitor(run):
            lines = run.write_range()
        print(*lines, sep="\n")
        return
    for line in run.adopt() if args.adopt else []:
        print(line, flush=True)
    continuous = not args.until_caught_up
    # Those that catch up take turns: all at once would each wait for the others' plans to be compiled.
    at_once = None if continuous else run.settings.spark.queries_at_once
    independent = [output.query for output in run.outputs if output.is_independent]
    failures.taking_turns = independent if len(independent) > 1 and not continuous else ()
    with Monitor(run) as monitor:
        try:
            again = make_restart(run, build, continuous)
            starts = run.starts(continuous)
            supervise(spark, starts, failures.decide, again, monitor.ending, at_once, monitor.stopped)
        except KeyboardInterrupt:
            # Only this way does a continuous run end well.
            run.settle(failures.isolated)
            raise
        run.settle(failures.isolated)


if __name__ == "__main__":
    exit_on_error(main)
