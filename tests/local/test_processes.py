"""Ports stay the same over restarts while they are free, and no two nodes share one."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from conf import ROOT
from conf.errors import TidemarkError
from local import processes

# A command with a child in a process group of its own, which no terminal signals.
COMMAND = """
import sys
from conf.errors import exit_on_error
from local.processes import end_on_signal, output_of
def main():
    end_on_signal()
    with output_of([sys.executable, "-c", "print(1, flush=True); input()"]) as child:
        print(child.pid, flush=True)
        child.wait()
    return 0
exit_on_error(main)
"""


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


@contextmanager
def started(*before: str) -> Iterator[tuple["subprocess.Popen[str]", psutil.Process]]:
    """A command and its child."""
    words = [*before, sys.executable, "-c", COMMAND]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        try:
            yield process, child
        finally:
            process.kill()
            if child.is_running():
                child.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_a_command_ends_what_it_has_started(number: int) -> None:
    with started() as (process, child):
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert not child.is_running()


def test_under_nohup_a_terminal_that_is_closed_ends_nothing() -> None:
    with started("nohup") as (process, _):
        process.send_signal(signal.SIGHUP)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM
