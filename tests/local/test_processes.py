"""Ports stay the same over restarts while they are free, and no two nodes share one."""

import socket

import pytest

from conf.errors import TidemarkError
from local import processes


def test_a_port_from_before_is_taken_again() -> None:
    first = processes.choose_ports([0], [])
    assert processes.choose_ports([0], first) == first


def test_a_port_from_before_that_is_taken_now_is_replaced() -> None:
    with socket.create_server((processes.HOST, 0)) as held:
        taken = held.getsockname()[1]
        (chosen,) = processes.choose_ports([0], [{"port": taken, "controller_port": 0}])
        assert chosen["port"] != taken


def test_three_nodes_get_six_ports() -> None:
    chosen = processes.choose_ports([0, 0, 0], [])
    assert len({port for node in chosen for port in node.values()}) == 6


def test_a_wanted_port_that_is_taken_is_an_error() -> None:
    with socket.create_server((processes.HOST, 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(TidemarkError, match=rf"PORT_TAKEN: another program listens on 127\.0\.0\.1:{port}"):
            processes.choose_ports([port], [])
