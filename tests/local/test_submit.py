"""From the words after spark-submit.sh to spark-submit's own; operations that become it, and what they refuse first."""

import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pyspark
import pytest

from conf import ROOT, code_version
from conf.errors import TidemarkError
from conf.settings import Settings, load
from jobs import arguments, catalog
from local import cli, driver, submit
from local.jars import folder

JOB = "flights.hourly_delays"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load("local", [f"paths.logs={tmp_path / 'logs'}", "kafka.bootstrap_servers=h:1"])


def python(*arguments: str, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "job", "spark"),
    [
        ([JOB, "--until-caught-up"], [JOB, "--until-caught-up"], []),
        ([JOB, "--", "--master", "spark://h:1"], [JOB], ["--master", "spark://h:1"]),
        ([JOB, "--", "--conf", "a=b", "--", "x"], [JOB], ["--conf", "a=b", "--", "x"]),
        (["--"], [], []),
        ([], [], []),
    ],
)
def test_the_first_two_dashes_part_job_options_from_sparks(
    words: Sequence[str], job: Sequence[str], spark: Sequence[str]
) -> None:
    assert submit.split(words) == (job, spark)


def test_the_users_spark_options_come_after_ours_and_before_the_script(settings: Settings) -> None:
    words = submit.command(JOB, settings, ["--master", "spark://h:1", "--driver-memory", "3g"])
    masters = [words[at + 1] for at, word in enumerate(words) if word == "--master"]
    assert masters == [settings.spark.master, "spark://h:1"]
    assert words[-5:-1] == ["--master", "spark://h:1", "--driver-memory", "3g"]
    assert words[-1] == str(ROOT / "jobs" / "main.py")
    assert Path(settings.paths.logs).is_dir()


@pytest.mark.parametrize("master", ["local", "local[2,4]"])
def test_one_machine_takes_jars_and_packages_from_where_they_lie(settings: Settings, master: str) -> None:
    alone = settings.model_copy(update={"spark": settings.spark.model_copy(update={"master": master})})
    words = submit.command(JOB, alone, ["--driver-memory", "3g", "--conf", "a=b"])
    assert not {"--jars", "--py-files"} & set(words)
    assert words[words.index("--driver-class-path") + 1] == driver.class_path()
    assert driver.WORKER_DAEMON in words


@pytest.mark.parametrize(
    ("master", "options"),
    [
        ("spark://h:1", []),
        ("local-cluster[2,1,1024]", []),
        ("local[2]", ["--master", "spark://h:1"]),
        ("local[2]", ["--master=spark://h:1"]),
        ("local[2]", ["--jars", "/mine/own.jar"]),
        ("local[2]", ["--conf", "spark.driver.extraClassPath=/mine"]),
        ("local[2]", ["--conf=spark.jars=/mine/own.jar"]),
        ("local[2]", ["--properties-file", "mine"]),
    ],
)
def test_executors_elsewhere_and_code_of_the_user_have_ours_brought(
    settings: Settings, master: str, options: Sequence[str]
) -> None:
    spread = settings.model_copy(update={"spark": settings.spark.model_copy(update={"master": master})})
    words = submit.command(JOB, spread, options)
    assert not {"--driver-class-path", driver.WORKER_DAEMON} & set(words)
    assert {"--jars", "--py-files"} <= set(words)


@pytest.mark.parametrize("option", ["--jars", "--py-files"])
def test_jars_and_files_of_the_user_are_added_to_ours(option: str, settings: Settings) -> None:
    words = submit.command(JOB, settings, [option, "/mine/own.jar", "--conf", "a=b"])
    ours, last = (words[at + 1] for at, word in enumerate(words) if word == option)
    assert last == f"{ours},/mine/own.jar"


def test_a_user_id_without_an_account_is_named_before_a_jvm_starts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 2_000_000_042)
    with pytest.raises(TidemarkError, match=r"NO_ACCOUNT: user id 2000000042 has no account.*/etc/passwd"):
        submit.become(JOB, settings, [], "run", [JOB])


def test_no_secret_stands_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "me"}
    for name, value in (access | {"sasl_password": "hush-hush"}).items():
        monkeypatch.setenv(f"TIDEMARK_KAFKA__{name.upper()}", value)
    built = submit.command(JOB, load(overrides=[f"paths.logs={tmp_path}"]), [])
    assert "hush-hush" not in " ".join(built)


def test_every_locked_jar_is_passed_and_is_there(settings: Settings) -> None:
    words = submit.command(JOB, settings, ["--master", "spark://h:1"])
    jars = [Path(jar) for jar in words[words.index("--jars") + 1].split(",")]
    assert {jar.name.split("-")[0] for jar in jars} >= {"spark", "delta", "kafka"}
    assert all(jar.is_file() for jar in jars)


def test_equal_sources_give_equal_archives_of_the_packages_alone(tmp_path: Path) -> None:
    first, second = (submit.zipped_packages(tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert {name.split("/")[0] for name in names} == set(code_version.PACKAGES)
    assert all(name.endswith(".py") for name in names)
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_every_module_can_be_imported_from_the_archive(tmp_path: Path) -> None:
    archive = submit.zipped_packages(tmp_path)
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in zipfile.ZipFile(archive).namelist()
        if name != "jobs/main.py"
    ]
    script = f"""
import importlib, sys
sys.path.insert(0, {str(archive)!r})
for name in {modules!r}:
    module = importlib.import_module(name)
    assert module.__file__.startswith({str(archive)!r}), module.__file__
"""
    done = python("-c", script, cwd=tmp_path, PYTHONPATH="")
    assert done.returncode == 0, done.stderr


def test_from_any_folder_and_without_a_job_every_job_is_listed_with_its_question(tmp_path: Path) -> None:
    elsewhere = tmp_path / "with a blank"
    elsewhere.mkdir()
    done = subprocess.run([ROOT / "spark-submit.sh"], cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, blank, *lines = done.stdout.splitlines()
    assert first == "usage: ./spark-submit.sh JOB [job options] [-- spark-submit options]"
    assert blank == ""
    assert dict(line.split(None, 1) for line in lines) == catalog.questions()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["flights.hourly_delay"], "UNKNOWN_JOB: there is no job `flights.hourly_delay`; did you mean `flights.hourly"),
        ([JOB, "--set", "spark.mster=x"], "UNKNOWN_SETTING: --set names no setting: `spark.mster`"),
        ([JOB, "--from", "yesterday"], "BAD_POSITION: `yesterday` is no position in a topic"),
        ([JOB, "--set", "kafka.bootstrap_servers="], "NO_BROKER: no Kafka broker is configured"),
    ],
)
def test_what_is_wrong_is_one_line_before_any_jvm_starts(words: Sequence[str], expected: str, tmp_path: Path) -> None:
    own = {"TIDEMARK_STATE": str(tmp_path), "PYTHONPATH": str(ROOT), "SPARK_HOME": "/nowhere"}
    done = python("-m", "local.submit", *words, cwd=tmp_path, **own)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {expected}")


@pytest.fixture
def with_blanks(tmp_path: Path) -> Path:
    """The checkout in a folder whose name has blanks, and a state folder in it that has the jars of this one."""
    checkout = tmp_path / "my own check out"
    left_out = shutil.ignore_patterns(".*", "tests", "notebooks", "docs", "__pycache__", "spark-warehouse")
    shutil.copytree(ROOT, checkout, ignore=left_out)
    (checkout / "state").mkdir()
    (checkout / "state" / "jars").symlink_to(folder("spark").parent)
    return checkout


def test_a_checkout_may_lie_in_a_folder_with_blanks(with_blanks: Path, tmp_path: Path) -> None:
    own = {"PYTHONPATH": str(with_blanks), "TIDEMARK_STATE": str(with_blanks / "state")}
    listed = python("-m", "local.submit", cwd=tmp_path, **own)
    assert listed.returncode == 0, listed.stderr
    assert JOB in listed.stdout
    script = f"""
from conf.settings import load
from local.submit import command
print(*command({JOB!r}, load(), []), sep=chr(10))
"""
    built = python("-c", script, cwd=tmp_path, **own)
    words = built.stdout.splitlines()
    assert words[-1] == str(with_blanks / "jobs" / "main.py"), built.stderr
    java = words[words.index("--driver-java-options") + 1]
    assert f'configurationFile="{with_blanks / "conf" / "log4j2.properties"}"' in java


@pytest.mark.slow
def test_a_job_starts_from_a_folder_with_blanks(with_blanks: Path, tmp_path: Path) -> None:
    own = {
        "PYTHONPATH": str(with_blanks),
        "TIDEMARK_STATE": str(with_blanks / "state"),
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    nobody = "kafka.bootstrap_servers=127.0.0.1:1"
    done = python("-m", "local.submit", "ingest", "--set", nobody, cwd=tmp_path, **own)
    # It got as far as asking the broker: the JVM, its log and the job's own modules were found.
    assert "error: BROKER_UNREACHABLE: no Kafka broker answers at 127.0.0.1:1" in done.stdout, done
    assert done.returncode == 1
    assert (with_blanks / "state" / "logs" / "ingest.log").exists()


def test_what_each_jvm_says_at_its_start_is_dropped_and_the_rest_is_told(tmp_path: Path) -> None:
    script = f"""
import subprocess, sys
sys.path.insert(0, {str(ROOT)!r})
from local.submit import START_OF_JVM, quiet_start
with quiet_start():
    subprocess.run(["bash", "-c", f"echo '{{START_OF_JVM}}' >&2; echo else >&2"])
print("after", file=sys.stderr)
"""
    done = python("-c", script, cwd=tmp_path)
    assert (done.returncode, sorted(done.stderr.splitlines())) == (0, ["after", "else"])


@pytest.mark.parametrize("words", [["--executor-memory", "lots"], ["--conf", "spark.driver.memory=2gb"]])
def test_sizes_and_masters_after_the_dashes_are_judged_as_the_settings_are(words: list[str]) -> None:
    with pytest.raises(TidemarkError, match=r"BAD_ARGUMENTS: .*is no memory of a JVM"):
        submit.split([JOB, "--", *words])
    with pytest.raises(TidemarkError, match="BAD_ARGUMENTS: --master after `--`: 'here' is no master"):
        submit.split([JOB, "--", "--master", "here"])
    assert submit.split([JOB, "--", "--conf", "spark.app.name=lots", "--executor-memory", "2g"])


@pytest.mark.parametrize("name", ["a b", "quo'te", 'quo"te', "back\\slash", "ünï", "a\\"])
def test_a_path_with_blanks_and_quotes_stays_one_word_of_java(name: str, settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / name / "x.log"
    assert f"-Dtidemark.log={log}" in shlex.split(driver.java_options(settings, log))


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    monkeypatch.setattr(submit, "become", lambda *arguments: seen.extend(arguments))
    return seen


@pytest.mark.parametrize(
    "argv",
    [[], ["table"], ["state", "--dry-run"], ["tables", "--remove", "x"]],
)
def test_wrong_usage_of_maintain_is_code_2(argv: list[str], became: list[Any]) -> None:
    with pytest.raises(SystemExit) as ended:
        submit.run_in_spark("maintenance", argv)
    assert (ended.value.code, became) == (2, [])


@pytest.mark.parametrize("argv", [[], ["doctor"], ["rename", "ingest", "a"], ["doctor", "ingest", "--dry-run"]])
def test_wrong_usage_of_checkpoint_is_code_2(argv: list[str], became: list[Any]) -> None:
    with pytest.raises(SystemExit) as ended:
        submit.run_in_spark("checkpoint_doctor", argv)
    assert (ended.value.code, became) == (2, [])


def test_a_short_keep_an_unknown_job_and_a_secret_are_refused_before_spark_starts(became: list[Any]) -> None:
    with pytest.raises(TidemarkError, match="BAD_SETTING"):
        submit.run_in_spark("maintenance", ["tables", "--set", "maintenance.keep=1 day"])
    with pytest.raises(TidemarkError, match=r"UNKNOWN_JOB.*did you mean `ingest`"):
        submit.run_in_spark("checkpoint_doctor", ["doctor", "ingets"])
    with pytest.raises(TidemarkError, match="BAD_ARGUMENTS"):
        submit.run_in_spark("maintenance", ["state", "--set", "kafka.sasl_password=x"])
    assert became == []


def test_a_command_becomes_spark_submit_with_its_operation(became: list[Any], tmp_path: Path) -> None:
    options = ["tables", "--dry-run", "--tables", str(tmp_path)]
    submit.run_in_spark("maintenance", [*options, "--", "--master", "local[1]"])
    name, settings, spark_options, operation, words = became
    assert (name, spark_options, operation, words) == ("maintenance", ["--master", "local[1]"], "maintenance", options)
    assert settings.paths.tables == str(tmp_path)


def test_the_script_finds_the_module_of_each_operation() -> None:
    named = {command.operation for command in cli.COMMANDS.values() if command.operation}
    assert named == set(arguments.PARSERS)
    assert all(callable(import_module(f"jobs.operations.{name}.commands").main) for name in {*named, "replay"})
