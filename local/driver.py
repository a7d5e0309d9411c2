"""Starts the JVM of a driver on this machine: its class path, its options, and the archive of its classes.

Tables and checkpoints on `s3a://` add the jars of Hadoop's S3A, and where the store is. That comes from the variables
that AWS's own tools and deltalake read, so that programs with and without a JVM go to one store: AWS_ENDPOINT_URL,
AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. Spark hands the keys from the environment to S3A by itself: they
stand on no command line.

Parsing and verifying some 20,000 classes is most of what a start costs. Java keeps them in an archive, made once by
running a small job, and maps it into memory where Java and class path are those that it was made with.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from conf import ROOT, state_dir
from conf.credentials import holds_login
from conf.errors import TidemarkError
from conf.settings import Settings, load
from local import jars
from local.processes import exclusive, java

PROPERTIES = ROOT / "conf" / "spark-defaults.conf"
# Only a driver that runs alone uses it: executors elsewhere get our packages too late.
WORKER_DAEMON = "spark.python.daemon.module=jobs.worker_daemon"
S3A, S3A_OPTION = "s3a://", "spark.hadoop.fs.s3a."
CHECKPOINT_MANAGER = "spark.sql.streaming.checkpointFileManagerClass"
# Writes a checkpoint's file in one upload, which it aborts where the write fails; Spark's own would write a temporary
# one and rename it, which costs a copy and a delete for each.
ABORTABLE = "org.apache.spark.internal.io.cloud.AbortableStreamBasedCheckpointFileManager"
ARCHIVED_JOB = "flights.hourly_delays"
ARCHIVED_DAYS = ("--from", "2013-01-01", "--to", "2013-01-08")
# These override a checkout's own settings of a cluster, which do not hold for the broker that is started for that job.
ARCHIVED_SETTINGS = {
    "kafka.security_protocol": "PLAINTEXT",
    "kafka.ssl_ca_location": "",
    "kafka.ssl_certificate_location": "",
    "kafka.ssl_key_location": "",
    "registry.url": "",
    "spark.master": "local[2]",
}
MAKING = "making-"


def is_local(master: str) -> bool:
    """Return whether Spark runs in the driver's own JVM alone, as `master` says."""
    return master == "local" or master.startswith("local[")


def log_file(settings: Settings, name: str) -> Path:
    """Return where the JVM of the application `name` logs."""
    return Path(settings.paths.logs) / f"{name}.{settings.logging.suffix}"


def class_path(jar_sets: Sequence[str] = ("spark",)) -> str:
    """Return Spark's jars, then ours, as --driver-class-path takes them; the archive fits whatever follows `spark`.

    If both have a class, Spark's is used, as it is with --jars.

    Raises:
        TidemarkError: NO_JARS, where one of ours is missing; BAD_JAR_LOCK.
    """
    return ":".join([f"{jars.spark_jars()}/*", *map(jars.class_path, jar_sets)])


def java_options(settings: Settings, log: Path, job: str = "tidemark") -> str:
    """Return the options of the driver's JVM, those of the settings last.

    They say where it logs, and where it keeps what it needs for a while (TMPDIR: sockets and shuffle files too); they
    make stacks deep enough for the regular expressions that Spark puts long failure messages through (with the default
    of 1 MB its stream threads died of them), and name the archive of classes, where there is one.
    """
    log_format = "log4j2.properties" if settings.logging.format == "plain" else "log4j2-ecs.properties"
    properties = {
        "log4j2.configurationFile": ROOT / "conf" / log_format,
        "tidemark.log": log,
        "tidemark.job": job,
        "java.io.tmpdir": os.environ.get("TMPDIR", "/tmp"),
    }
    words = ["-Xss16m", *(f"-D{name}={_quoted(value)}" for name, value in properties.items())]
    if archive := class_archive():
        # Java starts without an archive that does not fit or whose checksums are wrong, and need not tell the user. But
        # one that was cut short it would read past its end, and die: hence the length in the name.
        words += [f"-XX:SharedArchiveFile={_quoted(archive)}", "-XX:+VerifySharedSpaces -Xshare:auto -Xlog:cds*=off"]
    return " ".join([*words, settings.spark.driver_java_options])


def _quoted(value: object) -> str:
    """Return a text as Spark reads it as one word, whatever blanks, quotes and backslashes it has."""
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def uses_object_store(settings: Settings) -> bool:
    """Return whether tables or checkpoints lie in an object store."""
    return settings.paths.tables.startswith(S3A) or settings.paths.checkpoints.startswith(S3A)


def require_reachable(settings: Settings) -> None:
    """Ask the object store for what lies there, before a JVM is started that would ask it for minutes.

    Raises:
        TidemarkError: OBJECT_STORE_REFUSES; BAD_SETTING, as `object_store_options`.
    """
    if uses_object_store(settings):
        object_store_options(settings, os.environ)
        from jobs.connectors.files import require_reachable  # here: it loads what no other start needs

        for path in sorted({settings.paths.tables, settings.paths.checkpoints}):
            require_reachable(path)


def jar_sets(settings: Settings) -> tuple[str, ...]:
    """Return the sets of jars on a driver's class path; the one for an object store is fetched where it is missing.

    Raises:
        TidemarkError: JAR_DOWNLOAD or JAR_CHECKSUM.
    """
    if not uses_object_store(settings):
        return ("spark",)
    if jars.problems("s3"):  # asked first: where they are there, nothing need be writable
        jars.fetch("s3")
    return ("spark", "s3")


def object_store_options(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return Spark's options for the object store of the settings, none where they name none; no secret is among them.

    Raises:
        TidemarkError: BAD_SETTING, where S3A would go where deltalake refuses to go.
    """
    if not uses_object_store(settings):
        return {}

    def is_true(name: str) -> bool:
        return environ.get(name, "").lower() in ("true", "1")

    options = {}
    if region := environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        options[f"{S3A_OPTION}endpoint.region"] = region
    if endpoint := environ.get("AWS_ENDPOINT_URL"):
        if holds_login(endpoint):
            remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            raise TidemarkError("BAD_SETTING", "AWS_ENDPOINT_URL must hold no user and password", remedy)
        if endpoint.startswith("http://") and not is_true("AWS_ALLOW_HTTP"):
            message = f"AWS_ENDPOINT_URL is {endpoint}, without TLS"
            raise TidemarkError("BAD_SETTING", message, "set AWS_ALLOW_HTTP=true too, or give an https:// address")
        options[f"{S3A_OPTION}endpoint"] = endpoint
        options[f"{S3A_OPTION}path.style.access"] = str(not is_true("AWS_VIRTUAL_HOSTED_STYLE_REQUEST")).lower()
    if settings.paths.checkpoints.startswith(S3A):
        options[CHECKPOINT_MANAGER] = ABORTABLE
    return options


def class_archive() -> Path | None:
    """Return the archive for this Java and these jars, where it is there and as long as its name says."""
    candidates = archive_folder().glob(f"{archive_prefix()}-*.jsa")
    return next((path for path in candidates if path.stem.endswith(f"-{path.stat().st_size}")), None)


def archive_folder() -> Path:
    """Return where archives lie."""
    return state_dir() / "classes"


def archive_prefix() -> str:
    """Return how the name of an archive for this Java and these jars begins: a digest of path, size and time of each
    of their files."""
    digest = hashlib.sha256()
    for path in _archived_files():
        stat = path.stat() if path.is_file() else None
        digest.update(f"{path} {stat and (stat.st_size, stat.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:16]


def _archived_files() -> Iterator[Path]:
    home = Path(java()).resolve().parent.parent
    yield from (home / "release", home / "lib" / "modules", home / "lib" / "server" / "libjvm.so")
    yield from sorted(jars.spark_jars().glob("*.jar"))
    yield from (jars.folder("spark") / jar.file for jar in jars.read_lock("spark"))


def make_archive() -> str:
    """Make the archive of classes where there is none yet; returns a line that says what was done, or why it was not.

    Starts are slower without it, and nothing else: what keeps it from being made is no failure.
    """
    began, log = time.monotonic(), state_dir() / "logs" / "class-archive.log"
    try:
        with exclusive(archive_folder() / "lock"):
            path, done = class_archive(), "are archived"
            if not path:
                path, done = _make_archive(archive_folder(), log), f"archived in {time.monotonic() - began:.0f} s"
    except (OSError, TidemarkError, subprocess.CalledProcessError) as exc:
        return f"Spark's classes are not archived, jobs start some seconds slower: {exc}; log: {log}"
    return f"Spark's classes {done}: {path.stat().st_size / 1e6:.0f} MB in {path.parent}"


def _make_archive(folder: Path, log: Path) -> Path:
    folder.chmod(0o700)
    # Archives that fit no more, and what an interrupted command has left.
    for path in folder.iterdir():
        if path.name.startswith(MAKING):
            shutil.rmtree(path)
        elif path.suffix == ".jsa":
            path.unlink()
    # The archive appears whole and under its name at once.
    with TemporaryDirectory(dir=folder, prefix=MAKING) as scratch:
        archive = _run_archived_job(Path(scratch), log)
        archive.chmod(0o600)
        return archive.replace(folder / f"{archive_prefix()}-{archive.stat().st_size}.jsa")


def _run_archived_job(folder: Path, log: Path) -> Path:
    """Run ARCHIVED_JOB over some days of flights, as a user does, but in a broker, tables and checkpoints of its own.

    Returns:
        the archive in `folder` of the classes that its driver has loaded; Java writes it when it ends.
    """
    from local.broker import Cluster  # here: no other start of a driver needs its packages

    archive = folder / "classes.jsa"
    # In a run this short the second compiler would make more work than it saves.
    dump = f"-XX:ArchiveClassesAtExit={_quoted(archive)} -Xlog:cds*=off -XX:TieredStopAtLevel=1"
    java_options = f"{load('local').spark.driver_java_options} {dump}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    environment["TIDEMARK_STATE"] = str(state_dir())
    log.parent.mkdir(parents=True, exist_ok=True)
    with Cluster(folder / "broker", folder / "logs", attached=True) as broker, log.open("w") as lines:
        settings = ARCHIVED_SETTINGS | {"kafka.bootstrap_servers": broker.bootstrap_servers}
        settings |= {f"paths.{name}": str(folder / name) for name in ("tables", "checkpoints", "logs")}
        sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        for words in (
            ("local.topics", "apply"),
            ("producers.cli", "flights", *ARCHIVED_DAYS),
            ("local.submit", ARCHIVED_JOB, "--until-caught-up", "--set", f"spark.driver_java_options={java_options}"),
        ):
            command = [sys.executable, "-P", "-m", *words, *sets]
            subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=lines, stderr=lines, check=True)
    return archive
