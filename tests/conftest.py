"""What a test run shares: one Spark session and one broker for each of its workers."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import SparkSession

from conf.settings import load
from local.broker import Cluster
from local.session import spark_session
from tests.jvm import CODE, GENERATED, INTERPRETED, OPTIONS
from tests.secured import SecuredCluster, secured_cluster

pytest_plugins = ["tests.again", "tests.equivalence", "tests.faults.report"]

WORKERS = 2
WORKER_BYTES = 4 * 1024**3  # its JVM, a broker, Python, and what a test starts beside them
# Files that take minutes begin first: one that began last would keep one worker busy while the other has nothing to do.
LONG_FILES = (
    "tests/jobs/flights/test_equivalence.py",
    "tests/test_readme.py",
    "tests/test_equivalence.py",
    "tests/jobs/flights/test_year.py",
    "tests/object_store/test_object_store.py",
    "tests/jobs/operations/checkpoint_doctor/test_doctor.py",
    "tests/test_spark_submit.py",
    "tests/notebooks/test_flights.py",
    "tests/faults/test_stops.py",
    "tests/faults/test_replay.py",
    "tests/faults/test_redrive.py",
    "tests/faults/test_brokers.py",
    "tests/faults/test_driver.py",
    "tests/jobs/pipeline/test_late_rows.py",
    "tests/jobs/operations/replay/test_replay.py",
    "tests/jobs/ingest/test_rules.py",
    "tests/jobs/pipeline/test_run.py",
    "tests/jobs/pipeline/test_damage.py",
    "tests/contracts/test_compatibility.py",
)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two workers where the machine has room for them; none (0) for one file: a second session would only cost."""
    files = {Path(argument.partition("::")[0]) for argument in config.args}
    if len(files) == 1 and files.pop().is_file():
        return 0
    room = int(psutil.virtual_memory().available / WORKER_BYTES)
    workers = min(WORKERS, os.cpu_count() or 1, room)
    return workers if workers > 1 else 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take minutes in front; all else stays in its order."""
    places = {name: number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session for all tests, set up as a job's is."""
    own = ["spark.master=local[2,4]", "spark.driver_memory=1500m", f"spark.driver_java_options={OPTIONS}"]
    settings = load("local", own)
    session = spark_session(settings, "tests", tmp_path_factory.mktemp("logs") / "spark.log")
    session.conf.set("spark.sql.shuffle.partitions", settings.spark.shuffle_partitions)
    session.conf.set(CODE, INTERPRETED)
    session.conf.set("spark.databricks.delta.snapshotPartitions", 1)  # a log has five lines
    yield session
    session.stop()


@pytest.fixture(scope="module")
def generated_code(spark: SparkSession) -> Iterator[None]:
    """Lets a module's queries run the code that Spark generates, as in production, in place of an interpreter."""
    spark.conf.set(CODE, GENERATED)
    yield
    spark.conf.set(CODE, INTERPRETED)


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


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredCluster]:
    """A second broker, which asks for a password, a certificate and rights."""
    with secured_cluster(tmp_path_factory.mktemp("secured")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def new_topic(broker: Cluster) -> Callable[[int], str]:
    """Makes an empty topic with the given number of partitions and a name of its own."""

    def make(partitions: int = 1) -> str:
        name = f"topic-{uuid.uuid4().hex[:12]}"
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result()
        return name

    return make
