"""The Dockerfile and what lies beside it, as far as that shows without building it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conf import ROOT

FOLDER = ROOT / "deploy" / "image"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()


def test_the_linter_has_nothing_to_say() -> None:
    tool = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([tool, FOLDER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_is_copied_is_there_and_nothing_else_is_sent() -> None:
    sent = {line[1:] for line in IGNORED if line.startswith("!")}
    copied = {word for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()}
    assert IGNORED[1] == "*"
    assert all((ROOT / name).exists() for name in copied | sent)
    assert {name for name in copied if not any(f"{name}/".startswith(f"{each}/") for each in sent)} == set()


@pytest.mark.parametrize("name", ["entrypoint", "healthy"])
def test_its_scripts_are_shells_and_may_be_run(name: str) -> None:
    assert os.access(FOLDER / name, os.X_OK)
    subprocess.run(["bash", "-n", FOLDER / name], check=True)


def test_a_command_is_run_with_packages_and_jars_in_the_state_folder(tmp_path: Path) -> None:
    script = tmp_path / "entrypoint"
    text = (FOLDER / "entrypoint").read_text()
    script.write_text(
        text.replace("/srv/tidemark", str(tmp_path)).replace("/opt/tidemark", str(tmp_path / "installed"))
    )
    for part in ("venv", "jars"):
        (tmp_path / "installed" / part).mkdir(parents=True)
    state = tmp_path / "state"
    state.mkdir()
    for _ in range(2):  # a volume that is used again has the links
        command = ["bash", str(script), "echo", "a b", "c"]
        done = subprocess.run(
            command, env={"TIDEMARK_STATE": str(state), "PATH": os.environ["PATH"]}, capture_output=True
        )
        assert done.stdout == b"a b c\n", done.stderr
    assert {path.name: path.readlink() for path in state.iterdir()} == {
        part: tmp_path / "installed" / part for part in ("venv", "jars")
    }
