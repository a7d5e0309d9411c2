"""What the tests of the connectors share: a broker's settings, a topic with records, tables to be made."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conf.settings import Settings, load
from jobs.connectors.delta.table import Table
from local.broker import Cluster
from tests.sent import T0, Record, send

NewTopicOf = Callable[[int], str]


@pytest.fixture
def settings(broker: Cluster) -> Settings:
    return load("local", [f"kafka.bootstrap_servers={broker.bootstrap_servers}"])


@pytest.fixture
def numbered(broker: Cluster, new_topic: NewTopicOf) -> str:
    """A topic of two partitions with the values 0 to 9, one a second, even ones in partition 0."""
    topic = new_topic(2)
    send(broker, topic, *(Record(b"%d" % n, partition=n % 2, timestamp=T0 + 1000 * n) for n in range(10)))
    return topic


@pytest.fixture
def appended(tmp_path: Path) -> Table:
    return Table("events", str(tmp_path / "events"))


@pytest.fixture
def upserted(tmp_path: Path) -> Table:
    return Table("latest", str(tmp_path / "latest"), keys=("id",), newest_by=("at",))
