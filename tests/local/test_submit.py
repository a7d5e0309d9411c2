import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest

from conf import ROOT
from conf.settings import load
from jobs import catalog
from local import submit


def test_arguments_are_split_at_the_first_two_dashes() -> None:
    assert submit.split(["job", "--set", "a=b", "--", "--master", "x", "--"]) == (
        ["job", "--set", "a=b"],
        ["--master", "x", "--"],
    )
    assert submit.split(["job"]) == (["job"], [])


def test_the_users_options_come_after_ours_and_so_win(tmp_path: Path) -> None:
    settings = load(overrides=[f"paths.logs={tmp_path}", "spark.master=local[1]"])

    built = submit.command("ingest", settings, ["--master", "spark://127.0.0.1:7077"])

    masters = [value for option, value in pairwise(built) if option == "--master"]
    assert masters == ["local[1]", "spark://127.0.0.1:7077"]
    assert built[-1] == str(ROOT / "jobs" / "main.py")


def test_no_secret_stands_on_the_command_line(tmp_path: Path) -> None:
    sasl = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "me",
        "sasl_password": "hush-hush",
    }
    secret = [f"kafka.{name}={value}" for name, value in sasl.items()]

    built = submit.command("ingest", load(overrides=[f"paths.logs={tmp_path}", *secret]), [])

    assert "hush-hush" not in " ".join(built)


def test_equal_sources_give_equal_archives_that_can_be_imported_from(tmp_path: Path) -> None:
    first = submit.zipped_packages(tmp_path / "a").read_bytes()
    archive = submit.zipped_packages(tmp_path / "b")

    assert archive.read_bytes() == first
    with zipfile.ZipFile(archive) as opened:
        assert "jobs/flights/arrivals_board.py" in opened.namelist()
    script = "import jobs.flights.arrivals_board as it; print(it.__file__)"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env={"PYTHONPATH": str(archive)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.startswith(str(archive))


def test_the_listing_has_every_job_with_its_question() -> None:
    listed = submit.listing()

    assert len(catalog.questions()) >= 9
    for name, question in catalog.questions().items():
        assert question.endswith("?") or question.endswith("reason."), name
        assert f"{name} " in listed and question in listed


@pytest.mark.parametrize("folder", ["elsewhere", "with a space"])
def test_it_works_from_any_folder(tmp_path: Path, folder: str) -> None:
    here = tmp_path / folder
    here.mkdir()

    ran = subprocess.run([ROOT / "spark-submit.sh"], cwd=here, capture_output=True, text=True, check=True)

    assert "flights.hourly_delays" in ran.stdout


def test_an_unknown_job_is_one_line_with_the_nearest_name() -> None:
    ran = subprocess.run(
        [ROOT / "spark-submit.sh", "flights.hourly_delay"], capture_output=True, text=True, check=False
    )

    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "error: UNKNOWN_JOB: there is no job `flights.hourly_delay`; did you mean `flights.hourly_delays`?"
    ]
