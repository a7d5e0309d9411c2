"""What README says is done as it says."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from conf import ROOT, state_dir

README = (ROOT / "README.md").read_text()
FENCE = re.compile(
    r"(?:<!-- (?P<kind>file|snippet): (?P<where>.+?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL
)


def section(title: str) -> str:
    """The text below one heading."""
    return README.split(f"## {title}", 1)[1].split("\n## ", 1)[0]


def test_quick_start_opens_with_exactly_two_commands() -> None:
    first = next(FENCE.finditer(section("Quick start")))

    assert first["language"] == "bash"
    assert first["text"].splitlines() == ["local/tidemark demo", "local/tidemark test"]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_link_leads_to_a_file(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("folder", sorted(set(re.findall(r"^\| `(\w+)/`", README, re.MULTILINE))))
def test_folder_named_in_the_table_exists(folder: str) -> None:
    assert (ROOT / folder).is_dir()


def test_quoted_code_stands_in_the_file_it_is_quoted_from() -> None:
    quoted = [match for match in FENCE.finditer(README) if match["kind"] == "snippet"]

    assert quoted
    for match in quoted:
        assert match["text"] in (ROOT / match["where"].split()[0]).read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A copy of this checkout with a state folder of its own, jars there already."""
    copy = tmp_path / "tidemark"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    for file in filter(lambda name: (ROOT / name).is_file(), files):
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, copy / file)
    shutil.copytree(state_dir() / "jars", copy / ".tidemark" / "jars")
    yield copy
    run(copy, "local/tidemark broker stop")


def run(checkout: Path, script: str) -> str:
    """What `script` prints on stdout; it must succeed."""
    outer = {
        name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_") and name != "PYTHONPATH"
    }
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=checkout, env=outer, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_answers_every_record_is_accounted_for_and_the_past_can_be_run_again(checkout: Path) -> None:
    shown = run(checkout, "local/tidemark demo --to 2013-01-08")

    accounts = shown.split("is every record accounted for?")[1]
    departures = next(line.split() for line in accounts.splitlines() if line.split()[:1] == ["departures"])
    assert departures == ["departures", "6,064", "6,064", "6,064", "0"]
    for question in ("which carriers leave late?", "does the weather explain it?", "who should have been alerted?"):
        assert question in shown

    assert "there already: 6,064 departures" in run(checkout, "local/tidemark demo --to 2013-01-08")

    (past,) = (match["text"] for match in FENCE.finditer(section("The past again, and the proof")))
    shown = run(checkout, past)
    assert "all well" in shown
    assert "hourly_delays                is as the replay has it: nothing to change" in shown


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bringing_your_own_topic_works_as_written(checkout: Path) -> None:
    for match in FENCE.finditer(section("Bring your own topic, in ten minutes")):
        if match["kind"] == "file":
            target = checkout / match["where"]
            target.parent.mkdir(parents=True, exist_ok=True)
            (target.parent / "__init__.py").touch()
            target.write_text(match["text"])
        elif match["language"] == "bash":
            run(checkout, match["text"])

    tables = checkout / ".tidemark" / "tables"
    readings = (
        DeltaTable(str(tables / "silver" / "sensors")).to_pyarrow_table(columns=["sensor", "celsius"]).to_pylist()
    )
    assert {(row["sensor"], row["celsius"]) for row in readings} == {
        *(("s-1", celsius) for celsius in (18.25, 18.75, 19.0, 19.5)),
        *(("s-2", celsius) for celsius in (21.5, 22.25)),
        *(("s-3", celsius) for celsius in (None, 9.5)),
    }
    hours = DeltaTable(str(tables / "warmth")).to_pyarrow_table(columns=["site", "mean_celsius"]).to_pylist()
    assert sorted((row["site"], row["mean_celsius"]) for row in hours if row["site"] == "attic") == [
        ("attic", 18.5),
        ("attic", 19.0),
        ("attic", 19.5),
    ]
    [rejects] = (checkout / ".tidemark" / "rejects").glob("sensors-*.jsonl")
    assert '"line": 3' in rejects.read_text()
