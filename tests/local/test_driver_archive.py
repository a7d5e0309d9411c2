"""The archive of classes is made once, whole, and only for those who may read it."""

import threading
from pathlib import Path

import pytest

from local import driver, jars


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder with the jars of this one."""
    (tmp_path / "jars").symlink_to(jars.folder("spark").parent)
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path))
    return tmp_path


def left(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "classes").iterdir() if path.name != "lock")


def test_two_commands_at_once_make_one_and_remove_what_fits_no_more(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Path] = []

    def run(folder: Path) -> Path:
        runs.append(folder)
        (folder / "classes.jsa").write_bytes(b"1234")
        return folder / "classes.jsa"

    monkeypatch.setattr(driver, "_run_job", run)
    (state / "classes" / "making-cut-short").mkdir(parents=True)
    (state / "classes" / "of-other-jars-12.jsa").touch()
    (state / "classes" / f"{driver.archive_prefix()}-99.jsa").write_bytes(b"cut short")

    told: list[str] = []
    both = [threading.Thread(target=lambda: told.append(driver.make_archive())) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()

    assert len(runs) == 1
    assert left(state) == [f"{driver.archive_prefix()}-4.jsa"]
    found, made = sorted(told, key=len)
    assert made.startswith("Spark's classes archived in 0 s: ")
    assert found.startswith("Spark's classes are archived: ")


def test_what_keeps_it_from_being_made_is_told_and_no_failure(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert driver.make_archive().startswith("Spark's classes are not archived, jobs start some seconds slower: NO_JAVA")


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_of_its_own_leaves_the_archive_and_nothing_else(state: Path) -> None:
    told = driver.make_archive()

    assert told.startswith("Spark's classes archived in "), told
    [name] = left(state)
    archive = state / "classes" / name
    assert driver.class_archive() == archive
    assert archive.stat().st_mode & 0o777 == 0o600 and archive.parent.stat().st_mode & 0o777 == 0o700
    assert archive.stat().st_size > 50e6
