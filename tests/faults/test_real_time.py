"""Delivery "real-time": a driver that is killed amid a batch loses nothing, and doubles no more than that batch."""

import pytest

from local.processes import wait_for
from tests.faults.conftest import SceneOf
from tests.faults.host import SECONDS
from tests.faults.scene import Scene

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def await_rows(crime: Scene, count: int) -> None:
    def there() -> bool:
        verdict = crime.verdict()
        return verdict.lost == 0 and verdict.rows >= count

    wait_for(there, SECONDS, lambda: AssertionError(f"{crime.verdict()}: {crime.drivers[-1].said[-3000:]}"))


def test_a_driver_killed_amid_a_batch_in_real_time_loses_nothing_and_micro_batches_go_on_with_its_checkpoint(
    scene: SceneOf,
) -> None:
    crime = scene(delivery="real-time", settings=["sink.real_time_batch=5 seconds"])
    checked = crime.checkpoint / "tidemark" / "plan.json"  # written once a batch is over and checked
    crime.fill(300)
    driver = crime.start(continuous=True)
    wait_for(checked.exists, SECONDS, lambda: AssertionError(driver.said[-3000:]))
    crime.fill(300)
    await_rows(crime, 600)
    driver.kill()
    crime.fill(300)

    again = crime.start(continuous=True)
    await_rows(crime, 900)
    again.kill()
    crime.finish()

    verdict = crime.verdict()
    assert (verdict.lost, verdict.phantom, verdict.out_of_order) == (0, 0, 0)
    assert 0 < verdict.duplicated <= 1_200  # twice what had come by the kill, and the first 300 not at all
