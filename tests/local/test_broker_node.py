"""What a cluster is known by, and what becomes of it where that is damaged; which ports its nodes get."""

import socket
from dataclasses import astuple
from pathlib import Path

import pytest

from conf.errors import TidemarkError
from local.broker import Cluster
from local.broker_node import LAYOUT, META, Layout, Ports, choose_ports, id_of_data
from local.processes import HOST

DAMAGED = ["", "[]", "{}", '{"id": "x"}', '{"id": 1, "nodes": []}', '{"id": "x", "nodes": [1]}', "\udcff"]
DAMAGED += ['{"id": "x", "nodes": [{"port": "1", "controller_port": 2}]}', '{"id": "x", "nodes": [{"port": 1}]}']


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert Layout.read(tmp_path) == Layout("", ())
    kept = Layout("an-id", (Ports(1, 2),))
    kept.write(tmp_path)
    assert Layout.read(tmp_path) == kept


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_layout_is_one_line_with_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / LAYOUT).write_text(text, errors="surrogateescape")
    cluster = Cluster(tmp_path, tmp_path / "logs")
    for ask in (cluster.running, cluster.start, lambda: cluster.bootstrap_servers):
        with pytest.raises(TidemarkError, match=rf"BROKER_STATE_DAMAGED: {tmp_path}/cluster\.json cannot be read"):
            ask()
    assert cluster.stop() is False


def test_a_layout_that_is_a_folder_is_one_line_too(tmp_path: Path) -> None:
    (tmp_path / LAYOUT).mkdir()
    with pytest.raises(TidemarkError, match=r"BROKER_STATE_DAMAGED.*Is a directory"):
        Layout.read(tmp_path)


def test_data_without_a_layout_keeps_its_id_and_its_number_of_nodes(tmp_path: Path) -> None:
    assert id_of_data(tmp_path) == ""
    for node in (1, 2, 3):
        meta = tmp_path / f"node-{node}" / META
        meta.parent.mkdir(parents=True)
        meta.write_text(f"#\nnode.id={node}\ncluster.id=an-id\n")
    assert id_of_data(tmp_path) == "an-id"
    with pytest.raises(TidemarkError, match=r"BROKER_NODES.*of 3 nodes, broker\.nodes is 1"):
        Cluster(tmp_path, tmp_path / "logs").start()


def test_a_port_from_before_is_taken_again() -> None:
    first = choose_ports([0], [])
    assert choose_ports([0], first) == first


def test_a_port_from_before_that_is_taken_now_is_replaced() -> None:
    with socket.create_server((HOST, 0)) as held:
        taken = held.getsockname()[1]
        (chosen,) = choose_ports([0], [Ports(taken, 0)])
        assert chosen.port != taken


def test_three_nodes_get_six_ports() -> None:
    chosen = choose_ports([0, 0, 0], [])
    assert len({port for node in chosen for port in astuple(node)}) == 6


def test_a_wanted_port_that_is_taken_is_an_error() -> None:
    with socket.create_server((HOST, 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(TidemarkError, match=rf"PORT_TAKEN: another program listens on 127\.0\.0\.1:{port}"):
            choose_ports([port], [])
