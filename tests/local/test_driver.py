"""What the driver's JVM is started with, for tables on s3a:// too; its archive of classes does no harm."""

import os
import re
import shlex
import subprocess
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path

import pyspark
import pytest

from conf import ROOT
from conf.errors import TidemarkError
from conf.settings import Settings, load
from local import driver, jars, processes, submit

SPARK_JARS = Path(pyspark.__file__).parent / "jars"
# A program among Spark's jars that says one line, and ends.
[PROGRAM] = SPARK_JARS.glob("ivy-*.jar")
ANSWER = "Apache Ivy"
STORE = {"AWS_ENDPOINT_URL": "https://store.example", "AWS_REGION": "eu-west-1", "AWS_SECRET_ACCESS_KEY": "hush"}


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
    monkeypatch.setattr(driver, "_archived_files", lambda: iter([PROGRAM]))

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

    def run(folder: Path, log: Path) -> Path:
        runs.append(folder)
        (folder / "classes.jsa").write_bytes(b"1234")
        return folder / "classes.jsa"

    monkeypatch.setattr(driver, "_run_archived_job", run)
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


def settings(**roots: str) -> Settings:
    return load("local", [f"paths.{name}={root}" for name, root in roots.items()])


def test_local_folders_need_neither_jars_nor_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "fetch", lambda jar_set: pytest.fail(f"{jar_set} is fetched"))
    assert driver.jar_sets(settings()) == ("spark",)
    assert driver.object_store_options(settings(), STORE) == {}


@pytest.mark.parametrize("root", ["tables", "checkpoints"])
def test_a_path_in_an_object_store_brings_the_jars_behind_sparks(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(jars, "problems", lambda jar_set: {jar_set: "is missing"})
    monkeypatch.setattr(jars, "fetch", fetched.append)
    assert driver.jar_sets(settings(**{root: "s3a://bucket/there"})) == ("spark", "s3")
    assert fetched == ["s3"]


def test_spark_is_told_where_the_store_is_and_not_the_keys() -> None:
    options = driver.object_store_options(settings(tables="s3a://bucket/t", checkpoints="s3a://bucket/c"), STORE)
    assert options == {
        "spark.hadoop.fs.s3a.endpoint": "https://store.example",
        "spark.hadoop.fs.s3a.endpoint.region": "eu-west-1",
        "spark.hadoop.fs.s3a.path.style.access": "true",
        driver.CHECKPOINT_MANAGER: driver.ABORTABLE,
    }


def test_spark_submit_gets_jars_and_place_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "fetch", lambda jar_set: None)
    for name, value in STORE.items():
        monkeypatch.setenv(name, value)
    there = ["paths.tables=s3a://bucket/t", f"paths.logs={tmp_path}", "spark.master=spark://h:1"]
    words = submit.command("ingest", load("local", there), [])
    assert "/hadoop-aws-3.5.0.jar" in words[words.index("--jars") + 1]
    assert "spark.hadoop.fs.s3a.endpoint=https://store.example" in words
    assert "hush" not in " ".join(words)


def test_a_store_of_amazons_needs_no_address_and_checkpoints_on_a_disk_keep_sparks_manager() -> None:
    assert driver.object_store_options(settings(tables="s3a://bucket/t"), {"AWS_DEFAULT_REGION": "eu-west-1"}) == {
        "spark.hadoop.fs.s3a.endpoint.region": "eu-west-1"
    }


def test_an_address_without_tls_is_refused_where_it_is_not_allowed() -> None:
    plain = STORE | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}
    with pytest.raises(TidemarkError, match=r"BAD_SETTING: AWS_ENDPOINT_URL is http://127.0.0.1:9000.*AWS_ALLOW_HTTP"):
        driver.object_store_options(settings(tables="s3a://bucket/t"), plain)
    allowed = driver.object_store_options(settings(tables="s3a://bucket/t"), plain | {"AWS_ALLOW_HTTP": "true"})
    assert allowed["spark.hadoop.fs.s3a.endpoint"] == "http://127.0.0.1:9000"


def test_an_address_with_a_login_is_refused_and_not_shown() -> None:
    environ = STORE | {"AWS_ENDPOINT_URL": "https://u:hunter2@127.0.0.1:9000"}
    with pytest.raises(TidemarkError, match="BAD_SETTING: AWS_ENDPOINT_URL must hold no user and password") as refused:
        driver.object_store_options(settings(tables="s3a://bucket/t"), environ)
    assert "hunter2" not in str(refused.value)


def test_the_example_of_a_cluster_holds_once_its_lines_are_no_comments() -> None:
    commented = re.compile(r"^# (?=\[paths]|tables =|checkpoints =)", re.MULTILINE)
    text = commented.sub("", (ROOT / "conf" / "cluster.toml").read_text())
    roots = tomllib.loads(text)["paths"]
    given = load("cluster", [f"paths.{name}={root}" for name, root in roots.items()])
    assert set(roots) == {"tables", "checkpoints"}
    assert driver.uses_object_store(given) and driver.CHECKPOINT_MANAGER in driver.object_store_options(given, STORE)
