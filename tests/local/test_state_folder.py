"""Temporary folders of jobs: whose they are, and when they go; and what is written whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf import ROOT
from local import cli
from local.state_folder import LINK, LONGEST, PREFIX, remove_dead, temporary_folder, write_whole, written_whole

# Becomes another program, as a job's launcher becomes a JVM, and says where it may write.
BECOME = """
import os
from local.state_folder import with_temporary_folder
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


@pytest.mark.parametrize("text", ["", "link", "SOMEWHERE/t"])
def test_a_link_file_that_is_damaged_or_leads_elsewhere_removes_nothing(
    state: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    somewhere = state / "somewhere"
    somewhere.mkdir()
    (somewhere / "letters.txt").touch()
    (somewhere / "t").symlink_to(state)
    monkeypatch.chdir(somewhere)
    dead = state / "tmp" / f"{PREFIX}dead"
    dead.mkdir(parents=True)
    (dead / LINK).write_text(text.replace("SOMEWHERE", str(somewhere)))
    remove_dead()
    assert not dead.exists()
    assert (somewhere / "letters.txt").exists() and (somewhere / "t").is_symlink()


def test_a_state_folder_of_links_in_a_circle_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path / "a"))
    assert cli.clean([]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_without_a_state_folder_there_is_nothing_to_remove(state: Path) -> None:
    state.rmdir()
    remove_dead()
    assert not state.exists()


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    write_whole(path, "old")
    with pytest.raises(OSError, match="No space left") as caught, written_whole(path) as partial:
        partial.write_text("ne")
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("kept", "old")]
    write_whole(path, "new")
    assert path.read_text() == "new"


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, written_whole(tmp_path / "kept"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "none" / "kept", "x")
    assert caught.value.filename == str(tmp_path / "none" / "kept")
