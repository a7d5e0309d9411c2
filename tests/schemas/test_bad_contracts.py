"""The commands that meet a contract first say in one line what is wrong with it, before anything else is done."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conf import ROOT
from schemas.contracts import contract

PLANE: dict[str, Any] = json.loads(contract("plane"))
DASH = {**PLANE, "namespace": "srv-1.fleet"}
OFFSET = {**PLANE, "fields": [*PLANE["fields"], {"name": "_Offset", "type": "int", "default": 0}]}
MASKED = {**PLANE, "fields": [*PLANE["fields"], {"name": "age", "type": "int", "default": 0, "pii": "mask"}]}
BAD = [
    (
        DASH,
        "INVALID_SCHEMA: planes-value: not a valid Avro schema: schema: namespace `srv-1.fleet` of `Plane` is no Avro",
    ),
    (OFFSET, "BAD_SCHEMA: planes-value: field _Offset: silver has a column `_offset`"),
    (MASKED, "BAD_SCHEMA: planes-value: field age: only text can be masked"),
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the commands are made of, whose contracts a test may spoil."""
    for name in ("conf", "local", "schemas"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(checkout: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "local.cli", *argv]
    outer = {"PYTHONPATH": str(checkout), "TIDEMARK_STATE": str(checkout / "state"), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=checkout, env=outer, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("schema", "line"), BAD)
def test_check_and_register_refuse_a_bad_contract_in_one_line_and_a_mended_one_passes(
    schema: dict[str, Any], line: str, checkout: Path
) -> None:
    registry = checkout / "schemas" / "registry"
    path = checkout / "schemas" / "plane.avsc"
    before, kept = (registry / "index.json").read_text(), path.read_text()
    path.write_text(json.dumps(schema))
    checked = run(checkout, "schemas", "check")
    assert (checked.returncode, checked.stderr) == (1, "")
    told = [each for each in checked.stdout.splitlines() if ".avsc fits; " not in each]
    assert [each.startswith(line) for each in told] == [True]
    registered = run(checkout, "schemas", "register")
    assert registered.returncode == 1
    assert registered.stderr.count("\n") == 1
    assert registered.stderr.startswith(f"error: {line}")
    assert (registry / "index.json").read_text() == before
    path.write_text(kept)
    mended = [run(checkout, "schemas", command) for command in ("check", "register")]
    assert [(each.returncode, each.stderr) for each in mended] == [(0, "")] * 2
