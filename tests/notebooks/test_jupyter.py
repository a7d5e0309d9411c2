"""JupyterLab as `local/tidemark notebook` starts it."""

import subprocess
from pathlib import Path

import psutil
import pytest

from conf import ROOT
from local.processes import end_group, wait_for
from tests.leaks.search import LOOPBACK, listening
from tests.standalone import free_port


@pytest.mark.exhaustive
@pytest.mark.notebook
def test_it_listens_on_loopback_alone(tmp_path: Path) -> None:
    port, printed = free_port(), tmp_path / "output"
    command = [str(ROOT / "local" / "tidemark"), "notebook", "--no-browser", f"--port={port}"]
    with printed.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, text=True, process_group=0)
        try:

            def addresses() -> set[tuple[str, int]]:
                assert process.poll() is None, printed.read_text()
                own = psutil.Process(process.pid)
                return listening([own, *own.children(recursive=True)])

            wait_for(lambda: port in {at for _, at in addresses()}, 120, lambda: AssertionError(printed.read_text()))
            assert {address for address, _ in addresses()} <= LOOPBACK
        finally:
            end_group(process)
