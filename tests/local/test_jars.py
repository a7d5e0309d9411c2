"""The jar folder is exactly what the lock says, or the difference is named. The repository is a folder: no network."""

import hashlib
import shutil
from dataclasses import astuple
from pathlib import Path

import pytest

from conf import state_dir
from conf.errors import TidemarkError
from local import jars
from local.jars import Jar

SETTINGS = """<ivysettings>
  <settings defaultResolver="folder"/>
  <resolvers><ibiblio name="folder" m2compatible="true" usepoms="false" useMavenMetadata="false" checksums=""
    root="{root}"/></resolvers>
</ivysettings>
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Maven repository of the first three locked jars, which the lock is cut down to; the state folder is empty."""
    locked, source = jars.read_lock("broker")[:3], jars.folder("broker")
    lock = tmp_path / "jars.lock"
    lock.write_text("".join(f"{jar.jar_set} {jar.coordinate} {jar.file} {jar.sha256}\n" for jar in locked))
    for jar in locked:
        target = in_repository(tmp_path / "repository", jar)
        target.parent.mkdir(parents=True)
        shutil.copy(source / jar.file, target)
    settings = tmp_path / "ivysettings.xml"
    settings.write_text(SETTINGS.format(root=(tmp_path / "repository").as_uri() + "/"))
    monkeypatch.setenv("TIDEMARK_IVY_SETTINGS", str(settings))
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(jars, "LOCK", lock)
    return tmp_path / "repository"


def in_repository(repository: Path, jar: Jar) -> Path:
    group, artifact, version = jar.coordinate.split(":")
    return repository.joinpath(*group.split("."), artifact, version, jar.file)


def folder_names() -> set[str]:
    return {path.name for path in jars.folder("broker").iterdir()}


def test_an_empty_folder_is_filled_from_the_users_repository(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jars.fetch("broker")
    assert folder_names() == {jar.file for jar in jars.read_lock("broker")}
    assert jars.problems("broker") == {}
    assert "jars for broker: 3 of 3 downloaded" in capsys.readouterr().err


def test_an_archive_comes_by_its_classifier_and_extension(repository: Path) -> None:
    content = b"an archive"
    archive = Jar("registry", "org.a:app:1.0:all:tar.gz", "app-1.0-all.tar.gz", hashlib.sha256(content).hexdigest())
    target = repository / "org" / "a" / "app" / "1.0" / archive.file
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    jars.LOCK.write_text(" ".join(astuple(archive)) + "\n")
    jars.fetch("registry")
    assert (jars.folder("registry") / archive.file).read_bytes() == content


def test_what_is_there_is_not_fetched_again(repository: Path) -> None:
    jars.fetch("broker")
    shutil.rmtree(repository)
    jars.fetch("broker")
    assert jars.problems("broker") == {}


def test_a_changed_jar_is_named_and_fetched_anew_alone(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jars.fetch("broker")
    victim = jars.read_lock("broker")[1]
    (jars.folder("broker") / victim.file).write_bytes(b"changed")
    capsys.readouterr()
    jars.fetch("broker")
    told = capsys.readouterr().err
    assert f"jars: {victim.file} has sha256 " in told
    assert f"conf/jars.lock says {victim.sha256}" in told
    assert "1 of 1 downloaded" in told
    assert jars.problems("broker") == {}


def test_a_jar_that_the_repository_changed_is_refused_and_not_kept(repository: Path) -> None:
    victim = jars.read_lock("broker")[0]
    in_repository(repository, victim).write_bytes(b"changed")
    actual = jars.sha256(in_repository(repository, victim))
    with pytest.raises(TidemarkError, match=f"JAR_CHECKSUM: {victim.file}: sha256 is {actual}, .*{victim.sha256}"):
        jars.fetch("broker")
    assert folder_names() == {jar.file for jar in jars.read_lock("broker")[1:]}


def test_once_the_repository_is_mended_the_next_run_succeeds(repository: Path) -> None:
    victim = jars.read_lock("broker")[0]
    original = in_repository(repository, victim).read_bytes()
    in_repository(repository, victim).write_bytes(b"changed")
    with pytest.raises(TidemarkError):
        jars.fetch("broker")
    in_repository(repository, victim).write_bytes(original)
    jars.fetch("broker")
    assert jars.problems("broker") == {}


def test_a_jar_that_the_repository_lacks_is_named_with_ivys_log(repository: Path) -> None:
    victim = jars.read_lock("broker")[0]
    in_repository(repository, victim).unlink()
    artifact = victim.coordinate.split(":")[1]
    with pytest.raises(TidemarkError, match=rf"JAR_DOWNLOAD: .*{artifact}.*{state_dir()}/logs/ivy\.log"):
        jars.fetch("broker")


def test_a_jar_that_is_no_longer_locked_is_removed(repository: Path) -> None:
    jars.fetch("broker")
    (jars.folder("broker") / "kafka-clients-0.1.jar").write_bytes(b"old")
    jars.fetch("broker")
    assert folder_names() == {jar.file for jar in jars.read_lock("broker")}


def test_the_class_path_is_not_given_while_a_jar_is_missing(repository: Path) -> None:
    with pytest.raises(TidemarkError, match=r"NO_JARS.*tidemark setup"):
        jars.class_path("broker")


def test_a_lock_without_the_set_is_an_error(repository: Path) -> None:
    with pytest.raises(TidemarkError, match=r"BAD_JAR_LOCK.*no jars for `spark`"):
        jars.read_lock("spark")


def test_settings_of_ivy_that_do_not_exist_are_an_error(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_IVY_SETTINGS", "/no/such/file")
    with pytest.raises(TidemarkError, match="TIDEMARK_IVY_SETTINGS names no file: /no/such/file"):
        jars.fetch("broker")
