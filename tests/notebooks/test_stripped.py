"""What lies in git: notebooks without outputs, and without transforms of their own."""

import ast
from pathlib import Path

import pytest

from tests.notebooks.execution import NOTEBOOKS, code_cells, read

PATHS = sorted(NOTEBOOKS.rglob("*.ipynb"))
CLEAR = "clear it in JupyterLab (Edit, Clear Outputs of All Cells) and save"
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS / "flights.ipynb" in PATHS


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_no_outputs_are_kept(path: Path) -> None:
    kept = [cell.id for cell in code_cells(read(path)) if cell.outputs or cell.execution_count is not None]
    assert kept == [], CLEAR


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_cells_keep_no_traces_of_a_run(path: Path) -> None:
    traces = {cell.id: dict(cell.metadata) for cell in read(path).cells if cell.metadata}
    assert traces == {}, CLEAR


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_notebooks_import_what_they_use_and_define_nothing(path: Path) -> None:
    nodes = [node for cell in code_cells(read(path)) for node in ast.walk(ast.parse(cell.source))]
    defined = [ast.unparse(node) for node in nodes if isinstance(node, DEFINITIONS)]
    assert defined == []
