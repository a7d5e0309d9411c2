"""The image: it is built, its user may write nowhere but where it should, and a job runs in it to its end."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from deltalake import DeltaTable
from pyarrow import fs

from conf import ROOT
from local.broker import Cluster
from local.processes import wait_for
from tests.deploy.container import STATE, USER, Container, build, container
from tests.object_store.s3proxy import BUCKET, S3Proxy
from tests.standalone import free_port

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

DAYS = ["--from", "2013-01-01", "--to", "2013-01-03"]
JOB = "flights.hourly_delays"
OPERATOR = ROOT / "deploy" / "kubernetes" / "overlays" / "operator" / "job.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with container(build(), tmp_path_factory.mktemp("image") / "state") as one:
        yield one


@pytest.fixture(scope="module")
def flights(made: Container, broker: Cluster) -> Container:
    """The container with two days of flights in the broker's topics, both made by commands in it."""
    one = replace(made, variables={"TIDEMARK_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers})
    for words in (("topics", "apply"), ("publish", "flights", *DAYS)):
        done = one.run("local/tidemark", *words)
        assert done.returncode == 0, done.stdout
    return one


def rows(folder: Path) -> int:
    return int(DeltaTable(str(folder / "tables" / "hourly_delays")).to_pyarrow_table().num_rows)


def test_it_is_no_root_writes_nothing_but_its_volume_and_holds_neither_compiler_nor_installer(made: Container) -> None:
    assert made.run("id", "-u").stdout.strip() == made.config["User"] == "185"
    for folder in ("/srv/tidemark", "/opt/tidemark/venv", "/usr/local/bin", "/etc"):
        assert "Read-only file system" in made.run("touch", f"{folder}/x").stdout
    assert made.run("touch", f"{STATE}/x", "/tmp/x").returncode == 0
    tools = ("cc", "gcc", "g++", "make", "javac", "pip", "git", "curl")
    assert [name for name in tools if made.run("sh", "-c", f"command -v {name}").returncode == 0] == []
    assert made.run("/opt/tidemark/venv/bin/python", "-m", "pip", "--version").returncode != 0
    assert not [path for path in (made.root / "srv" / "tidemark").iterdir() if path.name in {"tests", ".git", "docs"}]


def test_without_a_command_it_lists_the_jobs_with_nothing_to_install(made: Container) -> None:
    done = made.run(*made.config["Cmd"])
    assert done.returncode == 0, done.stdout
    assert JOB in done.stdout
    assert "installing" not in done.stdout


def test_a_job_runs_in_it_to_its_end(flights: Container) -> None:
    done = flights.run("./spark-submit.sh", JOB, "--until-caught-up")
    assert done.returncode == 0, done.stdout
    assert rows(flights.state) > 0


def test_a_job_runs_in_it_whose_tables_lie_in_an_object_store(flights: Container, tmp_path: Path) -> None:
    with S3Proxy(tmp_path / "store") as store:
        one = replace(flights, variables={**flights.variables, **store.variables()})
        places = ("--tables", f"s3a://{BUCKET}/tables", "--checkpoints", f"s3a://{BUCKET}/checkpoints")
        done = one.run("./spark-submit.sh", JOB, "--until-caught-up", *places)
        assert done.returncode == 0, done.stdout
        assert "jars for s3" not in done.stdout  # nothing is fetched: they are in the image
        log = fs.FileSelector(f"{BUCKET}/tables/hourly_delays/_delta_log")
        assert any(info.base_name.endswith(".json") for info in store.files().get_file_info(log))


def test_a_job_that_goes_on_is_healthy_and_ends_in_order_within_the_time_that_kubernetes_leaves(
    flights: Container, tmp_path: Path
) -> None:
    port = str(free_port())
    one = replace(flights, variables={**flights.variables, "TIDEMARK_METRICS__PORT": port})
    assert one.run("healthy").returncode != 0
    with one.running("./spark-submit.sh", JOB, log=tmp_path / "log") as job:

        def has_ended() -> AssertionError:
            return AssertionError(job.log.read_text())

        wait_for(lambda: one.run("healthy").returncode == 0 or job.process.poll() is not None, 120, has_ended)
        assert job.process.poll() is None, job.log.read_text()
        assert job.stop(30) == 0
        assert "stopped by SIGTERM" in job.log.read_text()


def test_what_the_operator_starts_as_a_driver_runs(flights: Container) -> None:
    """The words that Spark on Kubernetes gives a driver's container, and the SparkApplication's own configuration; but
    executors are in the driver, and the run ends."""
    spec = yaml.safe_load(OPERATOR.read_text())["spec"]
    state = flights.state.parent / "operator"
    state.mkdir()
    os.chown(state, USER, USER)
    one = replace(flights, state=state, variables={**flights.variables, "SPARK_DRIVER_BIND_ADDRESS": "127.0.0.1"})
    conf = spec["sparkConf"] | {
        "spark.driver.extraJavaOptions": spec["driver"]["javaOptions"],
        "spark.driver.memory": spec["driver"]["memory"],
        "spark.master": "local[2,4]",
        "spark.driver.port": str(free_port()),
        "spark.blockManager.port": str(free_port()),
    }
    properties = state / "spark.properties"
    properties.write_text("".join(f"{name} {value}\n" for name, value in conf.items()))
    script, words = spec["mainApplicationFile"], [*spec["arguments"], "--until-caught-up"]
    main = "org.apache.spark.deploy.PythonRunner"
    done = one.run("driver", "--properties-file", f"{STATE}/spark.properties", "--class", main, script, *words)
    assert done.returncode == 0, done.stdout
    assert rows(state) == rows(flights.state)


def test_what_spark_starts_as_an_executor_asks_its_driver(made: Container) -> None:
    """The variables that Spark on Kubernetes gives an executor's container; there is no driver, and it says so."""
    given = {
        "SPARK_DRIVER_URL": f"spark://CoarseGrainedScheduler@127.0.0.1:{free_port()}",
        "SPARK_EXECUTOR_ID": "1",
        "SPARK_EXECUTOR_CORES": "1",
        "SPARK_EXECUTOR_MEMORY": "512m",
        "SPARK_EXECUTOR_POD_IP": "127.0.0.1",
        "SPARK_EXECUTOR_POD_NAME": "executor-1",
        "SPARK_APPLICATION_ID": "spark-1",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        "SPARK_JAVA_OPT_0": "-Dtidemark.words=one word",
        "SPARK_JAVA_OPT_1": "-Dspark.driver.port=1",
    }
    done = replace(made, variables=given).run("executor")
    assert done.returncode != 0
    assert "Connection refused" in done.stdout
