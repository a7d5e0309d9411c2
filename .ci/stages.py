"""Runs every stage, some of them side by side, and ends with a table: stage, minutes, cases.

    .ci/run [STAGE ...]     all stages but `exhaustive` and `image`, or those that are named

Each line of output begins with the stage that printed it. In .ci/results/ each stage leaves its output (STAGE.log) and,
where it runs tests, a JUnit file (STAGE.xml) that names the command which repeats a failed one, and the logs that were
written while one failed (STAGE-logs). A stage that fails does not keep the others from running; the exit code is 1.
A few tests that failed are run once more at the end, alone and with the same random choices: on a machine that does
several things at once, one may wait longer than it is willing to. The table says which stages passed only so.
Needs nothing but Python's standard library.
"""

import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / ".ci" / "results"
POLL_SECONDS = 0.2
# What is checked is a change, not luck: all draw the same in each run. `exhaustive` draws anew, and says what it drew.
SEED = {"TIDEMARK_SEED": "20130101"}
SLOWEST = 60  # tests whose durations a stage prints
MOST_REPEATED = 5  # failed tests of a stage; more of them have a cause that stays
COLUMNS = ("stage", "minutes", "passed", "failed", "skipped")


@dataclass(frozen=True)
class Stage:
    """`commands` run one after the other, each though the one before has failed; `tests`: it is pytest.

    Args:
        variables: of the environment, where it does not have them.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    tests: bool = False
    variables: Mapping[str, str] = field(default_factory=lambda: SEED)

    @property
    def junit(self) -> Path:
        return RESULTS / f"{self.name}.xml"


def tests(name: str, *arguments: str) -> Stage:
    """The test command with its options for CI."""
    left = (f"--junit-xml={RESULTS / name}.xml", f"--keep-logs={RESULTS / name}-logs")
    report = (*left, f"--durations={SLOWEST}", "--durations-min=1")
    return Stage(name, (("local/tidemark", "test", *arguments, *report),), tests=True)


def lint() -> Stage:
    state = Path(os.environ.get("TIDEMARK_STATE", ROOT / ".tidemark")).expanduser()
    ruff, mypy = (str(state / "venv" / "bin" / tool) for tool in ("ruff", "mypy"))
    return Stage("lint", ((ruff, "check", "."), (ruff, "format", "--check", "."), (mypy,)))


# Any test command installs the packages of tests, once for all stages; then a set-up has only the jars left, and the
# archive of classes that the many JVMs of tests start with.
SETUP = Stage("setup", (("local/tidemark", "test", "--version"), ("local/tidemark", "setup")))

# Steps follow one another; the lanes of a step run side by side, and the stages of a lane one after the other. Tests
# use all of a machine with two cores. But faults are injected into processes that then wait, for a time-out or for one
# another: a third worker and lint have room beside them.
# What takes a minute alone may take several beside two others.
LONG = ("-m", "(slow or faults or registry or notebook or cluster) and not exhaustive", "-n", "3", "-o", "timeout=900")
STEPS: tuple[tuple[tuple[Stage, ...], ...], ...] = (
    ((SETUP,),),
    ((tests("default"),),),
    ((tests("long", *LONG),), (lint(),)),
)
# Run where they are named. For all of a kind the one proves what other tests prove for some of it; the other makes
# Debian's base, which takes minutes, and installs all packages and jars once more.
NAMED = (replace(tests("exhaustive", "-m", "exhaustive"), variables={}), tests("image", "-m", "image", "-n", "0"))


@dataclass
class Result:
    """What became of a stage: its exit code, seconds, and the cases of its JUnit file by outcome."""

    stage: Stage
    code: int
    seconds: float
    cases: dict[str, int] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)
    alone: int = 0  # failed cases that passed when they were run once more

    @property
    def row(self) -> tuple[str, ...]:
        counts = [str(self.cases[name]) if self.cases else "-" for name in COLUMNS[2:]]
        name = self.stage.name if self.code == 0 else f"{self.stage.name}: FAILED"
        if self.alone:
            name += f": {self.alone} passed when run alone"
        return (name, f"{self.seconds / 60:.1f}", *counts)


def run(stage: Stage) -> Result:
    """Run the commands of a stage; their output is printed, and kept."""
    began = time.monotonic()
    print(f"=== {stage.name} begins", flush=True)
    code = 0
    with (RESULTS / f"{stage.name}.log").open("w") as log:
        for command in stage.commands:
            try:
                code = _run(command, stage, log) or code
            except FileNotFoundError as exc:
                print(f"error: {exc}; run all stages, or `setup` first", flush=True)
                code = 1
    result = Result(stage, code, time.monotonic() - began)
    if stage.tests:
        read_cases(result)
    print(f"=== {stage.name} ends with {code} after {result.seconds / 60:.1f} min", flush=True)
    return result


def _run(command: Sequence[str], stage: Stage, log: TextIO) -> int:
    """Let a command write into `log`, and print what comes until it ends.

    Not through a pipe: a process that a test leaves behind would hold it open.
    """
    with Path(log.name).open(errors="replace") as written:
        written.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**stage.variables, **os.environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        rest, ended = "", False
        while not ended:
            ended = process.poll() is not None
            *lines, rest = (rest + written.read()).split("\n")
            for line in [*lines, *([rest] if ended and rest else [])]:
                print(f"{stage.name:8}| {line}", flush=True)
            time.sleep(0 if ended or lines else POLL_SECONDS)
    return process.returncode


def run_all(stages: Sequence[Stage]) -> list[Result]:
    return [run(stage) for stage in stages]


def read_cases(result: Result) -> None:
    """Add what the JUnit file counts; a stage that died without one has failed."""
    if not result.stage.junit.exists():
        result.code = result.code or 1
        return
    [suite] = ET.parse(result.stage.junit).getroot().iter("testsuite")
    total, skipped = int(suite.attrib["tests"]), int(suite.attrib["skipped"])
    failed = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    result.cases = {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}
    properties = suite.iter("property")
    result.again = [each.attrib["value"] for each in properties if each.attrib["name"] == "again"]


def run_alone(result: Result) -> None:
    """Run the cases that failed once more, one after the other; the stage has passed if all of them do."""
    if result.code == 0 or not 0 < len(result.again) == result.cases.get("failed", 0) <= MOST_REPEATED:
        return
    for command in result.again:
        print(f"=== {result.stage.name} runs alone: {command}", flush=True)
        if subprocess.run(["bash", "-c", command], cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode:
            return
    result.code, result.alone = 0, len(result.again)


def table(results: Sequence[Result], seconds: float) -> str:
    """One row for each stage and one for all of them; below it, how to repeat each case that failed."""
    total = [str(sum(result.cases.get(name, 0) for result in results)) for name in COLUMNS[2:]]
    rows = [COLUMNS, *(result.row for result in results), ("total", f"{seconds / 60:.1f}", *total)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = []
    for name, *numbers in rows:
        cells = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *cells]))
    again = [command for result in results for command in result.again]
    return "\n".join([*lines, *(["", "to repeat what failed:", *again] if again else [])])


def main(names: Sequence[str]) -> int:
    steps = (*STEPS, *(((stage,),) for stage in NAMED if stage.name in names))
    known = [stage.name for lanes in (*STEPS, (NAMED,)) for lane in lanes for stage in lane]
    if unknown := set(names) - set(known):
        print(f"error: there is no stage {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    for old in RESULTS.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    began = time.monotonic()
    results: list[Result] = []
    for lanes in steps:
        chosen = [[stage for stage in lane if not names or stage.name in names] for lane in lanes]
        with ThreadPoolExecutor(len(lanes)) as pool:
            for of_lane in pool.map(run_all, chosen):
                results += of_lane
    for result in results:
        run_alone(result)
    print(f"\n{table(results, time.monotonic() - began)}", flush=True)
    return int(any(result.code for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
