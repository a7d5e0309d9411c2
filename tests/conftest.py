"""What the whole test run shares: one Spark session, one broker."""

import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import SparkSession

from conf.settings import load
from local.broker import Cluster
from local.session import spark_session

pytest_plugins = ["tests.equivalence"]


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session for all tests, set up as a job's is."""
    settings = load("local", ["spark.master=local[2,4]", "spark.driver_memory=1500m"])
    session = spark_session(settings, "tests", tmp_path_factory.mktemp("logs") / "spark.log")
    session.conf.set("spark.sql.shuffle.partitions", settings.spark.shuffle_partitions)
    yield session
    session.stop()


@pytest.fixture(scope="module", autouse=True)
def forgotten_tables() -> Iterator[None]:
    """Delta keeps what it knows of a table for an hour, which is megabytes: tests make hundreds of tables."""
    yield
    if session := SparkSession.getActiveSession():
        session._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One real single-node broker on a free port; it ends with the test run, however that ends."""
    folder = tmp_path_factory.mktemp("broker")
    with Cluster(folder, folder / "logs", attached=True) as cluster:
        yield cluster


@pytest.fixture
def new_topic(broker: Cluster) -> Callable[[int], str]:
    """Makes an empty topic with the given number of partitions and a name of its own."""

    def make(partitions: int = 1) -> str:
        name = f"topic-{uuid.uuid4().hex[:12]}"
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result()
        return name

    return make
