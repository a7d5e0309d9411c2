"""Becomes spark-submit, which starts a job (`./spark-submit.sh`) or an operation (`replay`, `maintain`, `checkpoint`).

What needs no JVM is done here: wrong arguments and settings are refused, and a range's replay is planned. The command
line zips our packages, lists jars, and passes properties and environment.
"""

import json
import os
import signal
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from conf import ROOT, code_version, command_line, setting_types, state_dir
from conf.errors import TidemarkError, exit_on_error
from conf.settings import Settings, without_secrets
from jobs import arguments, catalog
from local import driver
from local.jars import folder, read_lock, spark_jars
from local.processes import require_account
from local.state_folder import with_temporary_folder, written_whole

SCRIPT = ROOT / "jobs" / "main.py"
# These of spark-submit's options say where code runs, or bring code that may need ours.
CODE_OPTIONS = {
    *("--master", "--remote", "--deploy-mode", "--jars", "--packages", "--py-files", "--driver-class-path"),
    *("spark.jars", "spark.jars.packages", "spark.submit.pyFiles", "spark.driver.extraClassPath", "--properties-file"),
}
# These are judged as the settings of their kind are.
JUDGED: Mapping[str, Callable[[str], str]] = {
    **dict.fromkeys(("--master", "spark.master"), setting_types.require_master),
    **dict.fromkeys(("--driver-memory", "spark.driver.memory"), setting_types.require_memory),
    **dict.fromkeys(("--executor-memory", "spark.executor.memory"), setting_types.require_memory),
    "--driver-java-options": setting_types.require_java_options,
}
# Spark's launcher adds the module, and no option of Java's takes the warning away.
START_OF_JVM = "WARNING: Using incubator modules: jdk.incubator.vector"
# The earliest date a zip can hold: equal sources give equal archives.
EPOCH = (1980, 1, 1, 0, 0, 0)


def main() -> int:
    """List the jobs, or become spark-submit."""
    job_arguments, spark_options = split(sys.argv[1:])
    if not job_arguments:
        print(listing())
        return 0
    options = arguments.parse_job(job_arguments)
    catalog.require(options.job)
    settings = arguments.settings_of(options)
    settings.kafka.require_bootstrap_servers()
    become(options.job, settings, spark_options, arguments.RUN, job_arguments)
    return 0


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split job arguments, before the first `--`, from spark-submit's own options, after it.

    Raises:
        TidemarkError: BAD_ARGUMENTS, as `command_line.check`, and for a size or a master that Spark cannot read.
    """
    where = list(argv).index("--") if "--" in argv else len(argv)
    command_line.check(argv)
    _require_readable(argv[where + 1 :])
    return list(argv[:where]), list(argv[where + 1 :])


def _require_readable(spark_options: Sequence[str]) -> None:
    """Refuse values of spark-submit's own options on which Java would end in words of its own."""
    for option, value in pairwise(spark_options):
        name, judged = (option, value) if option in JUDGED else value.partition("=")[::2]
        if judge := JUDGED.get(name if option in (name, "--conf", "-c") else ""):
            try:
                judge(judged)
            except ValueError as exc:
                raise TidemarkError("BAD_ARGUMENTS", f"{name} after `--`: {exc}", "correct it") from None


def listing() -> str:
    """Return every job and its question."""
    questions = catalog.questions()
    width = max(map(len, questions))
    lines = [f"  {name:<{width}}  {question}" for name, question in questions.items()]
    return "\n".join(["usage: ./spark-submit.sh JOB [job options] [-- spark-submit options]", "", *lines])


def run_in_spark(operation: str, argv: Sequence[str]) -> int:
    """Become spark-submit, which runs `operation`; wrong arguments and settings are refused before any JVM starts."""
    words, spark_options = split(argv)
    settings = arguments.settings_of(arguments.PARSERS[operation](words))
    become(operation, settings, spark_options, operation, words)
    return 0


def replay(argv: Sequence[str]) -> int:
    """Run `replay ARGV`; returns the exit code, raises TidemarkError and, for wrong usage, SystemExit(2)."""
    # Here, for the start of a job: these take a second and a half to import.

    from jobs.operations.replay.live_job import require_live
    from jobs.operations.replay.plan import plan_lines, plan_range, request_of
    from jobs.operations.replay.record import Replays

    words, spark_options = split(argv)
    options = arguments.parse_replay(words)
    settings = arguments.settings_of(options)
    replays = Replays(settings)
    if options.step == "list":
        known = replays.all()
        as_json = json.dumps([replay.summary() for replay in known])
        print(as_json if options.json else "\n".join(replay.line() for replay in known))
        return 0
    if "id" in options:
        replays.require(options.id)
    settings.kafka.require_bootstrap_servers()
    if options.step == "plan" and not options.backfill:
        planned = replays.find(options.job) or replays.begin(plan_range(settings, request_of(options)), options.again)
        if options.json:
            print(planned.to_json())
            return 0
        print("\n".join(plan_lines(settings, planned, replays.speed(planned.job))))
        once_more = f"it is {planned.state}; once more: {planned.command}"
        print(once_more if planned.is_finished else f"next: local/tidemark replay run {planned.id}")
        return 0
    if options.step == "run" and not options.backfill and replays.find(options.job) is None:
        request_of(options)
        require_live(settings, options.job)
    become("replay", settings, spark_options, "replay", words)
    return 0


def become(name: str, settings: Settings, spark_options: Sequence[str], operation: str, words: Sequence[str]) -> None:
    """Become spark-submit, which starts `jobs/main.py` with `operation` and its arguments; does not return."""
    submit = spark_jars().with_name("bin") / "spark-submit"
    require_account()
    driver.require_reachable(settings)
    _filter_stderr()
    with with_temporary_folder():
        os.execv(submit, [str(submit), *command(name, settings, spark_options), operation, *words])


@contextmanager
def quiet_start() -> Iterator[None]:
    """Start a JVM of Spark in the block whose stderr goes through `_filter_stderr`; ours is as before after it."""
    sys.stderr.flush()
    before = os.dup(2)
    try:
        _filter_stderr()
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _filter_stderr() -> None:
    """Put a filter before this process's stderr that drops what every JVM of Spark says at its start."""
    sys.stderr.flush()
    reader, writer = os.pipe()
    if os.fork() == 0:
        # It lasts as long as its writers, and lets pass what they say of a signal.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        try:
            os.dup2(reader, 0)
            os.dup2(2, 1)
            os.closerange(3, writer + 1)
            words = ["grep", "--line-buffered", "-v", "-F", "-x", START_OF_JVM]
            os.execvpe("grep", words, without_secrets(os.environ))
        finally:
            os._exit(127)  # where there is no grep
    os.dup2(writer, 2)
    os.close(reader)
    os.close(writer)


def command(name: str, settings: Settings, spark_options: Sequence[str]) -> list[str]:
    """Return spark-submit's arguments up to the script; `spark_options` win, but only add to our jars and Python files.

    Args:
        name: the application's, and its log's.
    """
    logs = Path(settings.paths.logs)
    logs.mkdir(parents=True, exist_ok=True)
    options = {
        "--master": settings.spark.master,
        "--name": name,
        "--driver-memory": settings.spark.driver_memory,
        "--properties-file": str(driver.PROPERTIES),
        "--driver-java-options": driver.java_options(settings, driver.log_file(settings, name), name),
        # Spark makes this folder where it is started, whether a job has tables there or not.
        "--conf": f"spark.sql.warehouse.dir={state_dir() / 'warehouse'}",
        **_code(settings, spark_options),
    }
    words = [word for option in options.items() for word in option]
    words += ["--conf", driver.WORKER_DAEMON] if _runs_alone(settings, spark_options) else []
    for key, value in driver.object_store_options(settings, os.environ).items():
        words += ["--conf", f"{key}={value}"]
    users = list(spark_options)
    for at, option in enumerate(spark_options[:-1]):
        if option in ("--jars", "--py-files"):  # the last such option drops the ones before it
            users[at + 1] = f"{options[option]},{users[at + 1]}"
    return [*words, *users, str(SCRIPT)]


def _code(settings: Settings, spark_options: Sequence[str]) -> dict[str, str]:
    """Return the options that bring our jars and packages: a driver that runs alone has them where they lie, which
    starts faster; else to executors too."""
    if _runs_alone(settings, spark_options):
        return {"--driver-class-path": driver.class_path(driver.jar_sets(settings))}
    return {
        "--jars": ",".join(
            str(folder(jar_set) / jar.file) for jar_set in driver.jar_sets(settings) for jar in read_lock(jar_set)
        ),
        "--py-files": str(zipped_packages(state_dir() / "run")),
    }


def _runs_alone(settings: Settings, spark_options: Sequence[str]) -> bool:
    names = {option.removeprefix("--conf=").partition("=")[0] for option in spark_options}
    return driver.is_local(settings.spark.master) and names.isdisjoint(CODE_OPTIONS)


def zipped_packages(folder: Path) -> Path:
    """Return the project's packages as a zip for executors, written anew where the sources have changed."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "tidemark.zip"
    # Another submit may read the archive now.
    with written_whole(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(source for package in code_version.PACKAGES for source in (ROOT / package).rglob("*.py")):
            archive.writestr(zipfile.ZipInfo(str(path.relative_to(ROOT)), EPOCH), path.read_bytes())
    return target


if __name__ == "__main__":
    exit_on_error(main)
