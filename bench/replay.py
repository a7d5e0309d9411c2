"""How fast is a replay, beside the live job's backlog? Prints records/s of both, their ratio, and a plan's time.

    .tidemark/venv/bin/python -m bench.replay [--job flights.hourly_delays] [--rounds 3]

The flights of the year lie on a broker of its own. Every round reads the job's topics twice in one warm JVM: as the
live job does that has all of it still to read, and as a replay of it in slices; the two take turns, so that the ratio
holds on a noisy machine too. The first round is cold and stays out of the medians. Afterwards a plan of a year is made
by the command line, as a user would.
"""

import statistics
import subprocess
import sys

from bench.workbench import YEAR, Workbench, catch_up_seconds, line, own_workbench, read_options, seconds
from conf import ROOT
from conf.errors import TidemarkError, exit_on_error
from jobs import catalog
from jobs.operations.replay.commands import Steps
from jobs.operations.replay.plan import ReplayRequest, plan_range
from jobs.operations.replay.record import Replays


def main() -> int:
    options = read_options(__doc__, job="flights.hourly_delays", rounds=3)
    with own_workbench() as bench:
        bench.publish_flights(YEAR)
        _measure(bench, options.job, options.rounds)
    return 0


def _measure(bench: Workbench, job: str, rounds: int) -> None:
    build = catalog.load(job).build
    ratios, speeds = [], []
    print(line("round", ("live", "replay")), "  records/s   ratio")
    for number in range(rounds + 1):
        run = bench.run(f"{job}/{number}", None)
        build(run)
        live = catch_up_seconds(run)
        planned = Replays(run.settings).keep(plan_range(run.settings, ReplayRequest(job)))
        if not planned.records:
            raise TidemarkError("NOTHING_TO_REPLAY", "the job's topics are empty", "take a job that reads flights")
        steps = Steps(bench.spark, run.settings, build, lambda line: None, lambda: None)
        replay = seconds(lambda steps=steps, planned=planned: steps.run(planned))  # type: ignore[misc]
        cells = (planned.records / live, planned.records / replay)
        print(line(number or "cold", cells), f"  {len(planned.slices)} slices   {live / replay:.2f}", flush=True)
        if number:
            ratios.append(live / replay)
            speeds.append(planned.records / replay)
    share = statistics.median(ratios)
    print(f"median: replay {statistics.median(speeds):,.0f} records/s, {share:.2f} of the live backlog's")
    words = bench.words(*bench.places(f"{job}/{rounds}"))
    plan = ["replay", "plan", job, "--from", "2013-01-01", "--to", YEAR, *words]
    command = [sys.executable, "-P", "-m", "local.cli", *plan]
    took = seconds(lambda: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL))
    print(f"plan of a year: {took:.1f} s, Python's start included")


if __name__ == "__main__":
    exit_on_error(main)
