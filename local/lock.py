"""Makes the locks in conf/ anew: the packages' from pyproject.toml, the jars' from conf/jars.toml."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf import ROOT, command_line, state_dir
from conf.errors import TidemarkError
from local import jars
from local.jars import Jar

DECLARED = ROOT / "conf" / "jars.toml"
JARS_HEADER = "# Written by `local/tidemark lock` from conf/jars.toml: set, group:artifact:version, file, sha256.\n"
PIP_TOOLS = "pip-tools==7.6.2"
# No address may stand in a lock: pip asks the index that its user has configured.
COMPILE = "--quiet --generate-hashes --no-emit-index-url --no-emit-find-links --allow-unsafe --strip-extras --no-header"
# Dependency groups of pyproject.toml, each locked by itself.
GROUP_LOCKS = {"build": "conf/build.lock", "airflow": "conf/airflow.lock"}
# Each lock holds the one before it, at the same versions.
PACKAGE_LOCKS = {
    "conf/requirements.lock": [],
    "conf/requirements-dev.lock": ["--extra=dev", "--constraint=conf/requirements.lock"],
    "conf/requirements-notebook.lock": ["--extra=dev", "--extra=notebook", "--constraint=conf/requirements-dev.lock"],
}


def main(argv: Sequence[str]) -> int:
    """Write the locks named by --packages or --jars; both where neither is given."""
    parser = argparse.ArgumentParser(prog="local/tidemark lock", description=main.__doc__)
    parser.add_argument("--packages", action="store_true", help="only those of Python packages")
    parser.add_argument("--jars", action="store_true", help="only conf/jars.lock")
    parser.add_argument("--upgrade", action="store_true", help="take the newest packages that pyproject.toml allows")
    options = command_line.parse(parser, argv)
    if options.packages or not options.jars:
        lock_packages(options.upgrade)
    if options.jars or not options.packages:
        lock_jars()
    return 0


def lock_packages(upgrade: bool) -> None:
    """Write the locks of GROUP_LOCKS and PACKAGE_LOCKS, with the hashes of every file of each version.

    Args:
        upgrade: take the newest versions that pyproject.toml allows; otherwise what is locked and fits stays.

    Raises:
        TidemarkError: LOCK_FAILED, where pip's resolver finds no answer; it says why before.
    """
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    with tempfile.TemporaryDirectory() as folder:
        print("making the lock tool's own virtual environment", file=sys.stderr)
        venv.create(folder, with_pip=True)
        tool = Path(folder) / "bin" / "python"
        run([str(tool), "-m", "pip", "install", "--quiet", PIP_TOOLS])
        newest = ["--upgrade"] if upgrade else []
        for group, target in GROUP_LOCKS.items():
            compile_packages(tool, ["-", *newest], target, stdin="\n".join(groups[group]))
        for target, options in PACKAGE_LOCKS.items():
            compile_packages(tool, ["pyproject.toml", *options, *newest], target)


def compile_packages(tool: Path, options: Sequence[str], target: str, stdin: str = "") -> None:
    """Write the lock `target` by the pip-tools of the Python `tool`; raises what `run` does."""
    print(f"locking {target}: a minute or so", file=sys.stderr)
    run([str(tool), "-m", "piptools", "compile", *COMPILE.split(), *options, f"--output-file={target}"], stdin)


def run(command: Sequence[str], stdin: str = "") -> None:
    """Run a command in the checkout, without what this process's Python was told; raises TidemarkError LOCK_FAILED."""
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(command, input=stdin, text=True, cwd=ROOT, env=environment, check=False)
    if done.returncode != 0:
        raise TidemarkError("LOCK_FAILED", f"`{' '.join(command[1:4])}` failed", "it says why above")


def lock_jars() -> None:
    """Resolve conf/jars.toml and write conf/jars.lock.

    Raises:
        TidemarkError: JAR_DOWNLOAD, where a root or something that it needs is not to be had.
    """
    declared = tomllib.loads(DECLARED.read_text())
    locked = [jar for jar_set in (*jars.SETS, *jars.OPTIONAL_SETS) for jar in resolve(jar_set, declared[jar_set])]
    names = max(len(jar.coordinate) for jar in locked)
    files = max(len(jar.file) for jar in locked)
    rows = [f"{jar.jar_set:8} {jar.coordinate:{names}} {jar.file:{files}} {jar.sha256}\n" for jar in sorted(locked)]
    jars.LOCK.write_text(JARS_HEADER + "".join(rows))
    print(f"{jars.LOCK}: {len(locked)} jars")


def resolve(jar_set: str, declared: dict[str, Any]) -> list[Jar]:
    """Return the jars that a set's roots need, with their checksums.

    Args:
        declared: as conf/jars.toml has it: `roots`, and maybe `transitive`, `exclude`, `shipped_by_pyspark`.

    Raises:
        TidemarkError: JAR_DOWNLOAD.
    """
    print(f"resolving the jars for {jar_set} with their poms: a minute or so", file=sys.stderr)
    out = state_dir() / "ivy" / "resolved" / jar_set
    shutil.rmtree(out, ignore_errors=True)
    pattern = f"{out}/[organisation]/[artifact]/[revision]/{jars.FILE}"
    transitive = declared.get("transitive", True)
    jars.retrieve(declared["roots"], pattern, transitive=transitive, exclude=declared.get("exclude", ()))
    resolved = [_describe(jar_set, path) for path in out.glob("*/*/*/*")]
    shutil.rmtree(out)
    shipped = [path.name for path in jars.spark_jars().glob("*.jar")] if declared.get("shipped_by_pyspark") else []
    return [jar for jar in resolved if not _is_shipped(jar, shipped)]


def _describe(jar_set: str, path: Path) -> Jar:
    group, artifact, version = path.parts[-4:-1]
    coordinate, rest = f"{group}:{artifact}:{version}", path.name.removeprefix(f"{artifact}-{version}")
    if rest != ".jar":
        classifier, _, extension = rest.removeprefix("-").partition(".")
        coordinate += f":{classifier}:{extension}"
    return Jar(jar_set, coordinate, path.name, jars.sha256(path))


def _is_shipped(jar: Jar, shipped: Sequence[str]) -> bool:
    """Return whether pyspark brings the same artifact, in whatever version."""
    artifact = jar.coordinate.split(":")[1]
    return any(name.startswith(f"{artifact}-") and name[len(artifact) + 1].isdigit() for name in shipped)
