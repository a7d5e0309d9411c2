"""SIGKILL in each phase of a replay: begun again it goes on, and swaps the right rows in, once."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from conf import ROOT
from conf.settings import load
from conf.topics import load_topics
from jobs.connectors.exactly_once.fail_points import VARIABLE
from jobs.connectors.kafka.access import connect
from local.broker import Cluster
from local.processes import end_group, wait_for
from local.topics import bring_in_step
from producers import cli
from tests.jvm import OPTIONS
from tests.kinds import of_a_kind

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1500)]

JOB = "flights.hourly_delays"
POINTS: dict[str, dict[str, int]] = {
    "replay-slice-put-in": {"batch": 2},
    "replay-slice-written": {"batch": 3},
    "replay-recomputed": {},
    "replay-before-swap": {},
    "replay-after-swap": {},
}
SOME = ["replay-slice-put-in", "replay-after-swap"]


@pytest.fixture
def flights(tmp_path: Path) -> Iterator[Cluster]:
    """A broker of this test's own with four days of flights."""
    with Cluster(tmp_path / "broker", tmp_path / "logs", attached=True) as broker:
        servers = f"kafka.bootstrap_servers={broker.bootstrap_servers}"
        bring_in_step(connect(load(overrides=[servers]).kafka), list(load_topics().values()), 1)
        assert cli.main(["flights", "--from", "2013-01-01", "--to", "2013-01-05", "--set", servers]) == 0
        yield broker


class Desk:
    """Commands on that broker, with tables and fail points of the test's own."""

    def __init__(self, broker: Cluster, folder: Path) -> None:
        self._folder, self._points = folder, folder / "points" / JOB
        self._points.mkdir(parents=True)
        sets = {
            "kafka.bootstrap_servers": broker.bootstrap_servers,
            "paths.logs": str(folder / "logs"),
            "replay.slice_records": "800",
            "spark.driver_java_options": OPTIONS,
        }
        roots = ["--tables", str(folder / "tables"), "--checkpoints", str(folder / "checkpoints")]
        self._options = [*roots, *(word for key, value in sets.items() for word in ("--set", f"{key}={value}"))]

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """A command, in a process group of its own."""
        env = os.environ | {VARIABLE: str(self._points.parent)}
        command = [*words, *self._options]
        log = (self._folder / "output.log").open("a")
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, text=True, process_group=0)

    def run(self, *words: str) -> int:
        """The exit code of a command."""
        process = self.start(*words)
        try:
            return process.wait(300)
        finally:
            end_group(process)

    def kill_at(self, point: str, where: dict[str, int], *words: str) -> None:
        """Let the command come to that point, and kill all its processes there."""
        reached = self._points / f"{point}.reached"
        (self._points / f"{point}.armed").write_text(json.dumps(where))
        process = self.start(*words)
        try:
            wait_for(lambda: reached.exists() or process.poll() is not None, 240, lambda: AssertionError(self.said))
            assert reached.exists(), self.said
            os.killpg(process.pid, signal.SIGKILL)
        finally:
            end_group(process)

    @property
    def said(self) -> str:
        """What the commands printed."""
        return (self._folder / "output.log").read_text()

    def rows(self) -> list[tuple[object, ...]]:
        """The live table, sorted."""
        rows = DeltaTable(str(self._folder / "tables" / "hourly_delays")).to_pyarrow_table().to_pylist()
        return sorted(tuple(row.values()) for row in rows)

    def swaps(self) -> int:
        """How many commits of the table are cutovers."""
        history = DeltaTable(str(self._folder / "tables" / "hourly_delays")).history()
        said = [json.loads(commit.get("userMetadata") or "{}") for commit in history]
        return sum(each.get("statement") == "cutover" for each in said)


@pytest.mark.exhaustive
@pytest.mark.parametrize("points", of_a_kind([SOME, list(POINTS)], [SOME]), ids=["some", "each"])
def test_a_replay_that_is_killed_in_each_phase_swaps_its_rows_in_once(
    points: list[str], flights: Cluster, tmp_path: Path
) -> None:
    desk = Desk(flights, tmp_path)
    assert desk.run("./spark-submit.sh", JOB, "--until-caught-up") == 0, desk.said
    right = desk.rows()
    DeltaTable(str(tmp_path / "tables" / "hourly_delays")).delete("origin = 'JFK'")
    replay = ["local/tidemark", "replay", "run", JOB, "--from", "2013-01-01", "--to", "2013-01-04"]
    replay += ["--through", "cutover", "--accept-differences"]
    for point in points:
        desk.kill_at(point, POINTS[point], *replay)
    assert desk.run(*replay) == 0, desk.said
    first = [row for row in right if str(row[0]) < "2013-01-04"]
    assert [row for row in desk.rows() if str(row[0]) < "2013-01-04"] == first
    assert desk.swaps() == 1
    assert desk.run(*replay) == 0
    assert "nothing to do" in desk.said
