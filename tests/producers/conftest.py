"""What the producers' tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from local.broker import Cluster
from tests.producers.desk import Desk


@pytest.fixture
def desk(tmp_path: Path, broker: Cluster, new_topic: Callable[[int], str]) -> Desk:
    return Desk(tmp_path, broker.bootstrap_servers, new_topic(1))
