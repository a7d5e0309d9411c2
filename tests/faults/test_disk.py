"""The disk of the checkpoint is full: the query stops and says so, and goes on once there is room."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.conftest import SceneOf
from tests.faults.host import Driver

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SIZE = "2m"
FULL = "No space left on device"


class Disk:
    """A small disk, which can be filled to its last byte."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with suppress(OSError), self._ballast.open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))

    def free(self) -> None:
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A file system of its own at `folder`, in memory."""
    folder.mkdir(parents=True)
    try:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tidemark-faults", str(folder)]
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no command `mount`")
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def only_error(driver: Driver) -> str:
    """The one line with which a driver has stopped; it must have exited with 1."""
    assert driver.wait() == 1, driver.said[-3000:]
    [line] = [line for line in driver.said.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in driver.said
    return line


def test_a_commit_log_that_finds_the_disk_full_stops_the_query_by_name(scene: SceneOf) -> None:
    crime = scene(settings=["source.max_offsets_per_trigger=300"])
    crime.fill(900)
    with small_disk(crime.folder / "checkpoints") as disk:
        crime.arm("batch-before-commit-log", batch=1)
        driver = crime.start(alone=True)
        crime.held("batch-before-commit-log", driver)
        disk.fill()
        crime.release("batch-before-commit-log")
        line = only_error(driver)
        assert FULL in line, line
        assert not (crime.checkpoint / "commits" / "1").exists()
        disk.free()

        crime.finish()

        assert (crime.checkpoint / "commits" / "1").exists()
    verdict = crime.verdict()
    assert verdict.clean, verdict
    assert verdict.rows == 900


@pytest.mark.exhaustive
def test_an_offset_log_that_finds_the_disk_full_stops_the_query_by_name(scene: SceneOf) -> None:
    crime = scene()
    crime.fill(300)
    with small_disk(crime.folder / "checkpoints") as disk:
        crime.finish()
        crime.fill(300)
        disk.fill()
        line = only_error(crime.start(alone=True))
        assert FULL in line, line
        assert crime.verdict().lost == 300
        disk.free()

        crime.finish()

    verdict = crime.verdict()
    assert verdict.clean, verdict
    assert verdict.rows == 600
