"""Notebooks of the project, read and executed."""

from pathlib import Path
from typing import Any

import nbformat
import psutil
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

from conf import ROOT
from tests.leaks.search import listening

NOTEBOOKS = ROOT / "notebooks"
CELL_SECONDS = 400


class Execution(NotebookClient):
    """A run of a notebook that keeps every picture which replaced another, in base64, and on which addresses the
    kernel and what it has started took connections when a cell began."""

    def __init__(self, notebook: NotebookNode, kernel: AsyncKernelManager, start_in: Path) -> None:
        super().__init__(notebook, km=kernel, timeout=CELL_SECONDS, resources={"metadata": {"path": str(start_in)}})
        self.owns_km = True  # so that the kernel, and its JVM, end with the run, though the manager is given
        self._kernel: Any = kernel
        self.replacements: list[str] = []
        self.addresses: set[tuple[str, int]] = set()

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """Called for everything that the kernel says."""
        if msg["msg_type"] == "update_display_data":
            self.replacements.append(msg["content"]["data"]["image/png"])
        if msg["msg_type"] == "execute_input":
            running = psutil.Process(self._kernel.provisioner.pid)
            self.addresses |= listening([running, *running.children(recursive=True)])
        return super().process_message(msg, cell, cell_index)


def read(path: Path) -> NotebookNode:
    """The notebook as it is in the checkout."""
    notebook: NotebookNode = nbformat.reads(path.read_text(), as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that a kernel executes."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cell: NotebookNode) -> list[str]:
    """The pictures among the outputs of `cell`, in base64."""
    return [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
