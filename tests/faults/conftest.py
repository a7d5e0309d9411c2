"""What the fault suite shares: one broker, hosts that run drivers on it, and scenes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.broker import Cluster
from tests.faults.host import Hosts
from tests.faults.report import Report
from tests.faults.scene import Scene

SceneOf = Callable[..., Scene]


@pytest.fixture(scope="package")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where fail points are armed."""
    return tmp_path_factory.mktemp("points")


@pytest.fixture(scope="package")
def hosts(points: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Hosts for the tests of this folder; each has half a gigabyte, which others may need once these are over."""
    made = Hosts(tmp_path_factory.mktemp("hosts"), points)
    yield made
    made.close()


@pytest.fixture
def scene(
    broker: Cluster, hosts: Hosts, points: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[SceneOf]:
    """Makes scenes on the one-node broker; ends what still runs in them."""
    made: list[Scene] = []
    report = Report()

    def make(cluster: Cluster = broker, **how: Any) -> Scene:
        shared: dict[str, Any] = {"hosts": hosts, "points": points, "report": report.of(request.node.name)}
        made.append(Scene(cluster, tmp_path / f"scene-{len(made)}", **shared | how))
        return made[-1]

    yield make
    for each in made:
        each.close()
    request.node.user_properties += report.properties()
