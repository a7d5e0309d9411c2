"""Commands that become spark-submit: what they refuse before any JVM starts, and what they become."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from conf.errors import TidemarkError
from jobs import arguments
from local import cli, operations, submit


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
        operations.run_in_spark("maintenance", argv)
    assert (ended.value.code, became) == (2, [])


@pytest.mark.parametrize("argv", [[], ["doctor"], ["rename", "ingest", "a"], ["doctor", "ingest", "--dry-run"]])
def test_wrong_usage_of_checkpoint_is_code_2(argv: list[str], became: list[Any]) -> None:
    with pytest.raises(SystemExit) as ended:
        operations.run_in_spark("checkpoint_doctor", argv)
    assert (ended.value.code, became) == (2, [])


def test_a_short_keep_an_unknown_job_and_a_secret_are_refused_before_spark_starts(became: list[Any]) -> None:
    with pytest.raises(TidemarkError, match="BAD_SETTING"):
        operations.run_in_spark("maintenance", ["tables", "--set", "maintenance.keep=1 day"])
    with pytest.raises(TidemarkError, match=r"UNKNOWN_JOB.*did you mean `ingest`"):
        operations.run_in_spark("checkpoint_doctor", ["doctor", "ingets"])
    with pytest.raises(TidemarkError, match="BAD_ARGUMENTS"):
        operations.run_in_spark("maintenance", ["state", "--set", "kafka.sasl_password=x"])
    assert became == []


def test_a_command_becomes_spark_submit_with_its_operation(became: list[Any], tmp_path: Path) -> None:
    options = ["tables", "--dry-run", "--tables", str(tmp_path)]
    operations.run_in_spark("maintenance", [*options, "--", "--master", "local[1]"])
    name, settings, spark_options, operation, words = became
    assert (name, spark_options, operation, words) == ("maintenance", ["--master", "local[1]"], "maintenance", options)
    assert settings.paths.tables == str(tmp_path)


def test_the_script_finds_the_module_of_each_operation() -> None:
    named = {command.operation for command in cli.COMMANDS.values() if command.operation}
    assert named == set(arguments.PARSERS)
    assert all(callable(import_module(f"jobs.operations.{name}.commands").main) for name in {*named, "replay"})
