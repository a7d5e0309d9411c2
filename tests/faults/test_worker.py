"""SIGKILL of a Python worker at every step of a shard: Spark tries the task again, and nothing is lost or doubled."""

import os
import signal

import pytest

from tests.faults.conftest import SceneOf
from tests.faults.scene import assert_clean, finish_together, start_together
from tests.faults.steps import SHARD
from tests.kinds import of_a_kind

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

BATCH = "source.max_offsets_per_trigger=300"


@pytest.mark.parametrize("query", of_a_kind(["stateless", "shuffled", "windowed"], ["windowed"]))
def test_a_worker_killed_at_any_step_leaves_each_record_once(query: str, scene: SceneOf) -> None:
    crimes = [scene(query=query, label=step, settings=[BATCH]) for step in SHARD]
    for crime in crimes:
        crime.fill(600)
        crime.arm(crime.label, batch=1)
    driver = start_together(crimes)
    for crime in crimes:
        os.kill(crime.held(crime.label, driver), signal.SIGKILL)

    assert driver.wait() == 0, driver.said[-3000:]

    for crime in crimes:
        assert_clean(crime)


def test_workers_killed_in_several_sinks_of_one_job_leave_each_record_once_in_each(scene: SceneOf) -> None:
    one = scene(label="stateless", settings=[BATCH])
    one.fill(600)
    others = [scene(label=query, query=query, source=one.source, filled=600) for query in ("shuffled", "windowed")]
    for crime in (one, *others):
        crime.arm("shard-mid-produce", batch=1)
    driver = one.start(also=[other.plan() for other in others])
    for crime in (one, *others):
        os.kill(crime.held("shard-mid-produce", driver), signal.SIGKILL)

    assert driver.wait() == 0, driver.said[-3000:]

    for crime in (one, *others):
        assert_clean(crime)


@pytest.mark.exhaustive
def test_another_shard_count_after_each_run_leaves_each_record_once(scene: SceneOf) -> None:
    crime = scene(query="shuffled", settings=[BATCH])
    for shards in (4, 2, 3):
        crime.fill(600)
        crime.finish(f"ledger.shards={shards}")

    assert_clean(crime)


@pytest.mark.exhaustive
def test_another_shard_count_in_the_middle_of_a_batch_leaves_each_record_once(scene: SceneOf) -> None:
    changes = [(4, 2), (2, 4)]
    crimes = [scene(query="shuffled", label=f"{before} to {after}") for before, after in changes]
    for crime, (before, _) in zip(crimes, changes, strict=True):
        crime.settings = [BATCH, f"ledger.shards={before}"]
        crime.fill(900)
        crime.arm("shard-after-commit", batch=1, shard=0)
        crime.arm("shard-before-fence", batch=1, shard=1)
    driver = start_together(crimes)
    for crime in crimes:
        crime.held("shard-after-commit", driver)
        crime.held("shard-before-fence", driver)
    driver.kill()

    for crime, (_, after) in zip(crimes, changes, strict=True):
        crime.settings = [BATCH, f"ledger.shards={after}"]
    finish_together(crimes)

    for crime in crimes:
        assert_clean(crime)
