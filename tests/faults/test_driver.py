"""SIGKILL of driver, JVM and Python workers at every step of the protocol: nothing is lost, doubled or torn."""

import pytest

from tests.faults.conftest import SceneOf

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

STEPS = [
    "plan-before-fence",
    "plan-after-fence",
    "plan-after-barrier",
    "plan-after-flush",
    "plan-after-commit",
    "shard-before-fence",
    "shard-after-fence",
    "shard-after-barrier",
    "shard-mid-produce",
    "shard-after-flush",
    "shard-after-commit",
    "batch-before-commit-log",
]


@pytest.mark.parametrize("step", STEPS)
def test_a_driver_killed_at_any_step_leaves_each_record_once(step: str, scene: SceneOf) -> None:
    crime = scene(settings=["source.max_offsets_per_trigger=300"])
    crime.fill(900)
    crime.arm(step, batch=1)
    driver = crime.start()
    crime.held(step, driver)
    driver.kill()

    crime.finish()

    verdict = crime.verdict()
    assert verdict.clean, verdict
    assert verdict.rows == 900
