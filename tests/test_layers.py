"""Tests of the layers: a module imports from its own layer and from those below it, and no import goes round."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("conf", "schemas", "jobs", "producers", "local")
# From the lowest. What producers and local import is up to them, and none of these imports either.
LAYERS = (
    "conf",
    "schemas",
    "jobs.connectors",
    "jobs.pipeline",
    "jobs.ingest",
    "jobs.flights",
    "jobs.auctions",
    "jobs.regions",
    "jobs.catalog",
    "jobs.arguments",
    "jobs.operations",
    "jobs.main",
)


def _modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


MODULES = dict(_modules())


def _imports(text: str, everywhere: bool = True) -> set[str]:
    """What of this project a module's text imports, as it is loaded or, `everywhere`, in its functions too."""
    tree, found = ast.parse(text), set[str]()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.partition(".")[0] in PACKAGES}


def _layer(module: str) -> int | None:
    return next((row for row, layer in enumerate(LAYERS) if _holds(layer, module)), None)


def _goes_up(importer: str, imported: str) -> bool:
    """Whether a module of a layer imports from one above its own, or from what belongs to none."""
    here, there = _layer(importer), _layer(imported)
    return here is not None and imported != "jobs" and (there is None or there > here)


def test_no_module_imports_from_a_layer_above_its_own() -> None:
    arrows = {
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        for imported in _imports(path.read_text()) & MODULES.keys()
        if _goes_up(module, imported)
    }
    assert arrows == set()


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("schemas.registry", "jobs.connectors.files"),
        ("jobs.connectors.hadoop_files", "jobs.pipeline.checkpoint"),
        ("jobs.pipeline.run", "jobs.operations.replay.plan"),
        ("jobs.connectors.files", "producers.files.rows"),
    ],
)
def test_an_arrow_up_is_seen(importer: str, imported: str) -> None:
    assert _goes_up(importer, imported)
    assert not _goes_up(imported, importer)


def test_no_import_goes_round() -> None:
    graph = {
        module: {name for name in _imports(path.read_text(), False) & MODULES.keys() if not _holds(name, module)}
        for module, path in MODULES.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def _holds(package: str, module: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def test_an_import_within_a_function_counts() -> None:
    text = "def late() -> None:\n    from jobs.pipeline import run\n"
    assert _imports(text) == {"jobs.pipeline", "jobs.pipeline.run"}
    assert _imports(text, everywhere=False) == set()
