"""Keeps the jars that pyspark does not bring: sets of them, locked in conf/jars.lock, in `<state>/jars/<set>/`."""

import hashlib
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conf import ROOT, state_dir
from conf.errors import TidemarkError, exit_on_error
from local import ivy, processes

SETS = ("spark", "broker")
# Fetched by what needs them: schema registry, OpenSearch and S3Proxy by tests, MirrorMaker by the demo of two regions,
# S3A by drivers whose tables or checkpoints are in an object store.
OPTIONAL_SETS = ("mirror", "registry", "search", "s3", "s3proxy")
LOCK = ROOT / "conf" / "jars.lock"


@dataclass(frozen=True, order=True)
class Jar:
    """One locked file; `coordinate` is as `ivy.retrieve` takes it."""

    jar_set: str
    coordinate: str
    file: str
    sha256: str


def folder(jar_set: str) -> Path:
    """Return where the jars of a set lie."""
    return state_dir() / "jars" / jar_set


def read_lock(jar_set: str) -> list[Jar]:
    """Return the locked jars of `jar_set`, one of SETS or OPTIONAL_SETS.

    Raises:
        TidemarkError: BAD_JAR_LOCK, where the lock is missing, malformed or has nothing for the set.
    """
    try:
        lines = [line.split() for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
        jars = [Jar(*fields) for fields in lines if fields[0] == jar_set]
    except (OSError, TypeError) as exc:
        raise TidemarkError("BAD_JAR_LOCK", f"{LOCK}: {exc}", "run `local/tidemark lock`") from exc
    if not jars:
        raise TidemarkError("BAD_JAR_LOCK", f"{LOCK} has no jars for `{jar_set}`", "run `local/tidemark lock`")
    return jars


def class_path(jar_set: str) -> str:
    """Return the jars of a set as Java's -cp takes them.

    Raises:
        TidemarkError: NO_JARS, where one is missing.
    """
    paths = [folder(jar_set) / jar.file for jar in read_lock(jar_set)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise TidemarkError("NO_JARS", f"{folder(jar_set)} lacks {missing[0]}", "run `local/tidemark setup`")
    return ":".join(map(str, paths))


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def problems(jar_set: str) -> dict[Jar, str]:
    """Return what is wrong with each jar of the set that is missing or has another checksum than the lock."""
    wrong = {}
    for jar in read_lock(jar_set):
        path = folder(jar_set) / jar.file
        if not path.is_file():
            wrong[jar] = "is missing"
        elif (actual := sha256(path)) != jar.sha256:
            wrong[jar] = f"has sha256 {actual}, conf/jars.lock says {jar.sha256}"
    return wrong


def fetch(jar_set: str) -> None:
    """Make the set's folder hold exactly the locked jars; only what is missing or wrong is downloaded.

    Raises:
        TidemarkError: JAR_DOWNLOAD, or JAR_CHECKSUM with the jar, the actual and the locked sum; such a jar is removed.
    """
    with processes.exclusive(state_dir() / "jars" / "lock"):
        _remove_strays(jar_set)
        wrong = problems(jar_set)
        for jar, problem in wrong.items():
            if "sha256" in problem:
                print(f"jars: {jar.file} {problem}: removed, fetching it anew", file=sys.stderr)
                (folder(jar_set) / jar.file).unlink()
        if wrong:
            _download(jar_set, list(wrong))


def _download(jar_set: str, jars: Sequence[Jar]) -> None:
    staging, began = state_dir() / "ivy" / "retrieved", time.monotonic()
    shutil.rmtree(staging, ignore_errors=True)
    progress = _Progress(f"jars for {jar_set}", len(jars))
    pattern = str(staging / ivy.FILE)
    try:
        ivy.retrieve([jar.coordinate for jar in jars], pattern, on_jar=progress.step)
    finally:
        progress.end()
    _install(jars, staging)
    ivy.clear_cache()
    locked = read_lock(jar_set)
    megabytes = sum((folder(jar_set) / jar.file).stat().st_size for jar in locked) / 1e6
    took = f"{megabytes:.0f} MB, {time.monotonic() - began:.0f} s"
    print(f"jars for {jar_set}: all {len(locked)} there, checksums as locked ({took})", file=sys.stderr)


def _remove_strays(jar_set: str) -> None:
    locked = {jar.file for jar in read_lock(jar_set)}
    folder(jar_set).mkdir(parents=True, exist_ok=True)
    for path in folder(jar_set).iterdir():
        if path.name not in locked:
            path.unlink()


def _install(jars: Iterable[Jar], staging: Path) -> None:
    refused = []
    for jar in jars:
        fetched = staging / jar.file
        actual = sha256(fetched) if fetched.is_file() else "none: the repository has no such file"
        if actual == jar.sha256:
            fetched.replace(folder(jar.jar_set) / jar.file)
        else:
            ivy.forget(*jar.coordinate.split(":")[:2])
            refused.append(f"{jar.file}: sha256 is {actual}, conf/jars.lock says {jar.sha256}")
    shutil.rmtree(staging, ignore_errors=True)
    if refused:
        remedy = "removed; run the same command again, and if it stays so find out who changed repository or lock"
        raise TidemarkError("JAR_CHECKSUM", "; ".join(refused), remedy)


class _Progress:
    """One line that counts on a terminal; elsewhere a line at the beginning and one at the end."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._done = title, total, 0
        self._on_terminal = sys.stderr.isatty()
        self._show("asking the repository")

    def step(self, module: str) -> None:
        self._done += 1
        if self._on_terminal or self._done == self._total:
            self._show(module.split("#")[-1].replace(";", " "))

    def end(self) -> None:
        if self._on_terminal:
            print(file=sys.stderr)

    def _show(self, what: str) -> None:
        line = f"{self._title}: {self._done} of {self._total} downloaded, {what}"
        start, end = ("\r\033[K", "") if self._on_terminal else ("", "\n")
        print(start + line, end=end, file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    """Fetch the sets named."""
    processes.end_on_signal()
    for jar_set in argv:
        fetch(jar_set)
    return 0


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
