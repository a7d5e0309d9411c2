"""What runs on an object store share: a server, a session that knows it, and surroundings whose tables lie there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from conf.settings import Settings, load
from local.broker import Cluster
from local.session import spark_session
from tests.jobs.scratch import Row, Scratch
from tests.jvm import INTERPRETING_OPTIONS
from tests.object_store.s3proxy import BUCKET, S3Proxy, in_environment


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Proxy]:
    """One S3 server, whose place and keys this process and all that it starts are told by their environment."""
    with S3Proxy(tmp_path_factory.mktemp("store")) as server, in_environment(server.variables()):
        yield server


@pytest.fixture(scope="session")
def spark(store: S3Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A session as jobs have it whose settings name an object store."""
    own = [f"paths.tables=s3a://{BUCKET}/tables", f"paths.checkpoints=s3a://{BUCKET}/checkpoints"]
    own += ["spark.master=local[2,4]", "spark.driver_memory=1g", f"spark.driver_java_options={INTERPRETING_OPTIONS}"]
    session = spark_session(load("local", own), "stored", tmp_path_factory.mktemp("logs") / "spark.log")
    session.conf.set("spark.sql.shuffle.partitions", 1)
    session.conf.set("spark.databricks.delta.snapshotPartitions", 1)
    yield session
    session.stop()


class Stored(Scratch):
    """Surroundings whose tables and checkpoints lie under `root` in the store."""

    def __init__(self, *own: Any, root: str) -> None:
        super().__init__(*own)
        self.root = root
        self.application = root.rpartition("/")[2]

    def settings(self, *overrides: str) -> Settings:
        roots = [f"paths.{name}={self.root}/{name}" for name in ("tables", "checkpoints")]
        return super().settings(*roots, *overrides)

    def rows(self, table: str, *columns: str) -> list[Row]:
        rows = self.spark.read.format("delta").load(f"{self.root}/tables/{table}").select(*columns or "*").collect()
        return sorted((tuple(row) for row in rows), key=str)


@pytest.fixture
def stored(spark: SparkSession, broker: Cluster, new_topic: Callable[[int], str], tmp_path: Path) -> Stored:
    """Topics and a registry of the test's own, its tables and checkpoints in the store."""
    return Stored(spark, broker, new_topic, tmp_path, root=f"s3a://{BUCKET}/{tmp_path.name}")
