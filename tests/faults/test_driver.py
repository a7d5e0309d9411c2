"""SIGKILL of driver, JVM and Python workers at every step of the protocol: nothing is lost, doubled or torn."""

import pytest
from deltalake import DeltaTable

from tests.faults.conftest import SceneOf
from tests.faults.scene import assert_clean, finish_together, kill_together
from tests.faults.steps import DRIVER, SHARD, WHOLE
from tests.kinds import of_a_kind

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

# The plan is made in one way, whatever the query does.
SHARD_STEPS = (*SHARD, "batch-before-commit-log")


@pytest.mark.parametrize(
    ("query", "steps"),
    [
        pytest.param("stateless", DRIVER, id="stateless"),
        pytest.param("shuffled", SHARD_STEPS, id="shuffled", marks=pytest.mark.exhaustive),
        pytest.param("windowed", SHARD_STEPS, id="windowed"),
    ],
)
def test_a_driver_killed_at_any_step_leaves_each_record_once(
    query: str, steps: tuple[str, ...], scene: SceneOf
) -> None:
    # A query for each step, all of one driver: when each is held at its own, all die together.
    crimes = [scene(query=query, label=step, settings=["source.max_offsets_per_trigger=300"]) for step in steps]
    for crime in crimes:
        crime.fill(900)
        crime.arm(crime.label, batch=1)
    kill_together(crimes)

    finish_together(crimes)

    for crime in crimes:
        assert_clean(crime)


@pytest.mark.parametrize(
    ("records", "steps"),
    [
        pytest.param(90, WHOLE, id="small before and after"),
        pytest.param(
            300, ("whole-after-flush", "whole-after-commit"), id="in shards after", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_a_driver_killed_while_it_publishes_a_small_batch_itself_leaves_each_record_once(
    records: int, steps: tuple[str, ...], scene: SceneOf
) -> None:
    # A new driver takes only a batch of less than a hundred records for small, as long as it has seen none.
    settings = [f"source.max_offsets_per_trigger={records}", "ledger.small_batch_records=5000"]
    crimes = [scene(label=step, settings=settings) for step in steps]
    for crime in crimes:
        crime.fill(4 * records)
        crime.arm(crime.label, batch=2)
    kill_together(crimes)

    finish_together(crimes)

    for crime in crimes:
        assert_clean(crime)


@pytest.mark.parametrize(
    "step",
    of_a_kind(
        ["batch-between-table-and-topic", "shard-mid-produce", "batch-before-commit-log"],
        ["batch-between-table-and-topic"],
    ),
)
def test_a_driver_killed_between_table_and_topic_leaves_each_record_once_in_both(step: str, scene: SceneOf) -> None:
    crime = scene(settings=["source.max_offsets_per_trigger=300"])
    crime.fill(900)
    crime.arm(step, batch=1)
    driver = crime.start(table=crime.target)
    crime.held(step, driver)
    driver.kill()

    crime.finish(table=crime.target)

    verdict = crime.verdict()
    assert verdict.clean, verdict
    rows = DeltaTable(crime.folder / "tables" / crime.target).to_pyarrow_table().column("value").to_pylist()
    assert sorted(map(int, rows)) == list(range(900))
