"""The set-up on machines that lack something; Python and pip are stand-ins that note their calls."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from conf import ROOT
from local.processes import wait_for

TOOLS = (
    "bash",
    "cat",
    "chmod",
    "cut",
    "dirname",
    "du",
    "env",
    "flock",
    "grep",
    "ls",
    "mkdir",
    "readlink",
    "rm",
    "sha256sum",
    "sleep",
    "tail",
)
PYTHON = """#!/bin/bash
echo "$@" >>"{calls}"
case "$*" in
    *"-m venv "*)
        mkdir -p "${{@: -1}}/bin" "${{@: -1}}/lib/python3.11/site-packages"
        cat "$0" >"${{@: -1}}/bin/python"
        chmod +x "${{@: -1}}/bin/python" ;;
    *"pip install"*) {pip} ;;
    *ensurepip*) {ensurepip} ;;
esac
"""


class Machine:
    """A PATH with the basic tools, and what a test adds to it."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.state, self.calls = folder / "bin", folder / "state", folder / "calls"
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)
        self.calls.touch()

    def has_java(self, version: str = "17.0.9") -> "Machine":
        home = self.bin.parent / "java"
        (home / "bin").mkdir(parents=True)
        (home / "bin" / "java").touch(0o755)
        (home / "release").write_text(f'JAVA_VERSION="{version}"\nMODULES="jdk.incubator.vector"\n')
        (self.bin / "java").symlink_to(home / "bin" / "java")
        return self

    def has_python(self, pip: str = "true", ensurepip: str = "true") -> "Machine":
        python = self.bin / "python3.11"
        python.write_text(PYTHON.format(calls=self.calls, pip=pip, ensurepip=ensurepip))
        python.chmod(0o755)
        venv_python = self.state / "venv" / "bin" / "python"
        if venv_python.exists():
            venv_python.write_text(python.read_text())
        return self

    def start(
        self, command: str = "tidemark_bootstrap runtime", home: str | None = "/nowhere", state: str = ""
    ) -> "subprocess.Popen[str]":
        script = f"set -euo pipefail; source {ROOT}/local/bootstrap.sh; {command}"
        environment = {"PATH": str(self.bin), "TIDEMARK_STATE": state or str(self.state)}
        environment |= {"HOME": home} if home else {}
        return subprocess.Popen(
            [str(self.bin / "bash"), "-c", script], env=environment, text=True, stderr=subprocess.PIPE
        )

    def run(
        self, command: str = "tidemark_bootstrap runtime", home: str | None = "/nowhere", state: str = ""
    ) -> tuple[int, list[str]]:
        """Exit code and lines on stderr."""
        process = self.start(command, home, state)
        _, told = process.communicate(timeout=30)
        return process.returncode, told.splitlines()

    def pip_calls(self) -> int:
        return sum("pip install" in line for line in self.calls.read_text().splitlines())


def in_group(process: psutil.Process, leader: int) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) == leader
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_java_one_line_names_the_package(machine: Machine) -> None:
    assert machine.has_python().run() == (
        1,
        ["error: no Java on PATH; install Java 17 or newer, on Debian: apt-get install openjdk-17-jre-headless"],
    )
    assert not machine.state.exists()


def test_an_old_java_is_named_with_its_version(machine: Machine) -> None:
    code, (line,) = machine.has_python().has_java("1.8.0_292").run()
    assert code == 1
    assert line.startswith(f"error: {machine.bin}/java is Java 8, too old; install Java 17")


def test_without_python_one_line_names_the_package(machine: Machine) -> None:
    assert machine.has_java().run() == (
        1,
        ["error: no Python 3.11 or newer on PATH; install it, on Debian: apt-get install python3.11-venv"],
    )


def test_a_python_that_cannot_make_environments_is_named(machine: Machine) -> None:
    code, (line,) = machine.has_java().has_python(ensurepip="exit 1").run()
    assert code == 1
    assert line.startswith(f"error: {machine.bin}/python3.11 cannot make virtual environments; install it, on Debian: ")


def test_a_second_run_installs_nothing_and_the_first_is_a_line_a_step(machine: Machine) -> None:
    machine.has_java().has_python(pip="for n in {1..150}; do echo line $n; done")
    code, (making, installing, installed) = machine.run()
    assert code == 0
    assert making == f"making a virtual environment in {machine.state}/venv"
    assert re.fullmatch(rf"installing \d+ packages of conf/requirements.lock into {machine.state}/venv", installing)
    assert re.fullmatch(r"packages installed in \d+ s: \d+ MB", installed)
    calls = machine.calls.read_text()
    assert machine.pip_calls() == 2
    assert machine.run() == (0, [])
    assert machine.calls.read_text() == calls


def test_the_checkout_is_importable_from_the_environment(machine: Machine) -> None:
    machine.has_java().has_python().run()
    (path_file,) = machine.state.glob("venv/lib/python3.*/site-packages/tidemark.pth")
    assert path_file.read_text() == f"{ROOT}\n"


def test_the_larger_package_set_serves_the_smaller_one(machine: Machine) -> None:
    machine.has_java().has_python().run("tidemark_bootstrap dev")
    assert machine.run("tidemark_bootstrap runtime") == (0, [])


def test_a_failed_installation_is_told_and_tried_again(machine: Machine) -> None:
    machine.has_java().has_python(pip="for n in {1..150}; do echo line $n; done; echo no such package >&2; exit 1")
    code, told = machine.run()
    assert code == 1
    log = machine.state / "logs" / "setup.log"
    why = f"error: the packages were not installed, pip says why above and in {log}; run the same command again"
    assert told[-2:] == ["no such package", why]
    assert len(told) < 20
    assert "line 1\n" in log.read_text()
    machine.has_python(pip="true")
    assert machine.run()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_shell_alone_ends_pip_and_the_next_run_goes_on(machine: Machine, number: int) -> None:
    machine.has_java().has_python(pip='echo "pid $$" >>"$TIDEMARK_STATE/../calls"; sleep 600')
    process = machine.start()
    wait_for(lambda: "pid " in machine.calls.read_text(), 10, lambda: AssertionError("pip was not started"))
    process.send_signal(number)
    _, told = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert told.splitlines()[-1] == "interrupted; run the same command again to go on"
    pip = int(machine.calls.read_text().rpartition("pid ")[2])
    wait_for(
        lambda: not any(in_group(each, pip) for each in psutil.process_iter()), 5, lambda: AssertionError("pip runs on")
    )
    machine.has_python(pip="true")
    assert machine.run()[0] == 0


def test_a_broken_environment_is_made_anew(machine: Machine) -> None:
    machine.has_java().has_python().run()
    (machine.state / "venv" / "bin" / "python").unlink()
    assert machine.run()[0] == 0
    assert machine.pip_calls() == 4


def test_a_folder_with_other_things_in_it_is_not_taken_for_the_state(machine: Machine) -> None:
    machine.state.mkdir()
    (machine.state / "letters.txt").touch()
    code, (line,) = machine.has_java().has_python().run()
    assert code == 1
    assert "which holds other files" in line


def test_no_home_is_needed_but_for_a_state_folder_in_it(machine: Machine) -> None:
    machine.has_java().has_python()
    assert machine.run(home=None)[0] == 0
    where = "echo $TIDEMARK_STATE >&2"
    assert machine.run(where, home="/home/ann", state="~/state") == (0, ["/home/ann/state"])
    assert machine.run(where, home=None, state="/a/~b") == (0, ["/a/~b"])
    code, (line,) = machine.run(home=None, state="~/state")
    assert (code, line) == (
        1,
        "error: TIDEMARK_STATE is ~/state, and HOME is not set; write the whole path, or set HOME",
    )


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ("", "/C.UTF-8"),
        ("LANG=C", "/C.UTF-8"),
        ("LC_ALL=POSIX", "C.UTF-8/"),
        ("LC_ALL=C.UTF-8", "C.UTF-8/"),
        ("LC_ALL=xx_XX.UTF-8", "C.UTF-8/"),
        ("LANG=xx_XX.UTF-8", "/C.UTF-8"),
    ],
)
def test_a_locale_without_names_beyond_ascii_is_replaced(machine: Machine, locale: str, expected: str) -> None:
    inner = f'set -eu; source {ROOT}/local/bootstrap.sh; echo "${{LC_ALL:-}}/${{LC_CTYPE:-}}"'
    words = ["env", "-i", f"PATH={machine.bin}", *locale.split(), shutil.which("bash") or "bash", "-c", inner]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ("", "/"),
        ("PYTHONDONTWRITEBYTECODE=1", "/STATE/bytecode"),
        ("PYTHONDONTWRITEBYTECODE=1 PYTHONPYCACHEPREFIX=/own", "//own"),
        ("PYTHONPYCACHEPREFIX=/own", "//own"),
    ],
)
def test_modules_are_compiled_once_be_it_in_the_state_folder_alone(
    machine: Machine, variables: str, expected: str
) -> None:
    inner = f"set -euo pipefail; source {ROOT}/local/bootstrap.sh; tidemark_environment; "
    inner += 'echo "${PYTHONDONTWRITEBYTECODE:-}/${PYTHONPYCACHEPREFIX:-}"'
    bash, own = shutil.which("bash") or "bash", [f"PATH={machine.bin}", f"TIDEMARK_STATE={machine.state}"]
    done = subprocess.run(["env", "-i", *own, *variables.split(), bash, "-c", inner], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, expected.replace("STATE", str(machine.state)))


@pytest.mark.parametrize("command", ["doctor", "demo"])
def test_the_command_itself_tells_what_is_missing(machine: Machine, command: str) -> None:
    code, told = machine.run(f"{ROOT}/local/tidemark {command}")
    assert code == 1
    assert any("openjdk-17-jre-headless" in line for line in told)


def test_a_state_folder_whose_mode_cannot_be_changed_serves_as_it_is(machine: Machine) -> None:
    machine.has_java().has_python()
    assert machine.run()[0] == 0
    (machine.bin / "chmod").unlink()
    (machine.bin / "chmod").write_text("#!/bin/bash\necho 'Read-only file system' >&2; exit 1\n")
    (machine.bin / "chmod").chmod(0o755)
    assert machine.run() == (0, [])


@pytest.mark.parametrize(("state", "why"), [("FOLDER/file", "File exists"), ("FOLDER/file/x", "Not a directory")])
def test_a_state_folder_that_cannot_be_made_is_one_line(machine: Machine, state: str, why: str) -> None:
    folder = machine.bin.parent
    (folder / "file").touch()
    path = state.replace("FOLDER", str(folder))
    code, (line,) = machine.has_java().has_python().run(state=path)
    assert code == 1
    assert line.startswith(f"error: STATE_NOT_WRITABLE: the state folder {path} cannot be written: {why}; let it be")


def test_a_state_folder_that_takes_no_file_is_one_line(machine: Machine) -> None:
    (machine.state / ".tidemark-state").mkdir(parents=True)  # nobody, not even root, can write a file of that name
    code, (line,) = machine.has_java().has_python().run()
    assert code == 1
    assert line.startswith(f"error: STATE_NOT_WRITABLE: the state folder {machine.state} cannot be written: ")


def test_what_fails_on_a_full_disk_says_that(machine: Machine) -> None:
    (machine.bin / "df").write_text("#!/bin/bash\necho; echo /dev/x 100 100 0 100% /\n")
    (machine.bin / "df").chmod(0o755)
    (machine.bin / "awk").symlink_to(shutil.which("awk") or "awk")
    code, told = machine.has_java().has_python(pip="exit 1").run()
    assert code == 1
    assert "STATE_NOT_WRITABLE" in told[-1] and "No space left on device" in told[-1]


def test_descriptors_that_are_closed_are_not_given_to_files(machine: Machine) -> None:
    inner = f"set -euo pipefail; source {ROOT}/local/bootstrap.sh; readlink /proc/$$/fd/{{0,1,2}} >&8"
    bash, own = shutil.which("bash") or "bash", {"PATH": str(machine.bin), "TIDEMARK_STATE": str(machine.state)}
    command = [bash, "-c", f"exec 8>&1; exec {bash} -c '{inner}' <&- >&- 2>&-"]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["/dev/null"] * 3


def test_an_interrupt_while_python_starts_is_taken_when_modules_are_loaded_and_shows_no_traceback() -> None:
    module = "import os; os.kill(os.getpid(), 2); from conf.errors import exit_on_error; exit_on_error(lambda: 0)"
    inner = f'source {ROOT}/local/bootstrap.sh; export PYTHONPATH={ROOT}; tidemark_become "$@"'
    command = ["bash", "-c", inner, "-", sys.executable, "-c", module]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_an_env_that_cannot_hold_interrupts_back_is_done_without(machine: Machine) -> None:
    (machine.bin / "env").unlink()
    (machine.bin / "env").write_text("#!/bin/bash\nexit 125\n")
    (machine.bin / "env").chmod(0o755)
    assert machine.run("tidemark_become bash -c 'echo became >&2'") == (0, ["became"])
