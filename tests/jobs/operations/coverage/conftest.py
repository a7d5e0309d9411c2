"""What the tests of coverage share."""

from pathlib import Path

import pytest

from local.broker import Cluster
from tests.jobs.operations.coverage.holdings import Holdings


@pytest.fixture
def holdings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Holdings:
    """Tables of the test's own, and no broker."""
    return Holdings(tmp_path, "", capsys)


@pytest.fixture
def covered(tmp_path: Path, broker: Cluster, capsys: pytest.CaptureFixture[str]) -> Holdings:
    """Tables of the test's own, beside a broker."""
    return Holdings(tmp_path, broker.bootstrap_servers, capsys)
