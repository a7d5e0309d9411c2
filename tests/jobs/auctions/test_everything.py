"""everything: all jobs of the domain in one application, and what the documentation says of them."""

import re
from importlib import import_module

from conf import ROOT
from jobs import catalog
from jobs.auctions import everything


def test_it_holds_every_job_on_auctions() -> None:
    auctions = {job for job in catalog.questions() if job.startswith("auctions.")}
    assert set(everything.JOBS) == auctions - {"auctions.everything"}


def test_every_job_is_named_as_its_module_and_says_which_query_it_is() -> None:
    numbers = []
    for job, build in everything.JOBS.items():
        assert build.__module__ == f"jobs.{job}"
        text = " ".join((import_module(build.__module__).__doc__ or "").split())
        numbers += [int(number) for number in re.findall(r"Nexmark's query (\d+)", text)]
    assert sorted(numbers) == list(range(23))


def test_the_documentation_tells_every_jobs_question_and_lateness() -> None:
    rows = [
        line for line in (ROOT / "docs" / "auctions.md").read_text().splitlines() if line.startswith("| `auctions.")
    ]
    told = {cells[1].strip(" `"): (cells[3].strip(), cells[6].strip()) for cells in (row.split("|") for row in rows)}
    questions = catalog.questions()
    modules = {job: import_module(f"jobs.{job}") for job in everything.JOBS}
    assert told == {job: (questions[job], getattr(module, "LATENESS", "none")) for job, module in modules.items()}
