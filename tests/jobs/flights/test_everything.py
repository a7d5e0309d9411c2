"""everything: all jobs of the domain in one application."""

from jobs import catalog
from jobs.flights import everything


def test_it_holds_ingest_and_every_job_on_flights() -> None:
    flights = {job for job in catalog.questions() if job.startswith("flights.")}
    assert set(everything.JOBS) == flights - {"flights.everything"} | {"ingest"}


def test_every_job_is_named_as_its_module() -> None:
    for job, build in everything.JOBS.items():
        assert build.__module__ == f"jobs.{job}"
