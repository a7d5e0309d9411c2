"""Which jobs there are, and the question each answers, read from the files without importing them."""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from conf.errors import TidemarkError, nearest

FOLDER = Path(__file__).resolve().parent
OF_PACKAGE = "job"  # the file of a package that is a job by the package's name


class JobModule(Protocol):
    """A module under jobs/ that is a job."""

    @staticmethod
    def build(run: object) -> None:
        """Declare the job's outputs."""


@cache
def questions(folder: Path = FOLDER) -> dict[str, str]:
    """Return the first line of every job's docstring, by the job's name; read once."""
    return {name: question for name, (_, question) in _jobs(folder).items()}


@cache
def _jobs(folder: Path) -> dict[str, tuple[str, str]]:
    """Return the module and question of every job by its name:
    the path under jobs/ with dots, of `NAME/job.py` the folder's."""
    jobs = {}
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text()
        # Most files are no job, and need no parsing to tell.
        if "def build(" not in text:
            continue
        tree = ast.parse(text)
        if any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in tree.body):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == OF_PACKAGE else parts)
            jobs[name] = ".".join(("jobs", *parts)), (ast.get_docstring(tree) or "").partition("\n")[0]
    return jobs


def require(name: str) -> str:
    """Return `name`, where it is a job; UNKNOWN_JOB with the nearest name otherwise."""
    known = questions()
    if name not in known:
        raise TidemarkError("UNKNOWN_JOB", f"there is no job `{name}`", nearest(name, list(known)))
    return name


def load(name: str) -> JobModule:
    """Return the module of job `name`."""
    return cast(JobModule, import_module(_jobs(FOLDER)[require(name)][0]))
