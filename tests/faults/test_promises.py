"""The knob: what each of the three deliveries promises, under the kill that is worst for it."""

import pytest

from tests.faults.conftest import SceneOf
from tests.faults.scene import finish_together, kill_together, start_together

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

BATCH = "source.max_offsets_per_trigger=300"
# Records that are handed over are not sent before they are flushed.
UNSENT = "sink.linger_ms=30000"


def test_after_a_kill_between_sink_and_commit_log_only_exactly_once_neither_loses_nor_doubles(scene: SceneOf) -> None:
    deliveries = ("exactly-once", "at-least-once", "at-most-once")
    crimes = {name: scene(delivery=name, label=name, settings=[BATCH]) for name in deliveries}
    for crime in crimes.values():
        crime.fill(900)
        crime.arm("batch-before-commit-log", batch=1)
    driver = start_together(list(crimes.values()))
    for crime in crimes.values():
        crime.held("batch-before-commit-log", driver)
    driver.kill()

    finish_together(list(crimes.values()))

    found = {name: crime.verdict() for name, crime in crimes.items()}
    counters = {name: (verdict.lost, verdict.duplicated) for name, verdict in found.items()}
    assert counters == {"exactly-once": (0, 0), "at-least-once": (0, 300), "at-most-once": (0, 0)}


@pytest.mark.exhaustive
def test_at_most_once_loses_what_a_kill_after_the_marker_leaves_unsent_and_doubles_nothing(scene: SceneOf) -> None:
    steps = ("shard-mid-produce", "shard-after-commit")
    crimes = [scene(delivery="at-most-once", label=step, settings=[BATCH, UNSENT]) for step in steps]
    for crime in crimes:
        crime.fill(900)
        crime.arm(crime.label, batch=1, shard=0)
    kill_together(crimes)

    finish_together(crimes)

    for crime in crimes:
        verdict = crime.verdict()
        assert (verdict.duplicated, verdict.phantom, verdict.out_of_order, verdict.stuck) == (0, 0, 0, 0)
        assert 0 < verdict.lost <= 300, f"{crime.label}: {verdict}"


@pytest.mark.exhaustive
def test_at_most_once_loses_nothing_without_a_fault(scene: SceneOf) -> None:
    crime = scene(delivery="at-most-once", settings=[BATCH])
    crime.fill(900)

    crime.finish()

    assert crime.verdict().clean
