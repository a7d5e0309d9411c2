"""Commands that become spark-submit: what they refuse before any JVM starts, and what they become."""

from pathlib import Path
from typing import Any

import pytest

from conf import ROOT
from conf.errors import TidemarkError
from local import operations, submit


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
        operations.maintain(argv)
    assert (ended.value.code, became) == (2, [])


@pytest.mark.parametrize("argv", [[], ["doctor"], ["rename", "ingest", "a"], ["doctor", "ingest", "--dry-run"]])
def test_wrong_usage_of_checkpoint_is_code_2(argv: list[str], became: list[Any]) -> None:
    with pytest.raises(SystemExit) as ended:
        operations.checkpoint(argv)
    assert (ended.value.code, became) == (2, [])


def test_a_short_keep_an_unknown_job_and_a_secret_are_refused_before_spark_starts(became: list[Any]) -> None:
    with pytest.raises(TidemarkError, match="BAD_SETTING"):
        operations.maintain(["tables", "--set", "maintenance.keep=1 day"])
    with pytest.raises(TidemarkError, match=r"UNKNOWN_JOB.*did you mean `ingest`"):
        operations.checkpoint(["doctor", "ingets"])
    with pytest.raises(TidemarkError, match="BAD_ARGUMENTS"):
        operations.maintain(["state", "--set", "kafka.sasl_password=x"])
    assert became == []


def test_a_command_becomes_spark_submit_with_its_script(became: list[Any], tmp_path: Path) -> None:
    options = ["tables", "--dry-run", "--tables", str(tmp_path)]
    operations.maintain([*options, "--", "--master", "local[1]"])
    name, settings, spark_options, script, own = became
    assert (name, spark_options, own) == ("maintenance", ["--master", "local[1]"], options)
    assert settings.paths.tables == str(tmp_path)
    assert script == ROOT / "jobs" / "maintenance" / "main.py"
    assert script.exists()
