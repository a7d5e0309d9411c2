"""What the driver's JVM is started with, and that no archive of classes can do it harm."""

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyspark
import pytest

from conf.settings import load
from local import driver, jars, processes

SPARK_JARS = Path(pyspark.__file__).parent / "jars"
# A program among Spark's jars that says one line, and ends.
[PROGRAM] = SPARK_JARS.glob("ivy-*.jar")
ANSWER = "Apache Ivy"


def java(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [processes.java(), *options, "-cp", str(PROGRAM), "org.apache.ivy.Main", "-version"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def options(more: str = "") -> list[str]:
    """The driver's, as Java gets them."""
    settings = load(overrides=[f"spark.driver_java_options=-XX:+UseParallelGC {more}"])
    return shlex.split(driver.java_options(settings, Path("driver.log")))


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An archive of the program's classes."""
    path = tmp_path_factory.mktemp("dumped") / "classes.jsa"
    assert java("-XX:+UseParallelGC", f"-XX:ArchiveClassesAtExit={path}", "-Xlog:cds*=off").returncode == 0
    return path.read_bytes()


@pytest.fixture
def keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Path]:
    """Keeps an archive where the next start looks for it."""
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path / "my state"))
    monkeypatch.setattr(driver, "_files", lambda: iter([PROGRAM]))

    def keep(content: bytes) -> Path:
        path = driver.archive_folder() / f"{driver.archive_prefix()}-{len(content)}.jsa"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return keep


def uses_archive(ran: "subprocess.CompletedProcess[str]") -> bool:
    return "shared objects file (top)" in ran.stdout


def test_an_archive_that_fits_is_used(keep: Callable[[bytes], Path], dumped: bytes) -> None:
    keep(dumped)
    ran = java(*options("-Xlog:class+load"))
    assert ran.returncode == 0 and ANSWER in ran.stdout
    assert uses_archive(ran)


@pytest.mark.parametrize(
    "change",
    [
        lambda archive: b"",
        lambda archive: b"no archive at all",
        lambda archive: archive[: len(archive) // 2],
        lambda archive: archive[: len(archive) // 2] + b"XXXX" + archive[len(archive) // 2 + 4 :],
        lambda archive: b"XXXX" + archive[4:],
        lambda archive: archive[:64] + b"\xff\xff\xff\xff" + archive[68:],
    ],
    ids=["empty", "other", "half", "damaged", "no header", "damaged header"],
)
def test_one_that_is_damaged_is_left_out_without_a_word(
    keep: Callable[[bytes], Path], dumped: bytes, change: Callable[[bytes], bytes]
) -> None:
    # Under the name of the whole: damage comes after the making.
    keep(dumped).write_bytes(change(dumped))
    ran = java(*options())
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(ANSWER) and len(ran.stdout.splitlines()) == 1
    assert not uses_archive(java(*options("-Xlog:class+load")))


@pytest.mark.parametrize(
    "more", ["-XX:-UseCompressedOops", "-XX:MaxRAMPercentage=90", "-XX:+UseG1GC -XX:-UseParallelGC", "-Xint"]
)
def test_other_options_of_java_do_no_harm(keep: Callable[[bytes], Path], dumped: bytes, more: str) -> None:
    keep(dumped)
    ran = java(*options(more))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(ANSWER) and len(ran.stdout.splitlines()) == 1


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A Java and two jars, one of Spark's and one of ours."""
    home, own = tmp_path / "java", tmp_path / "state" / "jars" / "spark" / "own.jar"
    found = [home / "bin" / "java", home / "release", home / "lib" / "server" / "libjvm.so"]
    found += [tmp_path / "spark" / "jars" / "spark.jar", own]
    for path in found:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(jars, "read_lock", lambda jar_set: [jars.Jar(jar_set, "g:own:1", "own.jar", "")])
    return found[1:]


def test_another_java_or_another_jar_asks_for_another_archive(files: list[Path]) -> None:
    named = [driver.archive_prefix()]
    for path in files:
        path.write_text("another")
        named.append(driver.archive_prefix())
        os.utime(path, (1, 1))
        named.append(driver.archive_prefix())
    (files[-2].parent / "one-more.jar").touch()
    named.append(driver.archive_prefix())
    assert len(set(named)) == len(named)
    assert driver.archive_prefix() == named[-1]


def test_sparks_jars_stand_before_ours(files: list[Path]) -> None:
    assert driver.class_path().split(":") == [f"{files[-2].parent}/*", str(files[-1])]
