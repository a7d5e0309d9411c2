"""What the tests of the quarantine's commands share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from local.broker import Cluster
from tests.producers.quarantine.ward import Ward


@pytest.fixture
def ward(tmp_path: Path, broker: Cluster, new_topic: Callable[[int], str]) -> Ward:
    return Ward(tmp_path, broker.bootstrap_servers, new_topic(2))
