"""Each failing check is one line with its repair, and no JVM is started to find out."""

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local import doctor, jars
from local.doctor import Finding


@pytest.fixture(autouse=True)
def any_size_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_GB", 0.0)
    monkeypatch.setattr(doctor, "MEMORY_GB", 0.0)


def only(check: Callable[[], Iterator[Finding]]) -> Finding:
    (finding,) = check()
    return finding


def fake_java(folder: Path, version: str, modules: str) -> Path:
    """A JAVA_HOME with a `release` file and a java that must not be started."""
    (folder / "bin").mkdir(parents=True)
    java = folder / "bin" / "java"
    java.write_text("#!/bin/sh\necho started >&2; exit 1\n")
    java.chmod(0o755)
    (folder / "release").write_text(f'JAVA_VERSION="{version}"\nMODULES="{modules}"\n')
    return folder


def test_this_machine_has_what_the_tests_run_on() -> None:
    assert [finding for finding in doctor.findings() if finding.repair] == []


@pytest.mark.parametrize(
    ("version", "modules", "complaint"),
    [
        ("11.0.2", "java.base jdk.incubator.vector", "is Java 11, too old"),
        ("1.8.0_292", "java.base jdk.incubator.vector", "is Java 8, too old"),
        ("21.0.1", "java.base java.sql", "lacks the module jdk.incubator.vector"),
    ],
)
def test_a_java_that_cannot_run_spark_is_named_with_the_repair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, modules: str, complaint: str
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "java", version, modules)))
    finding = only(doctor.check_java)
    assert str(finding).startswith(f"FAIL  Java: JAVA_HOME is {tmp_path}/java, which {complaint}")
    assert "point JAVA_HOME to a Java 17 or newer" in finding.repair


def test_a_java_that_can_run_spark_is_known_without_starting_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = fake_java(tmp_path / "java", "17.0.9", "java.base jdk.incubator.vector")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert str(only(doctor.check_java)) == f"ok    Java 17 at {home}/bin/java"


def test_a_java_on_path_that_does_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fake_java(tmp_path / "java", "", "") / "release").unlink()
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/java/bin:/usr/bin:/bin")
    finding = only(doctor.check_java)
    assert finding.what == f"Java: {tmp_path}/java/bin/java does not run or does not tell its version"
    assert "openjdk-17-jre-headless" in finding.repair


def test_a_jar_with_another_checksum_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(jars.folder("spark"), tmp_path / "jars" / "spark")
    shutil.copytree(jars.folder("broker"), tmp_path / "jars" / "broker")
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path))
    victim = jars.read_lock("spark")[0]
    (tmp_path / "jars" / "spark" / victim.file).write_bytes(b"changed")
    spark, broker = doctor.check_jars()
    assert spark.what.startswith(f"jars for spark: {victim.file} has sha256 ")
    assert spark.repair == "local/tidemark setup"
    assert broker.repair == ""


def test_missing_packages_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path))
    assert only(doctor.check_packages).what == f"packages: no virtual environment in {tmp_path}"


def test_a_package_of_another_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path))
    metadata = tmp_path / "venv" / "lib" / "python3.11" / "site-packages" / "pyspark-3.5.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: pyspark\nVersion: 3.5.0\n")
    monkeypatch.setattr(doctor, "locked_packages", lambda: {"pyspark": "4.2.0"})
    finding = only(doctor.check_packages)
    assert finding.what == "packages: pyspark 3.5.0, locked 4.2.0"
    assert finding.repair.endswith("local/tidemark setup")


def test_jars_of_another_spark_than_pyspark_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "locked_packages", lambda: {"pyspark": "4.3.0", "delta-spark": "4.4.0"})
    finding = only(doctor.check_versions)
    assert "spark-sql-kafka-0-10_2.13 is 4.2.0, not 4.3.0" in finding.what
    assert "delta-spark_4.3_2.13 is missing, not 4.4.0" in finding.what


def test_a_port_that_another_program_holds_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        monkeypatch.setenv("TIDEMARK_BROKER__PORT", str(port))
        assert only(doctor.check_broker).what == f"broker: another program holds port {port}"
    assert only(doctor.check_broker).repair == ""


def test_a_setting_that_does_not_exist_is_a_failing_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_BROKER__PROT", "1")
    failing = [finding for finding in doctor.findings() if finding.repair]
    assert [finding.what.split(":")[0] for finding in failing] == ["UNKNOWN_SETTING"]


def test_too_little_disk_tells_how_much_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_GB", 1e9)
    finding = only(doctor.check_disk)
    assert "1000000000 GB are needed" in finding.what
    assert finding.repair.startswith("free 9999")


def test_too_little_memory_tells_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MEMORY_GB", 1e9)
    assert "TIDEMARK_SPARK__DRIVER_MEMORY" in only(doctor.check_memory).repair


def test_one_failing_line_makes_the_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.main([]) == 0
    monkeypatch.setattr(doctor, "DISK_GB", 1e9)
    assert doctor.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines].count("FAIL") == 1


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path))
    assert str(only(doctor.check_state)) == f"ok    state: {tmp_path} can be written"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path / "to" / "be" / "made"))
    assert not only(doctor.check_state).repair
    (tmp_path / "file").touch()
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path / "file"))
    finding = only(doctor.check_state)
    assert finding.what == f"STATE_NOT_WRITABLE: the state folder {tmp_path}/file cannot be written: Not a directory"
    assert "TIDEMARK_STATE" in finding.repair
