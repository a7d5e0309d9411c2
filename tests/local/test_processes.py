"""A signal to a command ends what it has started."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from conf import ROOT

# A command with a child in a process group of its own, which no terminal signals.
COMMAND = """
import sys
from conf.errors import exit_on_error
from local.processes import end_on_signal, output_of
def main():
    end_on_signal()
    with output_of([sys.executable, "-c", "import signal; signal.pause()"]) as child:
        print(child.pid, flush=True)
        child.wait()
    return 0
exit_on_error(main)
"""


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
