"""What the fault suite shares: one broker, scenes on it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.broker import Cluster
from tests.faults.scene import Scene

SceneOf = Callable[..., Scene]


@pytest.fixture
def scene(broker: Cluster, tmp_path: Path) -> Iterator[SceneOf]:
    """Makes scenes on the one-node broker; ends what still runs in them."""
    made: list[Scene] = []

    def make(cluster: Cluster = broker, **how: Any) -> Scene:
        made.append(Scene(cluster, tmp_path / f"scene-{len(made)}", **how))
        return made[-1]

    yield make
    for each in made:
        each.close()
