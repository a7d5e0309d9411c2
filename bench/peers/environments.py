"""Makes each peer's own environment in the state folder, from the locks beside this module: packages by hash into a
virtual environment, jars by checksum into a folder, Java compiled against them. Nothing of it is the product's.
"""

import hashlib
import os
import shutil
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

from conf import state_dir
from conf.errors import TidemarkError
from local import jars
from local.jars import Jar, sha256
from local.processes import exclusive, java

HERE = Path(__file__).resolve().parent
LOCKS = HERE / "locks"
PROGRAMS = HERE / "programs"
# Environments of Java, and what is compiled against their jars; the others are Python's.
JAVA = {"flink": "FlinkSql.java", "kafka-streams": "KafkaStreamsCounts.java"}


class UnavailableError(Exception):
    """A peer that cannot be had here; the message says why."""


def folder(name: str) -> Path:
    """Return where what the peer `name` needs lies."""
    return state_dir() / "peers" / name


def python(name: str) -> Path:
    """Return the Python of a virtual environment with the packages of locks/NAME.txt, which is made where it is not.

    Raises:
        UnavailableError: with what pip says last.
    """
    lock, home = LOCKS / f"{name}.txt", folder(name)
    stamp, interpreter = home / "venv" / "stamp", home / "venv" / "bin" / "python"
    wanted = sha256(lock)
    with exclusive(home / "lock"):
        if not (interpreter.exists() and stamp.exists() and stamp.read_text() == wanted):
            shutil.rmtree(home / "venv", ignore_errors=True)
            venv.create(home / "venv", with_pip=True)
            _run([interpreter, "-I", "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", lock])
            stamp.write_text(wanted)
    return interpreter


def class_path(name: str) -> str:
    """Return a class path with the jars of locks/NAME.jars, and the program of JAVA compiled against them.

    Raises:
        UnavailableError: with what Ivy or javac says, or the jar that is another than was locked.
    """
    home = folder(name)
    with exclusive(home / "lock"):
        jars = _fetch(read_lock(LOCKS / f"{name}.jars"), home / "jars")
        return f"{home / 'jars'}/*:{_compiled(PROGRAMS / JAVA[name], home / 'classes', jars)}"


def read_lock(lock: Path) -> list[Jar]:
    """Return the jars that a lock lists."""
    lines = (line.split() for line in lock.read_text().splitlines() if not line.startswith("#"))
    return [Jar(*fields) for fields in lines]


def prepared_versions(name: str, *packages: str) -> str:
    """Make the environment where it is missing, and say which versions of packages, or of artifacts, its lock has.

    Raises:
        UnavailableError: where it cannot be made.
    """
    if name in JAVA:
        class_path(name)
        coordinates = [jar.coordinate.split(":") for jar in read_lock(LOCKS / f"{name}.jars")]
        versions = {artifact: version for _, artifact, version, *_ in coordinates}
    else:
        python(name)
        lines = (LOCKS / f"{name}.txt").read_text().splitlines()
        pins = (line.split()[0].partition("==") for line in lines if "==" in line)
        versions = {package: version for package, _, version in pins}
    return ", ".join(f"{package} {versions[package]}" for package in packages)


def _fetch(locked: Sequence[Jar], target: Path) -> list[Path]:
    target.mkdir(parents=True, exist_ok=True)
    missing = [jar for jar in locked if not (target / jar.file).is_file() or sha256(target / jar.file) != jar.sha256]
    if missing:
        staging = target.parent / "fetched"
        shutil.rmtree(staging, ignore_errors=True)
        try:
            # The product's own downloads use the same cache of Ivy's.
            with exclusive(state_dir() / "jars" / "lock"):
                jars.retrieve([jar.coordinate for jar in missing], f"{staging}/{jars.FILE}")
                jars.clear_cache()
        except TidemarkError as error:
            raise UnavailableError(str(error)) from error
        for jar in missing:
            fetched = staging / jar.file
            if not fetched.is_file() or sha256(fetched) != jar.sha256:
                raise UnavailableError(f"{jar.file} is missing, or is another than was locked")
            fetched.replace(target / jar.file)
    for stray in {*target.iterdir()} - {target / jar.file for jar in locked}:
        stray.unlink()
    return [target / jar.file for jar in locked]


def _compiled(source: Path, target: Path, jars: Sequence[Path]) -> Path:
    compiler = Path(java()).with_name("javac")
    if not compiler.exists():
        raise UnavailableError("there is no javac beside java (Debian: apt-get install openjdk-17-jdk-headless)")
    class_path = ":".join(map(str, jars))
    wanted = hashlib.sha256(f"{class_path} {source.read_text()}".encode()).hexdigest()
    stamp = target / "stamp"
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        _run([compiler, "-cp", class_path, "-d", target, source])
        stamp.write_text(wanted)
    return target


def _run(command: Sequence[str | Path]) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError((done.stderr or done.stdout).strip().splitlines()[-1])
