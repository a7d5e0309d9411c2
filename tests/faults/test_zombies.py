"""Who was thought dead comes back: stopped workers that go on after their successors, and two drivers of one query."""

import os
import shutil
import signal
from functools import partial

import psutil
import pytest

from local.processes import wait_for
from tests.faults.conftest import SceneOf
from tests.faults.host import SECONDS, Driver, Hosts
from tests.faults.report import named
from tests.faults.scene import Scene, finish_together, start_together

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

BATCH = "source.max_offsets_per_trigger=300"
STEPS = ["shard-after-barrier", "shard-mid-produce", "shard-after-flush"]
START = "plan-before-fence"
RACES = 5


def is_stopped(zombie: psutil.Process) -> bool:
    return zombie.is_running() and zombie.status() == psutil.STATUS_STOPPED


def test_a_stopped_worker_that_goes_on_after_its_successor_has_committed_changes_nothing(scene: SceneOf) -> None:
    crimes = [scene(label=step, settings=[BATCH]) for step in STEPS]
    for crime in crimes:
        crime.fill(900)
        crime.arm(crime.label, batch=1)
    driver = start_together(crimes)
    zombies = {crime.label: psutil.Process(crime.held(crime.label, driver)) for crime in crimes}
    for zombie in zombies.values():
        zombie.send_signal(signal.SIGSTOP)
        wait_for(partial(is_stopped, zombie), SECONDS, lambda: AssertionError("it does not stop"))
    driver.kill(*(zombie.pid for zombie in zombies.values()))
    finish_together(crimes)
    assert [label for label, zombie in zombies.items() if not is_stopped(zombie)] == []

    for crime in crimes:
        crime.arm("shard-before-abort")
        crime.release(crime.label)
        os.kill(zombies[crime.label].pid, signal.SIGCONT)
        # It ran on until it was refused.
        assert crime.held("shard-before-abort") == zombies[crime.label].pid
        crime.release("shard-before-abort")
    _, alive = psutil.wait_procs(list(zombies.values()), SECONDS)
    assert not alive

    for crime in crimes:
        verdict = crime.verdict()
        assert verdict.clean, f"{crime.label}: {verdict}"
        assert verdict.rows == 900


def races(scene: SceneOf, hosts: Hosts, copies: tuple[str, str]) -> tuple[list[Scene], list[Driver]]:
    """Queries that have done two batches, and then have two drivers at once, each with its copy of the checkpoints.

    Both are held before the plan of batch 2, and start from there together.
    """
    crimes = [scene(label=f"race {number}", settings=[BATCH]) for number in range(RACES)]
    for crime in crimes:
        crime.fill(600)
    finish_together(crimes)
    for crime in crimes:
        crime.fill(900)
        for copy in {*copies} - {"checkpoints"}:
            shutil.copytree(crime.folder / "checkpoints", crime.folder / copy)
    drivers = []
    for number, copy in enumerate(copies):
        for crime in crimes:
            crime.arm(START, batch=2)
        parts = [crime.plan(f"paths.checkpoints={crime.folder / copy}") for crime in crimes]
        drivers.append(hosts.run({"parts": parts}, crimes[0].folder / f"race-{number}.json"))
        for crime in crimes:
            crime.held(START, drivers[-1])
    for crime in crimes:
        crime.release(START)
    for driver in drivers:
        driver.wait()
    return crimes, drivers


@pytest.mark.parametrize(
    "copies",
    [
        pytest.param(("one", "other"), id="two copies", marks=pytest.mark.exhaustive),
        pytest.param(("checkpoints", "checkpoints"), id="the same checkpoint"),
    ],
)
def test_two_drivers_at_once_lose_and_double_nothing_and_a_third_run_finishes(
    copies: tuple[str, str], scene: SceneOf, hosts: Hosts
) -> None:
    crimes, drivers = races(scene, hosts, copies)

    for crime, *lines in zip(crimes, *(driver.errors() for driver in drivers), strict=True):
        stops = [line for line in lines if line]
        assert all(named(stop).isupper() and named(stop) != "BATCH_FAILED" for stop in stops), stops
        for stop in stops:
            crime.report(crime, stop)
        assert any(finishes(crime, copy) for copy in sorted(set(copies)))
        verdict = crime.verdict()
        assert verdict.clean, f"{crime.label}: {verdict}, {lines}"
        assert verdict.rows == 1500


def finishes(crime: Scene, copy: str) -> bool:
    """Whether a further run on this copy of the checkpoint ends well, with nothing left to do."""
    driver = crime.start(f"paths.checkpoints={crime.folder / copy}")
    return driver.wait() == 0
