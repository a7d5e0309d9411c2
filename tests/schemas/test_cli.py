"""The registry's commands."""

from pathlib import Path

import pytest

from conf.errors import TidemarkError
from conf.topics import load_topics
from schemas.cli import main
from schemas.contracts import contract


def run(path: Path, *argv: str) -> int:
    return main(["--set", f"registry.path={path}", *argv])


def test_register_is_idempotent_and_numbers_topics_as_declared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "register") == 0
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert run(tmp_path, "register") == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files
    capsys.readouterr()
    assert run(tmp_path, "list") == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    expected = [[str(number), topic.subject, "1"] for number, topic in enumerate(load_topics().values(), start=1)]
    assert listed == expected


def test_show_prints_a_subject_or_an_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "register")
    for wanted in ("planes-value", "5"):
        capsys.readouterr()
        assert run(tmp_path, "show", wanted) == 0
        assert capsys.readouterr().out.strip() == contract("plane").strip()
    with pytest.raises(TidemarkError, match="UNKNOWN_SUBJECT"):
        run(tmp_path, "show", "plane-value")


def test_without_a_command_the_usage_is_shown() -> None:
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
