"""Tables and checkpoints on a real S3 server: what `tests/object_store/stored.py` has, in a pytest process of its own.

The session that tests share has no S3A on its class path, and a process has one JVM.
"""

import os
import subprocess

import pytest

from conf import ROOT

STORED = "tests/object_store/stored.py"


def run(*options: str) -> None:
    command = [str(ROOT / "local" / "tidemark"), "test", STORED, "-n", "0", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert done.returncode == 0, f"{done.stdout[-10_000:]}\n{done.stderr[-3_000:]}"


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.timeout(700)
def test_jobs_run_on_an_object_store_and_a_killed_driver_loses_nothing() -> None:
    run()
