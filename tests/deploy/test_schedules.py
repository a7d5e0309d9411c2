"""The schedule files: each is read by what will read it, and what it starts is a command that exists."""

import hashlib
import shlex
import subprocess
import sys
import venv
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from cronsim import CronSim

from conf import ROOT, state_dir
from jobs import arguments, catalog
from jobs.operations.replay.plan import duration
from local.processes import exclusive

DEPLOY = ROOT / "deploy"
CRONTAB_FIELDS = 5
LOAD_DAG = """
import json
from airflow.models.dagbag import DagBag
bag = DagBag("deploy", include_examples=False)
assert not bag.import_errors, bag.import_errors
tasks = {task.task_id: task.bash_command for dag in bag.dags.values() for task in dag.tasks}
print("TASKS " + json.dumps(tasks))
"""


def require_command(words: list[str]) -> None:
    """`words` are a replay of a job that is there."""
    assert words[:2] == ["local/tidemark", "replay"]
    options = arguments.parse_replay(words[2:])
    assert options.step == "catch-up"
    catalog.require(options.job)
    duration(options.every)


def cron_lines() -> Iterator[tuple[str, str]]:
    """When, and what."""
    for line in (DEPLOY / "crontab").read_text().splitlines():
        if line and not line.startswith("#") and not line.partition(" ")[0].partition("=")[1]:
            fields = line.split(" ", CRONTAB_FIELDS)
            yield " ".join(fields[:CRONTAB_FIELDS]), fields[CRONTAB_FIELDS]


def test_cron_runs_replays_every_day() -> None:
    lines = list(cron_lines())
    assert lines
    for when, what in lines:
        first, second = (next(CronSim(when, datetime(2026, 1, day))) for day in (1, 2))
        assert (second - first).days == 1
        subprocess.run(["bash", "-n", "-c", what], check=True)
        require_command(shlex.split(what.partition("&& ")[2].partition(" >>")[0]))


def airflow() -> Path:
    """A virtual environment with what is locked for Airflow, apart from Spark; kept in the state folder."""
    lock = ROOT / "conf" / "airflow.lock"
    folder = state_dir() / "airflow" / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    with exclusive(state_dir() / "airflow" / "lock"):
        if not (folder / "complete").exists():
            venv.create(folder, clear=True)
            # The lock is complete, so nothing is left to resolve; few of the modules are ever imported.
            options = ["--quiet", "--require-hashes", "--no-deps", "--no-compile", "--disable-pip-version-check"]
            pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", *options]
            subprocess.run([*pip, "-r", str(lock)], check=True)
            (folder / "complete").touch()
    return folder


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_airflow_loads_the_dag(tmp_path: Path) -> None:
    folder = airflow()
    python = str(folder / "bin" / "python")
    home = {"AIRFLOW_HOME": str(tmp_path / "home"), "PATH": f"{folder / 'bin'}:/usr/bin:/bin"}
    done = subprocess.run([python, "-c", LOAD_DAG], cwd=ROOT, env=home, check=True, capture_output=True, text=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("TASKS "))
    tasks = yaml.safe_load(line.removeprefix("TASKS "))
    assert len(tasks) == 2
    for command in tasks.values():
        require_command(shlex.split(command))
