"""What README and docs say is done as they say."""

import ast
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation, ResourceType
from deltalake import DeltaTable

from conf import ROOT, state_dir
from jobs import arguments
from local import cli
from tests.jvm import OPTIONS
from tests.secured import LOGIN, SecuredCluster

README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
FENCE = re.compile(
    r"(?:<!-- (?P<kind>file|snippet): (?P<where>.+?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL
)

COMMAND = re.compile(r"(local/tidemark|\./spark-submit\.sh) ([^`\"'#|\n…]+)")
DEMO = "local/tidemark demo --to 2013-01-08"
# They become another program, which has arguments of its own.
NOT_OURS = {"test", "notebook", "kafka"}


def section(title: str, page: str = README) -> str:
    """The text of `page` below one heading."""
    return page.split(f"## {title}", 1)[1].split("\n## ", 1)[0]


def test_quick_start_opens_with_exactly_two_commands() -> None:
    first = next(FENCE.finditer(section("Quick start")))

    assert first["language"] == "bash"
    assert first["text"].splitlines() == ["local/tidemark demo", "local/tidemark test"]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_link_leads_to_a_file(link: str) -> None:
    assert (ROOT / link).exists()


FOLDERS = set(re.findall(r"^\| `([\w/]+)/`", README, re.MULTILINE))


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_folder_named_in_the_table_exists(folder: str) -> None:
    assert (ROOT / folder).is_dir()


def test_every_folder_of_jobs_is_named_in_the_table() -> None:
    assert {f"jobs/{init.parent.name}" for init in (ROOT / "jobs").glob("*/__init__.py")} <= FOLDERS


def test_every_page_is_in_the_index() -> None:
    index = set(re.findall(r"\]\((\w[\w-]*\.md)", PAGES["README.md"]))
    assert set(PAGES) - {"README.md"} == index


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_page_begins_with_what_it_is_for(page: str) -> None:
    title, first, *_ = PAGES[page].split("\n\n", 2)
    assert title.startswith("# ")
    assert first.startswith("This page ")


def commands(script: str) -> list[str]:
    """What stands behind `script`, on any page, without what it passes on to spark-submit."""
    found = (match for page in (README, *PAGES.values()) for match in COMMAND.finditer(page) if match[1] == script)
    return sorted({re.split(" -- | && |; ", match[2])[0].strip() for match in found})


@pytest.mark.parametrize("command", [one for one in commands("local/tidemark") if one.split()[0] not in NOT_OURS])
def test_command_of_a_page_has_the_arguments_that_it_is_given(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = command.split()
    options = [word for word in words if word.startswith("--")]
    begin = words[: words.index(options[0])] if options else words
    try:
        cli.main([*begin, "--help"])
    except SystemExit as exc:
        assert exc.code == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert [option for option in options if option not in shown] == []


def test_options_of_jobs_on_a_page_are_those_of_jobs() -> None:
    shown = arguments.job_parser().format_help()
    used = {word for command in commands("./spark-submit.sh") for word in re.findall("--[a-z-]+", command)}
    assert used
    assert {option for option in used if option not in shown} == set()


def test_every_dependency_is_named_with_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(one for group in project["optional-dependencies"].values() for one in group),
    ]
    rows = [line.split("|") for line in PAGES["dependencies.md"].splitlines() if line.startswith("| ")]
    named = " ".join(row[1] for row in rows if row[2].strip())
    assert {name for name in (re.split(r"[\[=<>~!; ]", one)[0] for one in declared) if name not in named} == set()


def test_quoted_code_stands_in_the_file_it_is_quoted_from() -> None:
    quoted = [match for page in PAGES.values() for match in FENCE.finditer(page) if match["kind"] == "snippet"]

    assert quoted
    for match in quoted:
        assert match["text"] in (ROOT / match["where"].split()[0]).read_text()


def test_what_a_page_imports_is_there() -> None:
    fences = [match for page in PAGES.values() for match in FENCE.finditer(page) if match["language"] == "python"]
    imports = [
        node for match in fences for node in ast.walk(ast.parse(match["text"])) if isinstance(node, ast.ImportFrom)
    ]
    assert imports
    for node in imports:
        module = import_module(str(node.module))
        assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of this checkout with a state folder of its own, jars there already: its first command installs, once."""
    copy = tmp_path_factory.mktemp("readme") / "tidemark"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    for file in filter(lambda name: (ROOT / name).is_file(), files):
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, copy / file)
    shutil.copytree(state_dir() / "jars", copy / ".tidemark" / "jars")
    yield copy
    run(copy, "local/tidemark broker stop")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_cluster_with_tls_and_acls_is_used_as_written(checkout: Path, tmp_path: Path) -> None:
    log_in, grant, use = (m["text"] for m in FENCE.finditer(section("Your own cluster")) if m["language"] == "bash")
    with SecuredCluster(tmp_path / "broker") as brokers:
        for user in ("admin", "tidemark"):
            brokers.set_password(f"password of {user}", user)
            (tmp_path / user).write_text(f"password of {user}\n")
        brokers.allow(ResourceType.BROKER, "kafka-cluster", AclOperation.DESCRIBE, AclOperation.ALTER, user="admin")

        # The tables of the checkout are those of another broker's topics.
        folders = [f"TIDEMARK_PATHS__{name.upper()}={tmp_path}/{name}" for name in ("tables", "checkpoints")]
        places = f"export {' '.join(folders)}\n"

        def as_user(user: str, script: str) -> str:
            there = {"kafka.example:9093": brokers.address(LOGIN), "/etc/ssl/kafka-ca.pem": str(brokers.ca)}
            there |= {"/run/secrets/kafka-password": str(tmp_path / user), "USERNAME=tidemark": f"USERNAME={user}"}
            own = log_in
            for written, meant in there.items():
                assert own.count(written) == 1
                own = own.replace(written, meant)
            return run(checkout, own + places + script)

        assert "added: " in as_user("admin", grant)
        assert "all well" in as_user("tidemark", use)
    hours = DeltaTable(str(tmp_path / "tables" / "hourly_delays")).to_pyarrow_table()
    assert sum(hours["departures"].to_pylist()) == 6064


def run(checkout: Path, script: str) -> str:
    """What `script` prints on stdout; it must succeed."""
    outer = {
        name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_") and name != "PYTHONPATH"
    }
    outer["TIDEMARK_SPARK__DRIVER_JAVA_OPTIONS"] = OPTIONS
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=checkout, env=outer, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_answers_and_every_record_is_accounted_for(checkout: Path) -> None:
    require_answers(run(checkout, DEMO))


@pytest.mark.exhaustive
@pytest.mark.timeout(1500)
def test_what_the_demo_left_can_be_checked_and_run_again(checkout: Path) -> None:
    require_answers(run(checkout, DEMO))
    (past,) = (match["text"] for match in FENCE.finditer(section("How to see it for yourself", PAGES["guarantees.md"])))
    shown = run(checkout, past)
    assert "all well" in shown
    assert "hourly_delays                is as the replay has it: nothing to change" in shown


def require_answers(shown: str) -> None:
    accounts = shown.split("is every record accounted for?")[1]
    departures = next(line.split() for line in accounts.splitlines() if line.split()[:1] == ["departures"])
    assert departures == ["departures", "6,064", "6,064", "6,064", "0"]
    for question in ("which carriers leave late?", "does the weather explain it?", "who should have been alerted?"):
        assert question in shown


@pytest.mark.slow
@pytest.mark.timeout(1500)
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
