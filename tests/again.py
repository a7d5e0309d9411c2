"""A pytest plug-in: a test that fails says how to run it alone, with the same random choices, and where its logs are.

`TIDEMARK_SEED` fixes what Hypothesis and the random faults draw; without it each run of the tests draws a seed of its
own. A test that is named by its id (`file::case`) runs whatever group it belongs to.
"""

import os
import random
import re
import shlex
import shutil
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "TIDEMARK_SEED"
STARTED = pytest.StashKey[float]()
SEEDED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep-logs", type=Path, help="a folder for copies of the logs that a failed test names")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    drawn = worker.get(VARIABLE) or os.environ.get(VARIABLE) or random.SystemRandom().randrange(1_000_000)
    config.stash[SEEDED] = int(drawn)
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(config.stash[SEEDED])
    if config.args and all("::" in argument for argument in config.args):
        config.option.markexpr = ""
    if not worker:
        config.pluginmanager.register(FailuresAtOnce(config))


class FailuresAtOnce:
    """Prints the id of a failed test when it fails: a run that is cut off prints no summary."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal:
            terminal.write_line(f"\nfailed in {report.when}: {report.nodeid}")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker of pytest-xdist the seed of the run."""
    node.workerinput[VARIABLE] = node.config.stash[SEEDED]


def pytest_report_header(config: pytest.Config) -> str:
    return f"{VARIABLE}={config.stash[SEEDED]}"


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """Draws this run's random choices."""
    return pytestconfig.stash[SEEDED]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[STARTED] = time.time()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a failure the command that repeats it, and the logs that were written meanwhile."""
    report = yield
    if report.failed:
        number = item.stash.get(SEEDED, item.config.stash[SEEDED])
        lines = [f"{VARIABLE}={number} local/tidemark test {shlex.quote(item.nodeid)}"]
        properties = report.user_properties if report.when == "teardown" else item.user_properties
        properties.append(("again", lines[0]))
        lines += [f"log: {log}" for log in kept(item, logs(item))]
        report.sections.append(("to run it alone", "\n".join(lines)))
    return report


def kept(item: pytest.Item, found: list[Path]) -> list[Path]:
    """Copies of these logs below `--keep-logs`, in a folder of the test; the logs themselves without that option."""
    folder: Path | None = item.config.getoption("--keep-logs")
    if folder is None:
        return found
    base = Path(item.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    copies = [folder / re.sub(r"[^\w.-]+", "_", item.nodeid)[-100:] / log.relative_to(base) for log in found]
    for log, copy in zip(found, copies, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(log, copy)
    return copies


def logs(item: pytest.Item) -> list[Path]:
    """The log files below the run's temporary folder that grew while the test ran: of JVMs, brokers and commands."""
    base = Path(item.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    since = item.stash.get(STARTED, 0.0)
    # The segments of a broker's partitions are called *.log, too.
    found = [log for log in base.rglob("*.log") if "data" not in log.parts and log.is_file()]
    return sorted(log for log in found if log.stat().st_mtime >= since)
