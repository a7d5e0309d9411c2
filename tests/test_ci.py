"""The stages of .ci/run: what fails does not hide what comes after it, and the table at the end says all of it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from conf import ROOT

JUNIT = """<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="2" tests="9" time="1">
<testcase classname="tests.test_x" name="test_y"><properties><property name="again" value="REPEAT"/></properties>
</testcase></testsuite></testsuites>"""


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, with a folder of its own for results."""
    spec = importlib.util.spec_from_file_location("stages", ROOT / ".ci" / "stages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "stages", module)  # where dataclasses look for it
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return module


def rows(text: str) -> dict[str, list[str]]:
    """The lines of the table: name -> minutes and counts."""
    lines = [line.rsplit(maxsplit=4) for line in text[text.index("\nstage ") :].splitlines()]
    return {line[0]: line[1:] for line in lines if len(line) == 5}


def test_a_stage_that_fails_does_not_keep_the_others_from_running(
    stages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [tmp_path / name for name in ("same stage", "same lane", "other lane", "next step")]
    bad = stages.Stage("bad", (("false",), ("touch", str(made[0]))))
    one, two, three = (stages.Stage(f"good{number}", (("touch", str(path)),)) for number, path in enumerate(made[1:]))
    monkeypatch.setattr(stages, "STEPS", (((bad, one), (two,)), ((three,),)))
    assert stages.main([]) == 1
    assert [path.exists() for path in made] == [True] * 4
    assert list(rows(capsys.readouterr().out)) == ["stage", "bad: FAILED", "good0", "good1", "good2", "total"]


def test_cases_are_counted_and_what_failed_can_be_repeated(
    stages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    write = ("sh", "-c", f"echo told; echo '{JUNIT}' >{results}/checked.xml; exit 1")
    checked, lost = stages.Stage("checked", (write,), tests=True), stages.Stage("lost", (("true",),), tests=True)
    monkeypatch.setattr(stages, "STEPS", (((checked,),), ((lost,),)))
    assert stages.main(["checked", "lost"]) == 1
    out = capsys.readouterr().out
    assert rows(out)["checked: FAILED"][1:] == ["5", "2", "2"]
    assert rows(out)["lost: FAILED"][1:] == ["-", "-", "-"]  # it left no JUnit file
    assert rows(out)["total"][1:] == ["5", "2", "2"]
    assert out.splitlines()[-1] == "REPEAT"
    assert (results / "checked.log").read_text() == "told\n"


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("false", 1)])
def test_a_few_failed_cases_are_run_once_more_alone_and_the_table_says_so(
    command: str,
    code: int,
    stages: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    junit = JUNIT.replace('errors="1" ', 'errors="0" ').replace("REPEAT", command)
    write = ("sh", "-c", f"echo '{junit}' >{tmp_path}/results/checked.xml; exit 1")
    monkeypatch.setattr(stages, "STEPS", (((stages.Stage("checked", (write,), tests=True),),),))
    assert stages.main([]) == code
    name = "checked: FAILED" if code else "checked: 1 passed when run alone"
    out = capsys.readouterr().out
    assert rows(out)[name][1:] == ["6", "1", "2"]
    assert f"=== checked runs alone: {command}" in out
    monkeypatch.setattr(stages, "MOST_REPEATED", 0)
    assert stages.main([]) == 1


def test_what_ci_runs_draws_the_same_each_time_and_exhaustive_draws_anew(
    stages: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show = (("sh", "-c", "echo seed ${TIDEMARK_SEED-none}"),)
    monkeypatch.delenv("TIDEMARK_SEED", raising=False)
    stages.RESULTS.mkdir()
    anew = next(stage for stage in stages.NAMED if stage.name == "exhaustive")
    stages.run(stages.Stage("fixed", show))
    stages.run(stages.Stage("anew", show, variables=anew.variables))
    monkeypatch.setenv("TIDEMARK_SEED", "7")
    stages.run(stages.Stage("told", show))
    said = [line for line in capsys.readouterr().out.splitlines() if "seed" in line]
    assert said == [f"fixed   | seed {stages.SEED['TIDEMARK_SEED']}", "anew    | seed none", "told    | seed 7"]


def test_all_well_is_exit_code_0_and_what_is_not_there_is_named(
    stages: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, absent = stages.Stage("good", (("true",),)), stages.Stage("absent", (("/nowhere/ruff",), ("true",)))
    monkeypatch.setattr(stages, "STEPS", (((good, absent),),))
    assert stages.main(["good"]) == 0
    assert stages.main(["absent"]) == 1
    assert stages.main(["god"]) == 2
    out, err = capsys.readouterr()
    assert "error: [Errno 2] No such file or directory: '/nowhere/ruff'; run all stages, or `setup` first" in out
    assert "there is no stage god; there are good, absent, exhaustive" in err


FAILING = """
def test_it(tmp_path):
    (tmp_path / "job.log").write_text("why")
    assert False
"""


def test_a_failed_test_says_how_to_repeat_it_and_its_logs_are_kept(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(FAILING)
    own = ["-c", os.devnull, "--rootdir", str(tmp_path), "-p", "tests.again", "-p", "no:cacheprovider"]
    kept = [f"--basetemp={tmp_path / 'temporary'}", f"--keep-logs={tmp_path / 'kept'}", f"--junit-xml={tmp_path / 'x'}"]
    command = [sys.executable, "-P", "-m", "pytest", *own, *kept, "test_one.py"]
    environment = os.environ | {"TIDEMARK_SEED": "7", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    [log] = (tmp_path / "kept").rglob("job.log")
    assert (ran.returncode, log.read_text()) == (1, "why"), ran.stdout + ran.stderr
    assert "TIDEMARK_SEED=7 local/tidemark test test_one.py::test_it" in (tmp_path / "x").read_text()
    assert f"log: {log}" in ran.stdout
