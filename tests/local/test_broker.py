"""The embedded broker, for real: started, used, taken away, started again."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from conf.errors import TidemarkError
from local import broker as local_broker
from local.broker import Cluster
from local.broker_node import choose_ports
from local.processes import wait_for
from tests.faults import nodes

YEAR_2013_MS = 1_356_998_400_000


def produce(servers: str, topic: str, value: bytes, timeout_ms: int = 20_000) -> KafkaError | None:
    """Write one record with acks=all; the delivery error, None when it arrived."""
    errors: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": servers, "acks": "all", "message.timeout.ms": timeout_ms, "log_level": 0})
    producer.produce(
        topic, value, partition=0, timestamp=YEAR_2013_MS, on_delivery=lambda error, record: errors.append(error)
    )
    producer.flush(timeout_ms / 1000 + 5)
    return errors[0]


def consume(servers: str, topic: str) -> tuple[bytes | None, int]:
    """The first record of a topic: its value and its timestamp."""
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": "test", "auto.offset.reset": "earliest", "log_level": 0}
    )
    consumer.subscribe([topic])
    record = consumer.poll(20)
    consumer.close()
    assert record is not None
    return record.value(), record.timestamp()[1]


def create(servers: str, topic: str, replication_factor: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    admin.create_topics([NewTopic(topic, 1, replication_factor)])[topic].result(20)


def test_a_record_of_2013_is_kept_with_its_time(broker: Cluster, new_topic: Callable[[int], str]) -> None:
    topic = new_topic(1)
    assert produce(broker.bootstrap_servers, topic, b"x") is None
    assert consume(broker.bootstrap_servers, topic) == (b"x", YEAR_2013_MS)


def test_an_unknown_topic_is_not_made_by_writing_to_it(broker: Cluster) -> None:
    error = produce(broker.bootstrap_servers, "misspelt", b"x", timeout_ms=3_000)
    assert error is not None
    assert error.code() in (KafkaError._UNKNOWN_TOPIC, KafkaError._MSG_TIMED_OUT)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker that these tests may stop and kill, on a configured port."""
    folder = tmp_path_factory.mktemp("own")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Cluster(folder, folder / "logs", port=port, attached=True) as cluster:
        assert cluster.bootstrap_servers == f"127.0.0.1:{port}"
        yield cluster


def test_starting_a_running_broker_changes_nothing(own: Cluster) -> None:
    before = own.nodes[0].pid()
    assert own.start() is False
    assert own.nodes[0].pid() == before


@pytest.mark.slow
def test_a_stopped_broker_leaves_no_process_and_no_address_but_its_data(own: Cluster) -> None:
    pid, address = own.nodes[0].pid(), own.nodes[0].home.parent / "bootstrap.servers"
    create(own.bootstrap_servers, "kept")
    produce(own.bootstrap_servers, "kept", b"before")
    assert address.read_text().strip() == own.bootstrap_servers
    assert own.stop() is True
    assert not Path(f"/proc/{pid}").exists()
    assert not address.exists()
    assert own.stop() is False
    assert own.start() is True
    assert consume(own.bootstrap_servers, "kept")[0] == b"before"


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["empty", "gone"])
def test_a_damaged_layout_is_mended_as_its_error_says_and_the_data_stays(own: Cluster, loss: str) -> None:
    topic, home, pid = f"kept-{loss}", own.nodes[0].home.parent, own.nodes[0].pid()
    create(own.bootstrap_servers, topic)
    produce(own.bootstrap_servers, topic, b"before")
    layout = home / "cluster.json"
    layout.write_text("")
    if loss == "gone":
        layout.unlink()
    with pytest.raises(TidemarkError, match="BROKER_STATE_DAMAGED") as caught:
        own.start()
    assert caught.value.remedy.startswith(f"run `local/tidemark broker stop`, then `rm -rf {layout}`; `broker start`")
    assert own.stop() is True
    assert not Path(f"/proc/{pid}").exists()
    layout.unlink(missing_ok=True)
    assert own.start() is True
    assert consume(own.bootstrap_servers, topic)[0] == b"before"


@pytest.mark.slow
def test_a_killed_broker_is_seen_as_gone_and_starts_again(own: Cluster) -> None:
    os.kill(own.nodes[0].pid() or 0, signal.SIGKILL)
    wait_for(lambda: not own.running(), 10, lambda: AssertionError("still counts as running"))
    assert own.start() is True


def test_a_pid_file_that_names_a_stranger_harms_nobody(own: Cluster) -> None:
    pid_file = own.nodes[0].home / "pid"
    ours = pid_file.read_text()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        pid_file.write_text(f"{stranger.pid}\n")
        try:
            assert own.running() == []
            assert own.stop() is False
            assert stranger.poll() is None
        finally:
            pid_file.write_text(ours)
            stranger.communicate(b"\n")


def test_data_of_one_node_is_not_taken_for_three(own: Cluster) -> None:
    home = own.nodes[0].home.parent
    with pytest.raises(TidemarkError, match=r"BROKER_NODES.*of 1 nodes, broker\.nodes is 3"):
        Cluster(home, home / "logs", nodes=3).start()


def test_a_port_that_another_program_holds_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(TidemarkError, match=rf"PORT_TAKEN.*127\.0\.0\.1:{port}"):
            Cluster(tmp_path, tmp_path / "logs", port=port).start()


@pytest.mark.slow
def test_a_port_that_is_taken_between_choice_and_start_is_chosen_anew(
    own: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = iter([[own.nodes[0].ports], choose_ports([0], [])])
    monkeypatch.setattr(local_broker, "choose_ports", lambda requested, before: next(chosen))
    with Cluster(tmp_path / "broker", tmp_path / "logs", attached=True) as cluster:
        assert cluster.nodes[0].address != own.nodes[0].address
        create(cluster.bootstrap_servers, "t")
    assert own.running()


def test_a_broker_that_dies_at_its_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, tmp_path / "logs", attached=True)
    data = tmp_path / "node-1" / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=abcdefghijklmnopqrstuv\n")
    with pytest.raises(TidemarkError, match=r"BROKER_FAILED: broker node 1 ended: .*Exception: .*7.*broker-1\.log"):
        cluster.start()
    assert cluster.running() == []
    assert not (tmp_path / "bootstrap.servers").exists()


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("three")
    with Cluster(folder, folder / "logs", nodes=3, heap_mb=256, attached=True) as cluster:
        # A node that answers clients can still be unknown to the controller, on a busy machine for seconds.
        wait_for(lambda: created(cluster), 60, lambda: AssertionError("three nodes never take a topic"))
        yield cluster


def created(cluster: Cluster) -> bool:
    try:
        create(cluster.bootstrap_servers, "replicated", replication_factor=3)
    except KafkaException as exc:
        return bool(exc.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS)
    return True


@pytest.mark.exhaustive
@pytest.mark.slow
def test_three_nodes_survive_one_and_refuse_with_one_left(three_nodes: Cluster) -> None:
    leader = nodes.leader(three_nodes, "replicated", 0)
    nodes.kill(three_nodes, leader)
    assert produce(three_nodes.bootstrap_servers, "replicated", b"two left", timeout_ms=40_000) is None
    assert nodes.leader_of(three_nodes, "replicated", 0) != leader
    second = nodes.leader_of(three_nodes, "replicated", 0)
    nodes.pause(three_nodes, second)
    assert produce(three_nodes.bootstrap_servers, "replicated", b"one left", timeout_ms=8_000) is not None
    nodes.resume(three_nodes, second)
    nodes.restart(three_nodes, leader)
    assert produce(three_nodes.bootstrap_servers, "replicated", b"all again", timeout_ms=40_000) is None
    assert consume(three_nodes.bootstrap_servers, "replicated")[0] == b"two left"


@pytest.mark.exhaustive
def test_a_cluster_id_that_begins_with_a_dash_is_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.broker._new_id", lambda: "-TCpg4ipTGSTmdJvEMM_HQ")

    with Cluster(tmp_path, tmp_path / "logs", attached=True) as cluster:
        assert "-TCpg4ipTGSTmdJvEMM_HQ" in (tmp_path / "node-1" / "data" / "meta.properties").read_text()
        assert cluster.running()
