"""From a job's name to spark-submit's command line: packages zipped, jars listed, properties and environment passed."""

import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from conf import ROOT, code, state_dir
from conf.errors import exit_on_error
from conf.settings import Settings
from jobs import arguments, catalog
from local.jars import folder, read_lock
from local.session import java_options

PACKAGES = code.PACKAGES
SCRIPT = ROOT / "jobs" / "main.py"
# The earliest date a zip can hold: equal sources give equal archives.
EPOCH = (1980, 1, 1, 0, 0, 0)


def main() -> int:
    """List the jobs, or become spark-submit."""
    job_arguments, spark_options = split(sys.argv[1:])
    if not job_arguments:
        print(listing())
        return 0
    args = arguments.parse(job_arguments)
    catalog.require(args.job)
    settings = arguments.settings_of(args)
    settings.kafka.require_bootstrap_servers()
    become(args.job, settings, spark_options, SCRIPT, job_arguments)
    return 0


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Job arguments before the first `--`, spark-submit's own options after it."""
    where = list(argv).index("--") if "--" in argv else len(argv)
    return list(argv[:where]), list(argv[where + 1 :])


def listing() -> str:
    """Every job and its question."""
    found = catalog.questions()
    width = max(map(len, found))
    lines = [f"  {name:<{width}}  {question}" for name, question in found.items()]
    return "\n".join(["usage: ./spark-submit.sh JOB [job options] [-- spark-submit options]", "", *lines])


def become(name: str, settings: Settings, spark_options: Sequence[str], script: Path, arguments: Sequence[str]) -> None:
    """Become spark-submit, which runs `script` with `arguments`; does not return."""
    submit = Path(os.environ["SPARK_HOME"]) / "bin" / "spark-submit"
    os.execv(submit, [str(submit), *command(name, settings, spark_options, script), *arguments])


def command(job: str, settings: Settings, spark_options: Sequence[str], script: Path = SCRIPT) -> list[str]:
    """spark-submit's arguments up to the script; `spark_options` win, but only add to our jars and Python files."""
    logs = Path(settings.paths.logs)
    logs.mkdir(parents=True, exist_ok=True)
    java = java_options(settings, logs / f"{job}.log")
    options = {
        "--master": settings.spark.master,
        "--name": job,
        "--driver-memory": settings.spark.driver_memory,
        "--properties-file": str(ROOT / "conf" / "spark-defaults.conf"),
        "--jars": ",".join(str(folder("spark") / jar.file) for jar in read_lock("spark")),
        "--py-files": str(zipped_packages(state_dir() / "run")),
        "--driver-java-options": java,
        # Spark makes this folder where it is started, whether a job has tables there or not.
        "--conf": f"spark.sql.warehouse.dir={state_dir() / 'warehouse'}",
    }
    own = [text for option in options.items() for text in option]
    added = _added_to(options, ("--jars", "--py-files"), spark_options)
    return [*own, *added, str(script)]


def _added_to(options: Mapping[str, str], lists: Sequence[str], spark_options: Sequence[str]) -> list[str]:
    """`spark_options` with ours in front of what they list, where the last option would drop the ones before it."""
    added = list(spark_options)
    for at, option in enumerate(spark_options[:-1]):
        if option in lists:
            added[at + 1] = f"{options[option]},{added[at + 1]}"
    return added


def zipped_packages(folder: Path) -> Path:
    """The project's packages as a zip for executors, written anew where the sources have changed."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "tidemark.zip"
    # Another submit may read the archive now: it is replaced, never written in place.
    partial = folder / f"tidemark-{os.getpid()}.zip"
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(source for package in PACKAGES for source in (ROOT / package).rglob("*.py")):
            archive.writestr(zipfile.ZipInfo(str(path.relative_to(ROOT)), EPOCH), path.read_bytes())
    partial.replace(target)
    return target


if __name__ == "__main__":
    exit_on_error(main)
