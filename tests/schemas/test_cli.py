"""The registry's commands."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from conf import ROOT
from conf.errors import TidemarkError
from conf.topics import load_topics
from schemas.cli import main
from schemas.contracts import contract
from schemas.registry import FileRegistry

HOOKS = (ROOT / ".pre-commit-config.yaml").read_text()


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
    topics = [topic for topic in load_topics().values() if topic.streams]
    numbers = {schema: str(number) for number, schema in enumerate(dict.fromkeys(t.schema for t in topics), start=1)}
    expected = [[numbers[topic.schema], topic.subject, "1"] for topic in topics]
    assert listed == sorted(expected, key=lambda row: (int(row[0]), row[1]))


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


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A file store in which a departure's flight was once a text, and it had a gate; then as it is now."""
    text = contract("departure")
    before = json.loads(text)
    flight = next(field for field in before["fields"] if field["name"] == "flight")
    flight["type"] = "string"
    before["fields"].append({"name": "gate", "type": "string"})
    registry = FileRegistry(tmp_path / "earlier")
    registry.register("departures-value", json.dumps(before))
    registry.register("departures-value", text)
    return tmp_path / "earlier"


def test_check_finds_the_committed_contracts_fit_their_committed_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        topic.subject for topic in load_topics().values() if topic.streams
    ]


def test_check_names_subject_version_field_reader_and_remedy_of_each_break(
    earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--against", str(earlier), "--level", "full_transitive"]) == 1
    broken = [line for line in capsys.readouterr().out.splitlines() if line.startswith("departures-value")]
    assert broken == [
        "departures-value version 1: flight: the new schema cannot read data of version 1: it reads int where string "
        "was written; keep string, or give the changed field a name of its own",
        "departures-value version 1: flight: version 1 cannot read data of the new schema: it reads string where int "
        "was written; keep string, or give the changed field a name of its own",
        "departures-value version 1: gate: version 1 cannot read data of the new schema: it needs this field, which "
        "was not written; keep writing the field: its readers have no default",
    ]


def test_check_compares_under_the_level_of_the_settings(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(earlier, "check") == 1
    assert "gate" not in capsys.readouterr().out
    assert run(earlier, "--set", "registry.compatibility=none", "check") == 0


def test_register_refuses_what_check_finds(tmp_path: Path) -> None:
    registry = FileRegistry(tmp_path)
    registry.register("planes-value", json.dumps({"type": "record", "name": "Plane", "fields": []}))
    with pytest.raises(TidemarkError, match=r"INCOMPATIBLE_SCHEMA: planes-value version 1: tail_number: .*default"):
        run(tmp_path, "register")
    assert len(registry.versions("planes-value")) == 1


def test_the_pre_commit_hook_passes_here_and_fails_on_a_break(earlier: Path) -> None:
    [entry] = re.findall(r"entry: (.*)", HOOKS)
    for path, code in ((ROOT / "schemas" / "registry", 0), (earlier, 1)):
        environment = os.environ | {"TIDEMARK_REGISTRY__PATH": str(path)}
        done = subprocess.run(entry.split(), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (code, "")
        assert ("departures-value version 1: flight: " in done.stdout) == (code == 1)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("schemas/departure.avsc", True),
        ("schemas/registry/index.json", True),
        ("conf/topics.toml", True),
        ("schemas/cli.py", False),
    ],
)
def test_the_pre_commit_hook_runs_for_what_can_break_a_contract(path: str, wanted: bool) -> None:
    [pattern] = re.findall(r"files: (.*)", HOOKS)
    assert bool(re.search(pattern, path)) == wanted


@pytest.mark.parametrize("folder", ["none", "."])
def test_check_against_a_folder_that_holds_no_registry_says_so(folder: str, tmp_path: Path) -> None:
    with pytest.raises(TidemarkError, match=r"NO_REGISTRY: there is no registry in .* it lacks index[.]json"):
        run(tmp_path, "check", "--against", str(tmp_path / folder))
