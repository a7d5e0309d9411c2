"""`local/tidemark demo`: from nothing to answers. A broker, the flights of 2013, every job through spark-submit."""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from conf import ROOT, state_dir
from conf.settings import Settings, load
from conf.topics import load_topics
from local import answers, broker_command, doctor, topics

FIRST_JOB = "flights.hourly_delays"
WHOLE_DOMAIN = "flights.everything"
# Each run is over in a minute: compiling its code a second time, thoroughly, would cost more than it saves. Without the
# second compiler Java reserves 48 MB for compiled code, a fifth of what it does with it, and thirteen queries fill it.
JAVA_OPTIONS = "spark.driver_java_options=-XX:+UseParallelGC -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"


def main(argv: Sequence[str]) -> int:
    """Run the steps; each skips what an earlier run has done. Exit code: that of the first step that failed."""
    options = _parser().parse_args(argv)
    began = time.monotonic()

    def step(title: str) -> None:
        print(f"\n[{time.monotonic() - began:3.0f} s] {title}", flush=True)

    for title, action in _steps(options):
        step(title)
        if code := action():
            return code
    step("done")
    print(_next_steps())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="local/tidemark demo", description=__doc__)
    parser.add_argument("--from", dest="start", default="2013-01-01", metavar="DAY", help="first day of flights")
    parser.add_argument("--to", dest="end", default="2014-01-01", metavar="DAY", help="the day after the last")
    return parser


def _steps(options: argparse.Namespace) -> list[tuple[str, Callable[[], int]]]:
    return [
        ("check this machine", lambda: doctor.main([])),
        ("Kafka broker", lambda: broker_command.main(["start"])),
        ("topics, as conf/topics.toml declares them", lambda: topics.main(["apply"])),
        ("publish the flights out of New York", lambda: _publish(load(), options)),
        (f"./spark-submit.sh {FIRST_JOB} --until-caught-up", lambda: _submit(FIRST_JOB)),
        ("which carriers leave late?", lambda: _show(answers.carriers)),
        (f"./spark-submit.sh {WHOLE_DOMAIN} --until-caught-up", lambda: _submit(WHOLE_DOMAIN)),
        ("does the weather explain it?", lambda: _show(answers.weather)),
        ("who should have been alerted?", lambda: _show(answers.alerts)),
        ("is every record accounted for?", lambda: _show(answers.accounts)),
    ]


def _publish(settings: Settings, options: argparse.Namespace) -> int:
    present = answers.records_in(settings, "departures")
    if present:
        print(f"there already: {present:,} departures (`local/tidemark clean` starts over)")
        return 0
    return _python("producers.cli", "flights", "--from", options.start, "--to", options.end)


def _submit(job: str) -> int:
    return _python("local.submit", job, "--until-caught-up", "--set", JAVA_OPTIONS)


def _python(module: str, *arguments: str) -> int:
    """Run a module in a process of its own, whose memory goes with it."""
    return subprocess.run([sys.executable, "-P", "-m", module, *arguments], check=False).returncode


def _show(answer: Callable[[Settings], str]) -> int:
    print(answer(load()))
    return 0


def _next_steps() -> str:
    return "\n".join(
        [
            f"tables: {load().paths.tables}    logs: {state_dir() / 'logs'}    topics: {', '.join(load_topics())}",
            "go on:  ./spark-submit.sh                    the jobs and their questions",
            "        local/tidemark publish file --help   bring data of your own",
            "        local/tidemark notebook              look at the tables and a live topic",
            "        local/tidemark broker stop           end the broker;  local/tidemark clean  remove everything",
            f"        {ROOT.name}/README.md                where things are",
        ]
    )
