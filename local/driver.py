"""Starts the JVM of a driver on this machine: its class path, its options, and the archive of its classes.

Parsing and verifying some 20,000 classes is most of what a start costs. Java keeps them in a file, made once by
running a small job, and maps it into memory where Java and class path are those that it was made with.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

from conf import ROOT, state_dir
from conf.errors import TidemarkError
from conf.settings import Settings, load
from local import jars, processes
from local.processes import exclusive

JOB = "flights.hourly_delays"
DAYS = ("--from", "2013-01-01", "--to", "2013-01-08")
MAKING = "making-"
# Only a driver that runs alone uses it: executors elsewhere get our packages too late.
WORKER_DAEMON = "spark.python.daemon.module=jobs.worker_daemon"
# These override a checkout's own settings of a cluster, which do not hold for the broker that is started here.
SETTINGS = {
    "kafka.security_protocol": "PLAINTEXT",
    "kafka.ssl_ca_location": "",
    "kafka.ssl_certificate_location": "",
    "kafka.ssl_key_location": "",
    "registry.url": "",
    "spark.master": "local[2]",
}


def is_local(master: str) -> bool:
    """Return whether Spark runs in the driver's own JVM alone, as `master` says."""
    return master == "local" or master.startswith("local[")


def class_path(jar_sets: Sequence[str] = ("spark",)) -> str:
    """Return Spark's jars, then ours, as --driver-class-path takes them;
    the archive of classes fits whatever follows `spark`.

    If both have a class, Spark's is used, as it is with --jars.

    Raises:
        TidemarkError: NO_JARS, where one of ours is missing; BAD_JAR_LOCK.
    """
    return ":".join([f"{_spark_jars()}/*", *map(jars.class_path, jar_sets)])


def log_file(settings: Settings, name: str) -> Path:
    """Return where the JVM of the application `name` logs."""
    return Path(settings.paths.logs) / f"{name}.{settings.logging.suffix}"


def java_options(settings: Settings, log: Path, job: str = "tidemark") -> str:
    """Return the options of the driver's JVM, those of the settings last.

    They say where it logs, and where it keeps what it needs for a while (TMPDIR: sockets and shuffle files too); they
    make stacks deep enough for the regular expressions that Spark puts long failure messages through (with the default
    of 1 MB its stream threads died of them), and name the archive of classes, where there is one.
    """
    folder = os.environ.get("TMPDIR", "/tmp")
    # In quotes: Spark takes these words apart at blanks, which a path may have.
    configuration = (
        ROOT / "conf" / ("log4j2.properties" if settings.logging.format == "plain" else "log4j2-ecs.properties")
    )
    named = {"log4j2.configurationFile": configuration, "tidemark.log": log, "tidemark.job": job}
    words = [f"-D{name}={_quoted(str(value))}" for name, value in {**named, "java.io.tmpdir": folder}.items()]
    options = " ".join(["-Xss16m", *words])
    return f"{options} {_archive_options()}{settings.spark.driver_java_options}"


def _quoted(text: str) -> str:
    """Return a text as Spark reads it as one word, whatever quotes and backslashes it has."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def class_archive() -> Path | None:
    """Return the archive for this Java and these jars, where it is there and as long as its name says."""
    candidates = archive_folder().glob(f"{archive_prefix()}-*.jsa")
    return next((path for path in candidates if path.stem.endswith(f"-{path.stat().st_size}")), None)


def archive_folder() -> Path:
    """Return where archives lie."""
    return state_dir() / "classes"


def archive_prefix() -> str:
    """Return the beginning of the name of an archive for this Java and these jars: a digest of path, size and time of
    each of their files.
    """
    digest = hashlib.sha256()
    for path in _files():
        stat = path.stat() if path.is_file() else None
        digest.update(f"{path} {stat and (stat.st_size, stat.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:16]


def make_archive() -> str:
    """Make the archive of classes where there is none yet; returns a line that says what was done, or why it was not.

    Starts are slower without it, and nothing else: what keeps it from being made is no failure.
    """
    began = time.monotonic()
    try:
        with exclusive(archive_folder() / "lock"):
            path, done = class_archive(), "are archived"
            if not path:
                path, done = _make(archive_folder()), f"archived in {time.monotonic() - began:.0f} s"
    except (OSError, TidemarkError, subprocess.CalledProcessError) as exc:
        return f"Spark's classes are not archived, jobs start some seconds slower: {exc}; log: {_log()}"
    return f"Spark's classes {done}: {path.stat().st_size / 1e6:.0f} MB in {path.parent}"


def _make(folder: Path) -> Path:
    folder.chmod(0o700)
    _remove_stale(folder)
    # The archive appears whole and under its name at once.
    with TemporaryDirectory(dir=folder, prefix=MAKING) as scratch:
        archive = _run_job(Path(scratch))
        archive.chmod(0o600)
        return archive.replace(folder / f"{archive_prefix()}-{archive.stat().st_size}.jsa")


def _remove_stale(folder: Path) -> None:
    """Remove archives that fit no more, and what an interrupted command has left."""
    for path in folder.iterdir():
        if path.name.startswith(MAKING):
            shutil.rmtree(path)
        elif path.suffix == ".jsa":
            path.unlink()


def _run_job(folder: Path) -> Path:
    """Run JOB over DAYS of flights, as a user does, but in a broker, tables and checkpoints of its own.

    Returns:
        the archive in `folder` of the classes that its driver has loaded; Java writes it when it ends.
    """
    from local.broker import Cluster  # here: no other start of a driver needs its packages

    archive = folder / "classes.jsa"
    # In a run this short the second compiler would make more work than it saves.
    dump = f"-XX:ArchiveClassesAtExit={_quoted(str(archive))} -Xlog:cds*=off -XX:TieredStopAtLevel=1"
    java = f"{load('local').spark.driver_java_options} {dump}"
    with Cluster(folder / "broker", folder / "logs", attached=True) as broker, _log().open("w") as log:
        servers = {"kafka.bootstrap_servers": broker.bootstrap_servers}
        paths = {f"paths.{name}": str(folder / name) for name in ("tables", "checkpoints", "logs")}
        for words in (
            ("local.topics", "apply"),
            ("producers.cli", "flights", *DAYS),
            ("local.submit", JOB, "--until-caught-up", "--set", f"spark.driver_java_options={java}"),
        ):
            _run(words, SETTINGS | servers | paths, log)
    return archive


def _run(words: Sequence[str], options: Mapping[str, str], log: TextIO) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    environment["TIDEMARK_STATE"] = str(state_dir())
    sets = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-P", "-m", *words, *sets]
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)


def _log() -> Path:
    path = state_dir() / "logs" / "class-archive.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _archive_options() -> str:
    # Java starts without an archive that does not fit or whose checksums are wrong, and need not tell the user. But one
    # that was cut short it would read past its end, and die: hence the length in the name.
    use = "-XX:+VerifySharedSpaces -Xshare:auto -Xlog:cds*=off"
    return f"-XX:SharedArchiveFile={_quoted(str(path))} {use} " if (path := class_archive()) else ""


def _files() -> Iterator[Path]:
    home = Path(processes.java()).resolve().parent.parent
    yield from (home / "release", home / "lib" / "modules", home / "lib" / "server" / "libjvm.so")
    yield from sorted(_spark_jars().glob("*.jar"))
    yield from (jars.folder("spark") / jar.file for jar in jars.read_lock("spark"))


def _spark_jars() -> Path:
    spec = find_spec("pyspark")
    home = os.environ.get("SPARK_HOME") or (spec and spec.origin and Path(spec.origin).parent) or ""
    return Path(home) / "jars"
