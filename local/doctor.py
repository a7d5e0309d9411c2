"""Runs `local/tidemark doctor`: what this machine lacks, with a repair for each; needs no JVM and no packages."""

import argparse
import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from conf import ROOT, credentials, state_dir
from conf.errors import TidemarkError, of_system
from local import jars, processes

DISK_GB = 3.0  # packages 1.0, jars 0.1, the year of flights in topics, tables and checkpoints 1.0, and room to work
MEMORY_GB = 4.0  # what a whole run takes at most: Spark's driver, the broker, the publisher
PROBE_BYTES = 100_000
SETUP = "local/tidemark setup"


@dataclass(frozen=True)
class Finding:
    """The result of one check; `repair` is a command or an instruction, empty when all is well."""

    what: str
    repair: str = ""

    def __str__(self) -> str:
        return f"FAIL  {self.what}  repair: {self.repair}" if self.repair else f"ok    {self.what}"


def findings() -> Iterator[Finding]:
    """Yield every check in turn."""
    for check in CHECKS:
        try:
            yield from check()
        except TidemarkError as error:
            yield Finding(f"{error.code}: {error.message}", error.remedy)


def check_python() -> Iterator[Finding]:
    """Check for a Python 3.11 or newer that can make virtual environments."""
    yield _find_by_bootstrap("Python", "tidemark_python", '"$found" -V')


def check_java() -> Iterator[Finding]:
    """Check for a Java 17 or newer with the module that Spark adds at its start."""
    yield _find_by_bootstrap("Java", "tidemark_java", 'echo "Java $(_tidemark_java_version "$found")"')


def _find_by_bootstrap(name: str, function: str, version: str) -> Finding:
    script = f'source "{ROOT}/local/bootstrap.sh" && found=$({function}) && echo "$({version}) at $found"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Finding(done.stdout.strip())
    what, _, repair = done.stderr.strip().removeprefix("error: ").partition("; ")
    return Finding(f"{name}: {what}", repair or "see above")


def check_packages() -> Iterator[Finding]:
    """The virtual environment holds what conf/requirements.lock pins."""
    installed = _installed()
    pins = locked_packages()
    unlike = {name: pin for name, pin in pins.items() if installed.get(name) != pin}
    wrong = [f"{name} {installed.get(name, 'missing')}, locked {pin}" for name, pin in unlike.items()]
    if not installed:
        yield Finding(f"packages: no virtual environment in {state_dir()}", SETUP)
    elif wrong:
        repair = f"rm -r {state_dir() / 'venv'} && {SETUP}"
        yield Finding(f"packages: {'; '.join(wrong[:3])}{' …' if len(wrong) > 3 else ''}", repair)
    else:
        yield Finding(f"packages: {len(pins)} as locked")


def locked_packages() -> dict[str, str]:
    """Return the version of each package that conf/requirements.lock pins."""
    lock = (ROOT / "conf" / "requirements.lock").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))


def _installed() -> dict[str, str]:
    sites = [str(path) for path in (state_dir() / "venv" / "lib").glob("python3.*/site-packages")]
    packages = [package for package in distributions(path=sites) if package.name]
    return {re.sub(r"[-_.]+", "-", package.name).lower(): package.version for package in packages}


def check_versions() -> Iterator[Finding]:
    """Spark's and Delta's jars are made for the pyspark and the delta-spark that are locked beside them."""
    pins = locked_packages()
    locked = {jar.coordinate.split(":")[1]: jar.coordinate.split(":")[2] for jar in jars.read_lock("spark")}
    spark, delta = pins["pyspark"], pins["delta-spark"]
    series = ".".join(spark.split(".")[:2])
    pairs = {"spark-sql-kafka-0-10_2.13": spark, f"delta-spark_{series}_2.13": delta}
    unlike = {artifact: pin for artifact, pin in pairs.items() if locked.get(artifact) != pin}
    wrong = [f"{artifact} is {locked.get(artifact, 'missing')}, not {pin}" for artifact, pin in unlike.items()]
    if wrong:
        yield Finding(f"versions: {'; '.join(wrong)}", "correct conf/jars.toml and run local/tidemark lock --jars")
    else:
        yield Finding(f"versions: pyspark {spark} and delta-spark {delta} match their jars")


def check_jars() -> Iterator[Finding]:
    """Every locked jar is there, with its checksum."""
    for jar_set in jars.SETS:
        wrong = [f"{jar.file} {problem}" for jar, problem in jars.problems(jar_set).items()]
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            yield Finding(f"jars for {jar_set}: {wrong[0]}{more}", SETUP)
        else:
            yield Finding(f"jars for {jar_set}: {len(jars.read_lock(jar_set))}, checksums as locked")


def check_broker() -> Iterator[Finding]:
    """The settings can be read, and the broker's port is free or our own broker's."""
    try:
        from conf.settings import load
        from local.broker import embedded, is_configured
    except ModuleNotFoundError as exc:
        yield Finding(f"settings: cannot be read without the package {exc.name}", SETUP)
        return
    settings = load()
    port, running = settings.broker.port, embedded(settings).running()
    if is_configured(settings):
        yield Finding(f"broker: kafka.bootstrap_servers is {settings.kafka.bootstrap_servers}, none is started here")
    elif running:
        yield Finding(f"broker: runs at {embedded(settings).bootstrap_servers}")
    elif port and processes.listens(port):
        repair = "end that program, or set TIDEMARK_BROKER__PORT=0 for a free port"
        yield Finding(f"broker: another program holds port {port}", repair)
    else:
        yield Finding(f"broker: not running; port {port} is free" if port else "broker: not running; takes a free port")


def check_state() -> Iterator[Finding]:
    """Check that files can be written in the state folder, or that it can be made."""
    state = state_dir()
    try:
        if state.exists() or state.is_symlink():
            with tempfile.TemporaryFile(dir=state) as file:
                file.write(bytes(PROBE_BYTES))
        elif not os.access(_existing(state), os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as exc:
        error = of_system(OSError(exc.errno, exc.strerror, str(state)))
        yield Finding(f"{error.code}: {error.message}", error.remedy)
    else:
        yield Finding(f"state: {state} can be written")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def check_disk() -> Iterator[Finding]:
    """Check that there is room where the state folder is or will be."""
    folder = _existing(state_dir())
    free = shutil.disk_usage(folder).free / 1e9
    if free < DISK_GB:
        repair = f"free {DISK_GB - free:.1f} GB, or set TIDEMARK_STATE to a folder on a larger disk"
        yield Finding(f"disk: {free:.1f} GB free at {folder}, {DISK_GB:.0f} GB are needed", repair)
    else:
        yield Finding(f"disk: {free:.1f} GB free at {folder}")


def check_memory() -> Iterator[Finding]:
    """Check that there is memory for a whole run, where the system tells."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in meminfo.read_text().splitlines()}
    free = kilobytes["MemAvailable"] * 1024 / 1e9
    if free < MEMORY_GB:
        repair = "end other programs, or set TIDEMARK_SPARK__DRIVER_MEMORY=1g and TIDEMARK_BROKER__HEAP_MB=256"
        yield Finding(f"memory: {free:.1f} GB available, {MEMORY_GB:.0f} GB are needed", repair)
    else:
        yield Finding(f"memory: {free:.1f} GB available")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_java,
    check_packages,
    check_versions,
    check_jars,
    check_broker,
    check_state,
    check_disk,
    check_memory,
)


def main(argv: Sequence[str]) -> int:
    """Check this machine, one line per check; exits with 1 when any fails."""
    credentials.refuse_secrets(argv)
    argparse.ArgumentParser(prog="local/tidemark doctor", description=main.__doc__).parse_args(argv)
    failed = 0
    for finding in findings():
        print(finding, flush=True)
        failed += bool(finding.repair)
    return int(failed > 0)
