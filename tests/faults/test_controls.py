"""Negative controls: where a protection is left out, the oracle must see what comes of it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Producer

from local.processes import wait_for
from tests.faults.conftest import SceneOf
from tests.faults.daemon import PATCH
from tests.faults.host import SECONDS, Hosts
from tests.faults.scene import Scene, finish_together, start_together

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

BATCH = "source.max_offsets_per_trigger=300"
SHARD = 90  # records of a batch that a shard has at least: about a third


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


@pytest.mark.exhaustive
def test_read_uncommitted_readers_see_the_duplicates_that_read_committed_ones_are_spared(scene: SceneOf) -> None:
    crimes = [scene(label=step, settings=[BATCH]) for step in ("shard-mid-produce", "shard-after-flush")]
    for crime in crimes:
        crime.fill(600)
        crime.arm(crime.label, batch=1, shard=0)
    driver = start_together(crimes)
    for crime in crimes:
        crime.held(crime.label, driver)
        there = partial(has_raw, crime, 300 + SHARD)  # batch 0, and the shard that is held
        wait_for(there, SECONDS, lambda: AssertionError("the held shard's records do not come"))
    driver.kill()
    finish_together(crimes)

    for crime in crimes:
        raw = crime.verdict(committed=False)
        assert raw.duplicated >= SHARD, f"{crime.label}: {raw}"
        verdict = crime.verdict()
        assert verdict.clean, f"{crime.label}: {verdict}"


@pytest.fixture
def careless_hosts(points: Path, tmp_path: Path) -> Iterator[Hosts]:
    """Hosts whose workers have no barrier: they take the first end that they are told for the ledger's end."""
    made = Hosts(tmp_path / "hosts", points, {PATCH: "no-barrier"}, spare=False)
    yield made
    made.close()


@pytest.mark.exhaustive
def test_without_the_barrier_a_transaction_that_hangs_in_the_ledger_doubles_a_shard_and_with_it_none(
    scene: SceneOf, careless_hosts: Hosts
) -> None:
    crimes = [scene(label=label, settings=[BATCH]) for label in ("with the barrier", "without it")]
    careful, careless = crimes
    for crime in crimes:
        crime.fill(900)
        crime.arm("shard-after-barrier", batch=1, shard=0)
        crime.arm("shard-after-commit", batch=1, shard=0)
    driver = start_together(crimes)
    intruders = []
    for crime in crimes:
        crime.held("shard-after-barrier", driver)
        intruders.append(intruder(crime, 1))
        crime.release("shard-after-barrier")
        crime.held("shard-after-commit", driver)
    driver.kill()

    # What the intruder keeps open hides the shard's marker, which is behind it, from whoever reads to the first end.
    careless.hosts = careless_hosts
    careless.finish()
    careful.arm("shard-after-fence", batch=1, shard=0)
    second = careful.start()
    careful.held("shard-after-fence", second)
    careful.release("shard-after-fence")
    for producer in intruders:
        producer.abort_transaction(SECONDS)

    assert second.wait() == 0, second.said[-3000:]
    verdict = careful.verdict()
    assert verdict.clean, verdict
    assert careless.verdict(marked=False).duplicated >= SHARD


def intruder(crime: Scene, partition: int) -> Producer:
    """A foreign producer with a transaction open in a partition of the ledger: a stand-in for one that hangs."""
    config = {"bootstrap.servers": crime.servers, "transactional.id": f"intruder-{crime.target}", "log_level": 0}
    producer = Producer({**config, "transaction.timeout.ms": 600_000})
    producer.init_transactions(SECONDS)
    producer.begin_transaction()
    producer.produce(crime.ledger, b"{}", b"intruder", partition)
    assert producer.flush(SECONDS) == 0
    return producer
