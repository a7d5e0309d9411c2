"""The registry in a folder, beside what every registry does (tests/contracts/): no needless write, no silent edit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conf import ROOT
from conf.errors import TidemarkError
from schemas.registry import FileRegistry

RECORD = json.dumps({"type": "record", "name": "R", "fields": [{"name": "x", "type": "long"}]})


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "registry")


def test_registering_twice_gives_the_same_id_and_changes_no_file(registry: FileRegistry, tmp_path: Path) -> None:
    first = registry.register("a-value", RECORD)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "registry").iterdir()}
    assert registry.register("a-value", RECORD) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "registry").iterdir()} == before


def test_a_schema_edited_by_hand_is_noticed_and_its_file_named(registry: FileRegistry, tmp_path: Path) -> None:
    registry.register("a-value", RECORD)
    path = tmp_path / "registry" / "1.avsc"
    path.write_text(path.read_text().replace("long", "string"))
    for read in (lambda: registry.schema(1), lambda: registry.latest("a-value")):
        with pytest.raises(TidemarkError, match=r"REGISTRY_DAMAGED: .*1\.avsc was edited after .* id 1;"):
            read()


@pytest.mark.parametrize("text", ["", "{}", '[{"id": 1}]', "null"])
def test_a_broken_index_is_noticed(registry: FileRegistry, tmp_path: Path, text: str) -> None:
    registry.register("a-value", RECORD)
    (tmp_path / "registry" / "index.json").write_text(text)
    with pytest.raises(TidemarkError, match="REGISTRY_DAMAGED"):
        registry.schema(1)


def test_two_processes_that_register_at_once_lose_nothing(registry: FileRegistry, tmp_path: Path) -> None:
    program = """
import json, sys
from pathlib import Path
from schemas.registry import FileRegistry
registry = FileRegistry(Path(sys.argv[1]))
for number in range(30):
    text = json.dumps({"type": "record", "name": f"R{number}", "fields": []})
    print(registry.register(f"{sys.argv[2]}{number}-value", text))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "registry")]
    both = [subprocess.Popen([*command, who], stdout=subprocess.PIPE, text=True, cwd=ROOT) for who in "ab"]
    ids = [[int(line) for line in process.communicate(timeout=60)[0].split()] for process in both]
    assert ids[0] == ids[1]
    assert sorted(ids[0]) == list(range(1, 31))
    assert len(registry.subjects()) == 60


def test_subjects_by_type_in_place_of_the_topics_are_named_with_what_declares_them(registry: FileRegistry) -> None:
    with pytest.raises(TidemarkError, match=r"no subject `a-value` in .*; known: none"):
        registry.versions("a-value")
    for subject in ("a-x.R", "a-y.R", "a-b-value", "a-key"):
        registry.register(subject, RECORD)
    remedy = r"topic a has a subject for each type of event \(a-x.R, a-y.R\): declare these as its `schemas` in conf/"
    with pytest.raises(TidemarkError, match=remedy):
        registry.versions("a-value")
