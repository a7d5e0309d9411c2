"""Temporary folders of jobs: whose they are, and when they go."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf import ROOT
from local.clean import LONGEST, remove_dead, temporary_folder

# Becomes another program, as a job's launcher becomes a JVM, and says where it may write.
BECOME = """
import os
from local.clean import with_temporary_folder
with with_temporary_folder():
    os.execvp("bash", ["bash", "-c", 'echo "$TMPDIR"; read -r'])
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path))
    return tmp_path


def become() -> tuple["subprocess.Popen[str]", Path]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-P", "-c", BECOME], stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_stays_while_its_process_runs_and_goes_once_that_was_killed(state: Path) -> None:
    process, folder = become()
    (folder / "blockmgr").mkdir()
    try:
        assert folder.stat().st_mode & 0o777 == 0o700
        remove_dead()
        assert (folder / "blockmgr").is_dir()
    finally:
        process.kill()
        process.communicate()
    own = temporary_folder()
    assert not folder.exists()
    assert own.is_dir()


def test_a_path_too_long_for_sockets_is_short_by_a_link_that_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / ("d" * LONGEST)
    monkeypatch.setenv("TIDEMARK_STATE", str(state))
    process, folder = become()
    try:
        assert len(os.fsencode(folder)) <= LONGEST
        (folder / "rows").touch()
        (real,) = (state / "tmp").glob("job-*/rows")
        remove_dead()
        assert real.exists()
    finally:
        process.kill()
        process.communicate()
    remove_dead()
    assert not real.parent.exists()
    assert not folder.parent.exists()


def test_without_a_state_folder_there_is_nothing_to_remove(state: Path) -> None:
    state.rmdir()
    remove_dead()
    assert not state.exists()
