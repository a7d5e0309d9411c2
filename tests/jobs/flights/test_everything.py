"""everything: all jobs of the domain in one application."""

from importlib import import_module

from conf import ROOT
from jobs import catalog
from jobs.flights import everything


def test_it_holds_ingest_and_every_job_on_flights() -> None:
    flights = {job for job in catalog.questions() if job.startswith("flights.")}
    assert set(everything.JOBS) == flights - {"flights.everything"} | {"ingest"}


def test_every_job_is_named_as_its_module() -> None:
    for job, build in everything.JOBS.items():
        assert build.__module__ in (f"jobs.{job}", f"jobs.{job}.job")


def test_the_documentation_tells_every_jobs_question_and_lateness() -> None:
    rows = [line for line in (ROOT / "docs" / "jobs.md").read_text().splitlines() if line.startswith("| `flights.")]
    told = {cells[1].strip(" `"): (cells[2].strip(), cells[6].strip()) for cells in (row.split("|") for row in rows)}
    questions = catalog.questions()
    jobs = [job for job in everything.JOBS if job != "ingest"]
    modules = {job: import_module(f"jobs.{job}") for job in jobs}
    assert told == {job: (questions[job], getattr(modules[job], "LATENESS", "none")) for job in jobs}
