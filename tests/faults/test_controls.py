"""Negative controls: where a protection is left out, the oracle must see what comes of it."""

from functools import partial

import pytest

from local.processes import wait_for
from tests.faults.conftest import SceneOf
from tests.faults.host import SECONDS
from tests.faults.scene import Scene, finish_together, start_together

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

BATCH = "source.max_offsets_per_trigger=300"


def test_sparks_own_sink_doubles_a_batch_whose_driver_is_killed_before_the_commit_log(scene: SceneOf) -> None:
    crime = scene(delivery="at-least-once", settings=[BATCH])
    crime.fill(600)
    crime.arm("batch-before-commit-log", batch=1)
    driver = crime.start()
    crime.held("batch-before-commit-log", driver)
    driver.kill()

    crime.finish()

    verdict = crime.verdict()
    assert not verdict.clean
    assert verdict.duplicated == 300


def has_raw(crime: Scene, rows: int) -> bool:
    """Whether so many records are in the topic, committed or not."""
    return crime.verdict(committed=False).rows >= rows


def test_read_uncommitted_readers_see_the_duplicates_that_read_committed_ones_are_spared(scene: SceneOf) -> None:
    crimes = [scene(label=step, settings=[BATCH]) for step in ("shard-mid-produce", "shard-after-flush")]
    for crime in crimes:
        crime.fill(600)
        crime.arm(crime.label, batch=1, shard=0)
    driver = start_together(crimes)
    for crime in crimes:
        crime.held(crime.label, driver)
        # Those of batch 0, and the hundred of the shard that is held.
        there = partial(has_raw, crime, 400)
        wait_for(there, SECONDS, lambda: AssertionError("the held shard's records do not come"))
    driver.kill()
    finish_together(crimes)

    for crime in crimes:
        raw = crime.verdict(committed=False)
        assert raw.duplicated >= 100, f"{crime.label}: {raw}"
        verdict = crime.verdict()
        assert verdict.clean, f"{crime.label}: {verdict}"
