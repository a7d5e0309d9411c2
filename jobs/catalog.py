"""Which jobs there are, and the question each answers, read from the files without importing them."""

import ast
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from conf.errors import TidemarkError, nearest

FOLDER = Path(__file__).resolve().parent


class JobModule(Protocol):
    """What makes a file under jobs/ a job."""

    @staticmethod
    def build(run: object) -> None:
        """Declare the job's outputs."""


def questions(folder: Path = FOLDER) -> dict[str, str]:
    """The first line of every job's docstring, by the job's name: its path under jobs/ with dots."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        if any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in tree.body):
            name = ".".join(path.relative_to(folder).with_suffix("").parts)
            found[name] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def require(name: str) -> str:
    """`name`, where it is a job; UNKNOWN_JOB with the nearest name otherwise."""
    known = questions()
    if name not in known:
        raise TidemarkError("UNKNOWN_JOB", f"there is no job `{name}`", nearest(name, list(known)))
    return name


def load(name: str) -> JobModule:
    """The module of job `name`."""
    return cast(JobModule, import_module(f"jobs.{require(name)}"))
