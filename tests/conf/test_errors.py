"""How a command ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

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


def ended(ending: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT.format(ending=ending)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=60)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


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


def test_an_error_that_nobody_has_foreseen_is_one_line_and_a_file_that_only_its_owner_reads(state: Path) -> None:
    done = ended("password = 'hunter2'; raise KeyError('key')", TIDEMARK_STATE=str(state))
    kept = state / "logs" / "tracebacks.log"
    assert (done.returncode, done.stderr) == (1, f"error: INTERNAL: KeyError: 'key'; the traceback is in {kept}\n")
    assert kept.read_text().endswith("\nKeyError: 'key'\n")
    assert "Traceback" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_tracebacks_are_kept_one_after_the_other_but_not_without_end(state: Path) -> None:
    kept = state / "logs" / "tracebacks.log"
    for number in (1, 2):
        ended(f"raise KeyError({number})", TIDEMARK_STATE=str(state))
    assert kept.read_text().count("Traceback") == 2
    kept.write_text("x" * 2_000_000)
    ended("raise KeyError(3)", TIDEMARK_STATE=str(state))
    assert kept.read_text().startswith("====")


def test_where_no_file_can_be_written_the_traceback_is_shown_and_no_state_folder_is_made(tmp_path: Path) -> None:
    done = ended("raise KeyError('key')", TIDEMARK_STATE=str(tmp_path / "none"))
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("error: INTERNAL: KeyError: 'key'; the traceback is above\n")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("open('/nowhere/x')", "IO_FAILED: /nowhere/x: No such file or directory; mend that and"),
        (
            "raise PermissionError(13, 'Permission denied', '/x')",
            "IO_FAILED: /x: Permission denied; let this user read",
        ),
        (
            "raise OSError(28, 'No space left on device')",
            "IO_FAILED: standard output or a file: No space left on device;",
        ),
        ("raise OSError('it says\\nno more')", "IO_FAILED: it says no more; mend that"),
        (
            "raise OSError(30, 'Read-only file system', 'FOLDER/logs')",
            "STATE_NOT_WRITABLE: the state folder FOLDER cannot be written: FOLDER/logs: Read-only file system; let it",
        ),
        (
            "raise OSError(28, 'No space left on device', 'FOLDER/x')",
            "STATE_NOT_WRITABLE: the state folder FOLDER cannot be written: FOLDER/x: No space left on device; free",
        ),
        ("raise FileNotFoundError(2, 'No such file or directory', 'FOLDER/x')", "IO_FAILED: FOLDER/x: No such file"),
    ],
)
def test_what_the_system_refuses_is_one_line_with_its_path_and_a_remedy(state: Path, ending: str, told: str) -> None:
    done = ended(ending.replace("FOLDER", str(state)), TIDEMARK_STATE=str(state))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {told.replace('FOLDER', str(state))}")
    assert done.stderr.count("\n") == 1


def test_the_traceback_of_any_error_can_be_asked_for() -> None:
    for error in ("OSError(28, 'x')", "KeyError('key')", "TidemarkError('A_CODE', 'what', 'remedy')"):
        assert "Traceback" in ended(f"raise {error}", TIDEMARK_DEBUG="1").stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_failure(closed: str) -> None:
    inner = f'exec "$1" -c "$2" {closed}'
    script = SCRIPT.format(ending="sys.stdout.write('x'); sys.stderr.write(sys.stdin.read()); return 3")
    done = subprocess.run(["bash", "-c", inner, "-", sys.executable, script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "")


def test_output_on_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        script = "from conf.errors import exit_on_error; exit_on_error(lambda: print('printed') or 0)"
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: IO_FAILED: standard output or a file: No space left on device; ")
    assert done.stderr.count("\n") == 1


def test_an_interrupt_that_was_held_back_while_modules_loaded_is_taken() -> None:
    early = (
        "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [2]); os.kill(os.getpid(), 2); print('loaded')\n"
    )
    command = [sys.executable, "-c", early + SCRIPT.format(ending="return 0")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "loaded\n", "interrupted\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-c", SCRIPT.format(ending="print('x' * 1_000_000); return 0")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (141, "")
