"""How long does a job take that has nothing to read, from the command to its exit? Prints seconds by round.

    local/tidemark setup
    .tidemark/venv/bin/python -m bench.start [--rounds 5]

It reads a week of flights on a broker of its own in a first run, which is not counted, and nothing in those that are.
The parts, each from the end of the one before; `cpu` is what all processes of a run used, of both cores together:

    launcher  the command's own Python and spark-submit, until Java runs Spark
    spark     Spark, until it has started the job's Python
    job       the session, what the job declares, a query that finds nothing, the end
"""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence

import psutil

from bench.workbench import WEEK, line, own_workbench, read_options, seconds_line
from conf import ROOT
from conf.errors import exit_on_error
from local import driver

JOB = "flights.hourly_delays"
POLL_SECONDS = 0.01
COLUMNS = ("launcher", "spark", "job", "all", "cpu")


def main() -> int:
    rounds = read_options(__doc__, rounds=5).rounds
    print(f"archive of classes: {driver.class_archive() or 'none, local/tidemark setup makes it'}")
    with own_workbench() as bench:
        bench.publish_flights(WEEK)
        words = bench.words(*bench.places(JOB))
        command = [str(ROOT / "spark-submit.sh"), JOB, "--until-caught-up", *words]
        _timed(command)
        print(line("", COLUMNS, 10), " seconds")
        rounds_taken = []
        for number in range(1, rounds + 1):
            rounds_taken.append(_timed(command))
            print(seconds_line(number, rounds_taken[-1]), flush=True)
    for summary in (min, statistics.median, max):
        print(seconds_line(summary.__name__[:6], map(summary, zip(*rounds_taken, strict=True))))
    return 0


def _timed(command: Sequence[str]) -> list[float]:
    """A run's COLUMNS."""
    began = time.monotonic()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    # The launcher becomes spark-submit, which becomes Java: one process all along.
    _wait(process, lambda: "java" in "".join(process.cmdline()[:1]))
    java = time.monotonic()
    _wait(process, lambda: any("python" in _name(child) for child in process.children()))
    job = time.monotonic()
    _, status, usage = os.wait4(process.pid, 0)
    ended = time.monotonic()
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return [java - began, job - java, ended - job, ended - began, usage.ru_utime + usage.ru_stime]


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return ""


def _wait(process: psutil.Popen, seen: Callable[[], bool]) -> None:
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and not seen():
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    exit_on_error(main)
