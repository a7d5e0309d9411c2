"""How long does a job take that has nothing to read, from the command to its exit? Prints seconds by round.

    local/tidemark setup
    .tidemark/venv/bin/python -m bench.start [--rounds 5]

It reads a week of flights on a broker of its own in a first run, which is not counted, and nothing in those that are.
The parts, each from the end of the one before; `cpu` is what all processes of a run used, of both cores together:

    launcher  the command's own Python and spark-submit, until Java runs Spark
    spark     Spark, until it has started the job's Python
    job       the session, what the job declares, a query that finds nothing, the end
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from conf import ROOT, command_line
from conf.errors import exit_on_error
from local import driver
from local.broker import Cluster

JOB = "flights.hourly_delays"
POLL_SECONDS = 0.01
COLUMNS = ("launcher", "spark", "job", "all", "cpu")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = command_line.parse(parser, sys.argv[1:]).rounds
    print(f"archive of classes: {driver.class_archive() or 'none, local/tidemark setup makes it'}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with Cluster(folder / "broker", folder / "logs", attached=True) as cluster:
            sets = ["--set", f"kafka.bootstrap_servers={cluster.bootstrap_servers}"]
            for words in (["topics", "apply"], ["publish", "flights", "--to", "2013-01-08"]):
                subprocess.run([ROOT / "local" / "tidemark", *words, *sets], check=True, stdout=subprocess.DEVNULL)
            sets += ["--set", f"paths.logs={folder}/logs", "--tables", f"{folder}/tables"]
            command = [str(ROOT / "spark-submit.sh"), JOB, "--until-caught-up", *sets]
            command += ["--checkpoints", f"{folder}/checkpoints"]
            _timed(command)
            print(f"{'':<8}" + "".join(f"{name:>10}" for name in COLUMNS) + "  seconds")
            parts = [_show(str(number), _timed(command)) for number in range(1, rounds + 1)]
    for summary in (min, statistics.median, max):
        _show(summary.__name__[:6], [summary(part) for part in zip(*parts, strict=True)])
    return 0


def _show(name: str, parts: list[float]) -> list[float]:
    print(f"{name:<8}" + "".join(f"{part:>10.1f}" for part in parts), flush=True)
    return parts


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
