"""Three real brokers, of which one or two are taken away while a query publishes: it goes on, or stops by name.

A node is killed or paused in the middle of a transaction of batch 1. Whoever waits for it, waits until the controller
gives the node up (9 s by Kafka's default) and another one has taken over its part.
"""

import time
from collections.abc import Iterator

import pytest

from local.broker import Cluster
from local.processes import wait_for
from tests.faults import nodes
from tests.faults.conftest import SceneOf
from tests.faults.host import Driver
from tests.faults.scene import Scene

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

BATCH = "source.max_offsets_per_trigger=300"
REQUEST_TIMEOUT_SECONDS = 30.0  # librdkafka's request.timeout.ms, and Java's


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes of this module's own."""
    folder = tmp_path_factory.mktemp("brokers")
    with Cluster(folder, folder / "logs", nodes=3, heap_mb=300, attached=True) as cluster:
        nodes.settle(cluster)
        yield cluster


@pytest.fixture
def trio(brokers: Cluster) -> Iterator[Cluster]:
    """The three nodes, all there and in sync; whole again after the test."""
    yield brokers
    nodes.heal(brokers)


def held(crime: Scene, point: str, **where: object) -> Driver:
    """A driver that is held in batch 1 of three."""
    crime.fill(900)
    crime.arm(point, batch=1, **where)
    driver = crime.start()
    crime.held(point, driver)
    return driver


def goes_on(crime: Scene, driver: Driver, point: str) -> None:
    crime.release(point)
    assert driver.wait() == 0, driver.said[-3000:]
    verdict = crime.verdict()
    assert verdict.clean, verdict
    assert verdict.rows == 900


def test_a_query_goes_on_when_the_leader_of_an_output_partition_is_killed(trio: Cluster, scene: SceneOf) -> None:
    crime = scene(trio, replication=3, settings=[BATCH])
    driver = held(crime, "shard-mid-produce", shard=0)
    killed = nodes.leader(trio, crime.target, 0)
    trio.kill(killed)
    goes_on(crime, driver, "shard-mid-produce")
    assert nodes.leader(trio, crime.target, 0) != killed


def test_a_query_goes_on_when_the_coordinator_of_a_shards_transaction_is_killed(trio: Cluster, scene: SceneOf) -> None:
    crime = scene(trio, replication=3, settings=[BATCH])
    driver = held(crime, "shard-after-flush", shard=0)
    killed = nodes.coordinator(trio, f"{crime.sink}.0")
    trio.kill(killed)
    goes_on(crime, driver, "shard-after-flush")
    assert nodes.coordinator(trio, f"{crime.sink}.0") != killed


def test_a_query_goes_on_when_the_leader_of_the_metadata_quorum_is_killed(trio: Cluster, scene: SceneOf) -> None:
    crime = scene(trio, replication=3, settings=[BATCH])
    driver = held(crime, "plan-after-barrier")
    killed = nodes.controller(trio)
    trio.kill(killed)
    goes_on(crime, driver, "plan-after-barrier")
    assert nodes.controller(trio) != killed


def test_a_query_stops_by_name_while_two_of_three_nodes_are_down_and_a_later_run_finishes(
    trio: Cluster, scene: SceneOf
) -> None:
    crime = scene(trio, replication=3, settings=[BATCH, "ledger.transaction_timeout_ms=15000"])
    driver = held(crime, "shard-mid-produce", shard=0)
    leader = nodes.leader(trio, crime.target, 0)
    for node in (leader, leader % 3 + 1):
        trio.kill(node)
    crime.release("shard-mid-produce")
    assert driver.wait() == 1, "a minority of nodes has acknowledged something"
    assert "TRANSACTION_TIMED_OUT" in driver.said
    assert not (crime.checkpoint / "commits" / "1").exists()
    nodes.heal(trio)

    crime.finish()

    verdict = crime.verdict()
    assert verdict.clean, verdict
    assert verdict.rows == 900


def test_a_query_goes_on_when_a_leader_sleeps_for_longer_than_a_request_may_take(trio: Cluster, scene: SceneOf) -> None:
    crime = scene(trio, replication=3, settings=[BATCH])
    driver = held(crime, "shard-mid-produce", shard=0)
    leader = nodes.leader(trio, crime.target, 0)
    trio.pause(leader)
    until = time.monotonic() + REQUEST_TIMEOUT_SECONDS + 5
    crime.release("shard-mid-produce")
    wait_for(lambda: time.monotonic() > until, 60, lambda: AssertionError("time stands still"))
    trio.resume(leader)
    goes_on(crime, driver, "shard-mid-produce")
