"""Three real brokers, of which one or two are taken away while a query publishes: it goes on, or stops by name.

A node is killed or paused in the middle of a transaction. Whoever waits for it, waits until the controller gives the
node up and another one has taken over its part.
"""

from collections.abc import Iterator

import pytest

from local.broker import Cluster
from tests.faults import nodes
from tests.faults.conftest import SceneOf
from tests.faults.host import Driver
from tests.faults.scene import Scene

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

BATCH = "source.max_offsets_per_trigger=300"
MANY = 50_000  # so many that a shard still produces after it was held


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes of this module's own."""
    folder = tmp_path_factory.mktemp("brokers")
    # Kafka's 9 s would only be waited for; all that a node's end sets off is the same after 4.
    with Cluster(folder, folder / "logs", nodes=3, heap_mb=300, attached=True, session_ms=4_000) as cluster:
        nodes.settle(cluster)
        yield cluster


@pytest.fixture
def trio(brokers: Cluster) -> Iterator[Cluster]:
    """The three nodes, all there and in sync; whole again after the test."""
    yield brokers
    nodes.heal(brokers)


def held(crime: Scene, point: str, **where: object) -> Driver:
    """A driver that is held at `point`."""
    crime.arm(point, **where)
    driver = crime.start()
    crime.held(point, driver)
    return driver


def require_clean(crime: Scene) -> None:
    verdict = crime.verdict()
    assert verdict.clean, verdict
    assert verdict.rows == crime.filled


def goes_on(crime: Scene, driver: Driver, point: str) -> None:
    crime.release(point)
    assert driver.wait() == 0, driver.said[-3000:]
    require_clean(crime)


def test_a_query_goes_on_when_the_leader_of_an_output_partition_is_killed(trio: Cluster, scene: SceneOf) -> None:
    crime = scene(trio, replication=3, settings=[BATCH])
    crime.fill(900)
    driver = held(crime, "shard-mid-produce", batch=1, shard=0)
    killed = nodes.leader(trio, crime.target, 0)
    nodes.kill(trio, killed)
    goes_on(crime, driver, "shard-mid-produce")
    assert nodes.leader(trio, crime.target, 0) != killed


@pytest.mark.exhaustive
def test_a_query_goes_on_when_the_coordinator_of_a_shards_transaction_is_killed(trio: Cluster, scene: SceneOf) -> None:
    crime = scene(trio, replication=3, settings=[BATCH])
    crime.fill(900)
    driver = held(crime, "shard-after-flush", batch=1, shard=0)
    killed = nodes.coordinator(trio, f"{crime.sink}.0")
    nodes.kill(trio, killed)
    goes_on(crime, driver, "shard-after-flush")
    assert nodes.coordinator(trio, f"{crime.sink}.0") != killed


@pytest.mark.exhaustive
def test_a_query_goes_on_when_the_leader_of_the_metadata_quorum_is_killed(trio: Cluster, scene: SceneOf) -> None:
    crime = scene(trio, replication=3, settings=[BATCH])
    crime.fill(900)
    driver = held(crime, "plan-after-barrier", batch=1)
    killed = nodes.controller(trio)
    nodes.kill(trio, killed)
    goes_on(crime, driver, "plan-after-barrier")
    assert nodes.controller(trio) != killed


@pytest.mark.exhaustive
def test_a_query_stops_by_name_while_two_of_three_nodes_are_down_and_a_later_run_finishes(
    trio: Cluster, scene: SceneOf
) -> None:
    crime = scene(trio, replication=3, settings=[BATCH, "ledger.transaction_timeout_ms=15000"])
    crime.fill(900)
    driver = held(crime, "shard-mid-produce", batch=1, shard=0)
    leader = nodes.leader(trio, crime.target, 0)
    for node in (leader, leader % 3 + 1):
        nodes.kill(trio, node)
    crime.release("shard-mid-produce")
    assert driver.wait() == 1, "a minority of nodes has acknowledged something"
    assert "BROKER_UNREACHABLE" in driver.said
    assert not (crime.checkpoint / "commits" / "1").exists()
    nodes.heal(trio)

    crime.finish()

    require_clean(crime)


@pytest.mark.exhaustive
def test_a_query_goes_on_while_a_leader_hangs_and_does_not_mind_when_it_wakes(trio: Cluster, scene: SceneOf) -> None:
    crime = scene(trio, replication=3)
    for _ in range(2):
        crime.fill(MANY)
    driver = held(crime, "shard-mid-produce", shard=0)
    leader = nodes.leader(trio, crime.target, 0)
    nodes.pause(trio, leader)
    crime.release("shard-mid-produce")
    # Requests to it are under way, and nobody closes the connection: the writer has to give them up by itself.
    assert driver.wait() == 0, driver.said[-3000:]
    nodes.resume(trio, leader)
    nodes.heal(trio)
    require_clean(crime)
