"""How fast is a replay, beside the live job's backlog? Prints records/s of both, their ratio, and a plan's time.

    local/tidemark broker start && local/tidemark topics apply && local/tidemark publish flights
    .tidemark/venv/bin/python -m bench.replay [--job flights.hourly_delays] [--rounds 3]

Every round reads the job's topics twice in one warm JVM: as the live job does that has all of it still to read, and as
a replay of it in slices; the two take turns, so that the ratio holds on a noisy machine too. The first round is cold
and stays out of the medians. Afterwards a plan of a year is made by the command line, as a user would.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pyspark.sql import SparkSession

from conf import ROOT, command_line, state_dir
from conf.errors import TidemarkError, exit_on_error
from conf.settings import Settings, load
from jobs import catalog
from jobs.operations.replay.commands import Steps
from jobs.operations.replay.plan import ReplayRequest, plan_range
from jobs.operations.replay.record import Replays
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from local.driver import spark_session

YEAR = ("2013-01-01", "2014-01-01")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", default="flights.hourly_delays")
    parser.add_argument("--rounds", type=int, default=3)
    options = command_line.parse(parser, sys.argv[1:])
    with tempfile.TemporaryDirectory(dir=state_dir()) as scratch:
        _measure(Path(scratch), options.job, options.rounds)
    return 0


def _measure(scratch: Path, job: str, rounds: int) -> None:
    spark = spark_session(load(), "bench")
    ratios, speeds = [], []
    print(f"{'round':<8}{'live':>12}{'replay':>12}   records/s   ratio")
    for number in range(rounds + 1):
        settings = _settings(scratch / str(number))
        live = _seconds(lambda settings=settings: _live(spark, settings, job))  # type: ignore[misc]
        planned = Replays(settings).keep(plan_range(settings, ReplayRequest(job)))
        if not planned.records:
            remedy = "publish something: `local/tidemark publish flights`"
            raise TidemarkError("NOTHING_TO_REPLAY", "the job's topics are empty", remedy)
        steps = Steps(spark, settings, catalog.load(job).build, lambda line: None, lambda: None)
        replay = _seconds(lambda planned=planned, steps=steps: steps.run(planned))  # type: ignore[misc]
        shown = (planned.records / live, planned.records / replay)
        line = "".join(f"{speed:>12,.0f}" for speed in shown)
        print(f"{number or 'cold':<8}{line}   {len(planned.slices)} slices   {live / replay:.2f}")
        if number:
            ratios.append(live / replay)
            speeds.append(planned.records / replay)
        last = settings
    share = statistics.median(ratios)
    print(f"median: replay {statistics.median(speeds):,.0f} records/s, {share:.2f} of the live backlog's")
    print(f"plan of a year: {_plan(last, job):.1f} s, Python's start included")


def _settings(folder: Path) -> Settings:
    return load(overrides=[f"paths.{name}={folder / name}" for name in ("tables", "checkpoints")])


def _live(spark: SparkSession, settings: Settings, job: str) -> None:
    run = Run(spark, settings, job)
    catalog.load(job).build(run)
    await_all(spark, run.start(continuous=False))


def _plan(settings: Settings, job: str) -> float:
    roots = ["--tables", settings.paths.tables, "--checkpoints", settings.paths.checkpoints]
    words = ["replay", "plan", job, "--from", YEAR[0], "--to", YEAR[1], *roots]
    command = [sys.executable, "-P", "-m", "local.cli", *words]
    return _seconds(lambda: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL))


def _seconds(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


if __name__ == "__main__":
    exit_on_error(main)
