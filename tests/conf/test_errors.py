"""How a command ends."""

import subprocess
import sys

import pytest

from conf import ROOT

SCRIPT = """
import atexit, os, sys
from conf.errors import TidemarkError, exit_on_error

class Late:
    def __del__(self):
        os.abort()

def main():
    global late
    late = Late()
    late.itself = late
    atexit.register(print, "registered by main")
    print("printed by main")
    {ending}

exit_on_error(main)
"""


def ended(ending: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT.format(ending=ending)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("ending", "code", "told"),
    [
        ("return 0", 0, ""),
        ("return 3", 3, ""),
        ("raise TidemarkError('A_CODE', 'what', 'remedy')", 1, "error: A_CODE: what; remedy\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("sys.exit(2)", 2, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('why')", 1, "why\n"),
    ],
)
def test_what_is_left_when_a_command_ends_is_not_taken_apart(ending: str, code: int, told: str) -> None:
    done = ended(ending)
    assert (done.returncode, done.stderr) == (code, told)
    assert done.stdout == "printed by main\nregistered by main\n"


def test_an_error_that_nobody_has_foreseen_shows_where_it_came_from() -> None:
    done = ended("raise KeyError('key')")
    assert done.returncode == 1
    assert done.stderr.endswith("KeyError: 'key'\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-c", SCRIPT.format(ending="print('x' * 1_000_000); return 0")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (141, "")
