"""Keeps the jars that pyspark does not bring: sets of them, locked in conf/jars.lock, in `<state>/jars/<set>/`.

Apache Ivy, which pyspark ships, downloads them. Which repository is asked, Ivy decides: its own default, or the user's
`ivysettings.xml`.
"""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.sax.saxutils import quoteattr

from conf import ROOT, home, state_dir
from conf.errors import TidemarkError, exit_on_error
from local import processes

SETS = ("spark", "broker")
# Fetched by what needs them: schema registry, OpenSearch and S3Proxy by tests, MirrorMaker by the demo of two regions,
# S3A by drivers whose tables or checkpoints are in an object store.
OPTIONAL_SETS = ("mirror", "registry", "search", "s3", "s3proxy")
LOCK = ROOT / "conf" / "jars.lock"
# A lock names exact jars, and their checksums are ours: no pom, version list or checksum file is fetched.
EXACT = 'usepoms="false" useMavenMetadata="false" checksums=""'
FILE = "[artifact]-[revision](-[classifier]).[ext]"
SETTINGS = """<ivysettings>
  <settings defaultResolver="maven"/>
  <resolvers><ibiblio name="maven" m2compatible="true" {how}/></resolvers>
</ivysettings>
"""
MODULE = """<ivy-module version="2.0" xmlns:m="http://ant.apache.org/ivy/maven">
  <info organisation="tidemark" module="jars"/>
  <configurations><conf name="default"/></configurations>
  <dependencies>
{dependencies}
  </dependencies>
</ivy-module>
"""


@dataclass(frozen=True, order=True)
class Jar:
    """One locked file; `coordinate` is as `retrieve` takes it."""

    jar_set: str
    coordinate: str
    file: str
    sha256: str


def main(argv: Sequence[str]) -> int:
    """Fetch the sets named."""
    processes.end_on_signal()
    for jar_set in argv:
        fetch(jar_set)
    return 0


def fetch(jar_set: str) -> None:
    """Make the set's folder hold exactly the locked jars; only what is missing or wrong is downloaded.

    Raises:
        TidemarkError: JAR_DOWNLOAD, or JAR_CHECKSUM with the jar, the actual and the locked sum; such a jar is removed.
    """
    with processes.exclusive(state_dir() / "jars" / "lock"):
        locked = {jar.file for jar in read_lock(jar_set)}
        folder(jar_set).mkdir(parents=True, exist_ok=True)
        for path in folder(jar_set).iterdir():
            if path.name not in locked:
                path.unlink()
        wrong = problems(jar_set)
        for jar, problem in wrong.items():
            if "sha256" in problem:
                print(f"jars: {jar.file} {problem}: removed, fetching it anew", file=sys.stderr)
                (folder(jar_set) / jar.file).unlink()
        if wrong:
            _download(jar_set, list(wrong))


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
    """Return the jars of a set as Java's -cp takes them; raises TidemarkError NO_JARS, where one is missing."""
    paths = [folder(jar_set) / jar.file for jar in read_lock(jar_set)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise TidemarkError("NO_JARS", f"{folder(jar_set)} lacks {missing[0]}", "run `local/tidemark setup`")
    return ":".join(map(str, paths))


def spark_jars() -> Path:
    """Return the folder of Spark's own jars: in SPARK_HOME, else those that pyspark brings.

    Raises:
        TidemarkError: NO_PACKAGES, where there is neither.
    """
    if spark_home := os.environ.get("SPARK_HOME"):
        return Path(spark_home) / "jars"
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise TidemarkError("NO_PACKAGES", "pyspark is not installed", "run `local/tidemark setup`")
    return Path(spec.origin).parent / "jars"


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


def _download(jar_set: str, jars: Sequence[Jar]) -> None:
    staging, began = state_dir() / "ivy" / "retrieved", time.monotonic()
    shutil.rmtree(staging, ignore_errors=True)
    with _counted_downloads(f"jars for {jar_set}", len(jars)) as count_one:
        retrieve([jar.coordinate for jar in jars], f"{staging}/{FILE}", on_jar=count_one)
    _install(jars, staging)
    clear_cache()
    locked = read_lock(jar_set)
    megabytes = sum((folder(jar_set) / jar.file).stat().st_size for jar in locked) / 1e6
    took = f"{megabytes:.0f} MB, {time.monotonic() - began:.0f} s"
    print(f"jars for {jar_set}: all {len(locked)} there, checksums as locked ({took})", file=sys.stderr)


@contextmanager
def _counted_downloads(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """Give what counts a module: in one line on a terminal; elsewhere in a line at the beginning and one at the end."""
    on_terminal, done = sys.stderr.isatty(), 0
    start, end = ("\r\033[K", "") if on_terminal else ("", "\n")

    def show(what: str) -> None:
        print(f"{start}{title}: {done} of {total} downloaded, {what}", end=end, file=sys.stderr, flush=True)

    def count_one(module: str) -> None:
        nonlocal done
        done += 1
        if on_terminal or done == total:
            show(module.split("#")[-1].replace(";", " "))

    show("asking the repository")
    try:
        yield count_one
    finally:
        if on_terminal:
            print(file=sys.stderr)


def _install(jars: Sequence[Jar], staging: Path) -> None:
    refused = []
    for jar in jars:
        fetched = staging / jar.file
        actual = sha256(fetched) if fetched.is_file() else "none: the repository has no such file"
        if actual == jar.sha256:
            fetched.replace(folder(jar.jar_set) / jar.file)
        else:
            group, artifact = jar.coordinate.split(":")[:2]
            # What the cache holds would be taken again.
            shutil.rmtree(state_dir() / "ivy" / "cache" / group / artifact, ignore_errors=True)
            refused.append(f"{jar.file}: sha256 is {actual}, conf/jars.lock says {jar.sha256}")
    shutil.rmtree(staging, ignore_errors=True)
    if refused:
        remedy = "removed; run the same command again, and if it stays so find out who changed repository or lock"
        raise TidemarkError("JAR_CHECKSUM", "; ".join(refused), remedy)


def clear_cache() -> None:
    """Drop Ivy's cache; it only serves to go on after an interruption."""
    shutil.rmtree(state_dir() / "ivy" / "cache", ignore_errors=True)


def retrieve(
    coordinates: Sequence[str],
    pattern: str,
    *,
    transitive: bool = False,
    exclude: Sequence[str] = (),
    on_jar: Callable[[str], None] = lambda module: None,
) -> None:
    """Bring `coordinates` to the files that `pattern` names, in Ivy's pattern language.

    Args:
        coordinates: `group:artifact:version`, or with `:classifier:extension` where it is no plain jar.
        transitive: read poms and bring all that they need too, but for `exclude` (`group:artifact`).
        on_jar: called with `group#artifact;version` for each jar that was downloaded.

    Raises:
        TidemarkError: JAR_DOWNLOAD, with the first line that Ivy complains in and the path of its log; NO_PACKAGES,
            NO_JAVA; BAD_SETTING, where TIDEMARK_IVY_SETTINGS names no file.
    """
    ivy = state_dir() / "ivy"
    ivy.mkdir(parents=True, exist_ok=True)
    module = ivy / "ivy.xml"
    module.write_text(_ivy_module(coordinates, transitive, exclude))
    log = state_dir() / "logs" / "ivy.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    program = next(spark_jars().glob("ivy-*.jar"))
    command = [processes.java(), "-cp", str(program), "org.apache.ivy.Main", "-ivy", str(module)]
    command += ["-settings", str(_ivy_settings(ivy, transitive)), "-cache", str(ivy / "cache")]
    command += ["-retrieve", pattern, "-types", "jar", "bundle", "tar.gz"]
    with log.open("w") as lines, processes.output_of(command) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.write(line)
            if "[SUCCESSFUL ]" in line:
                on_jar(line.split("[SUCCESSFUL ]")[1].split("!")[0].strip())
    if process.returncode != 0:
        raise _download_error(log)


def _ivy_settings(ivy: Path, transitive: bool) -> Path:
    users = os.environ.get("TIDEMARK_IVY_SETTINGS")
    home_folder = home()
    path = home_folder / ".ivy2" / "ivysettings.xml" if home_folder else None
    if users:
        path = Path(users).expanduser() if home_folder else Path(users)
        if not path.is_file():
            raise TidemarkError("BAD_SETTING", f"TIDEMARK_IVY_SETTINGS names no file: {users}", "correct or unset it")
    if path and path.is_file():
        return path
    ours = ivy / "ivysettings.xml"
    ours.write_text(SETTINGS.format(how='checksums=""' if transitive else EXACT))
    return ours


def _ivy_module(coordinates: Sequence[str], transitive: bool, exclude: Sequence[str]) -> str:
    lines = []
    for coordinate in coordinates:
        group, artifact, version, *other = map(quoteattr, coordinate.split(":"))
        rest = f'conf="default->default" transitive="{str(transitive).lower()}"'
        file = f"<artifact name={artifact} m:classifier={other[0]} type={other[1]} ext={other[1]}/>" if other else ""
        lines.append(f"    <dependency org={group} name={artifact} rev={version} {rest}>{file}</dependency>")
    for pair in exclude:
        group, artifact = map(quoteattr, pair.split(":"))
        lines.append(f"    <exclude org={group} module={artifact}/>")
    return MODULE.format(dependencies="\n".join(lines))


def _download_error(log: Path) -> TidemarkError:
    lines = log.read_text().splitlines()
    complaints = [line.strip(" \t:") for line in lines if "not found" in line or "[FAILED" in line or "ERROR" in line]
    cause = complaints[0] if complaints else (lines or ["Ivy said nothing"])[-1].strip()
    remedy = f"check the network or your ivysettings.xml and run the same command again; Ivy's log: {log}"
    return TidemarkError("JAR_DOWNLOAD", cause, remedy)


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
