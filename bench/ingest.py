"""How fast does a backlog become tables? Prints records/s of `ingest`, without rules and with those of the topic
departures, and of a bare decode into one Delta table.

    .tidemark/venv/bin/python -m bench.ingest [--millions 4] [--rounds 3]

The backlog is the topic departures, on a broker of its own, copied record for record into the topic bench_departures
until it is long enough. Every round reads it anew, in one warm JVM, and the jobs take turns (`workbench.take_turns`).
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import cycle, islice

from bench.workbench import YEAR, Workbench, catch_up_seconds, own_workbench, read_options, take_turns
from conf import ROOT
from conf.errors import exit_on_error
from conf.topics import subject_of
from jobs.ingest import job
from jobs.pipeline.run import Run
from schemas.registry import FileRegistry

TOPIC = "bench_departures"
PARTITIONS = 4


def bare_decode(run: Run) -> None:
    """The least that a pipeline does: topic, decode, one table."""
    run.append(run.read(TOPIC), table="bare_decode")


def with_rules(run: Run) -> None:
    """Ingest with the rules and the event time of the topic departures."""
    run.validator.rules_by_stream[TOPIC] = run.validator.rules_of("departures")
    run.topics[TOPIC] = replace(run.topics["departures"], name=TOPIC)
    job.build(run)


JOBS = {"ingest": job.build, "with rules": with_rules, "bare decode": bare_decode}


def main() -> int:
    options = read_options(__doc__, millions=4.0, rounds=3)
    count = int(options.millions * 1_000_000)
    with own_workbench() as bench:
        bench.publish_flights(YEAR)
        departures = bench.read_topic("departures")
        bench.create(TOPIC, PARTITIONS)
        bench.publish(TOPIC, islice(cycle(departures), count))
        registry = FileRegistry(shutil.copytree(ROOT / "schemas" / "registry", bench.folder / "registry"))
        registry.register(subject_of(TOPIC), registry.latest(subject_of("departures")).text)
        print(f"{count:,} records in {TOPIC}; records/s")
        ways = {name: partial(_speed, bench, name.replace(" ", "-"), build, count) for name, build in JOBS.items()}
        take_turns(ways, options.rounds)
    return 0


def _speed(bench: Workbench, name: str, build: Callable[[Run], None], count: int) -> float:
    run = bench.run(name, None, f"registry.path={bench.folder / 'registry'}", f"ingest.topics={TOPIC}")
    build(run)
    speed = count / catch_up_seconds(run)
    shutil.rmtree(bench.folder / name)
    return speed


if __name__ == "__main__":
    exit_on_error(main)
