"""A real standalone cluster of two workers, one of whose executors dies with a shard in its hands."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from conf import ROOT
from conf.settings import load
from jobs.connectors.exactly_once.fail_points import VARIABLE
from local.submit import command
from tests.faults.conftest import SceneOf
from tests.faults.host import SECONDS, Driver
from tests.faults.scene import Scene
from tests.jvm import SERVER_OPTIONS
from tests.standalone import standalone_cluster

pytestmark = [pytest.mark.faults, pytest.mark.cluster, pytest.mark.timeout(300)]

EXECUTOR = "org.apache.spark.executor.CoarseGrainedExecutorBackend"


def submit(crime: Scene, master: str) -> Driver:
    """Submit the scene's query as `spark-submit.sh` would submit a job."""
    plan, log = crime.folder / "plan-submitted.json", crime.folder / "submitted.log"
    plan.write_text(json.dumps(crime.plan(submitted=True)))
    options = {
        "spark.driver.host": "127.0.0.1",
        "spark.executor.memory": "600m",
        "spark.executor.extraJavaOptions": " ".join(SERVER_OPTIONS),
        f"spark.executorEnv.{VARIABLE}": str(crime.points),
        "spark.ui.enabled": "false",
    }
    settings = load("local", [*crime.plan()["settings"], f"paths.logs={crime.folder}", f"spark.master={master}"])
    words = [word for key, value in options.items() for word in ("--conf", f"{key}={value}")]
    *submitted, _ = command("victim", settings, words)
    submitted = [str(Path(os.environ["SPARK_HOME"]) / "bin" / "spark-submit"), *submitted]
    environment = os.environ | {VARIABLE: str(crime.points), "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*submitted, str(ROOT / "tests" / "faults" / "submitted.py"), str(plan)],
            stdout=output,
            stderr=output,
            env=environment,
            cwd=ROOT,
        )
    crime.drivers.append(Driver(process, log))
    return crime.drivers[-1]


def executor_of(worker: int) -> psutil.Process:
    """The executor's JVM above one of its Python workers."""
    return next(each for each in psutil.Process(worker).parents() if EXECUTOR in each.cmdline())


def kill(executor: psutil.Process) -> None:
    """SIGKILL to the JVM and all its Python workers at once."""
    victims = [executor, *executor.children(recursive=True)]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for each in victims:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)
    _, alive = psutil.wait_procs(victims, SECONDS)
    assert not alive


@pytest.mark.exhaustive
def test_another_executor_takes_over_the_shard_of_one_that_was_killed(scene: SceneOf, tmp_path: Path) -> None:
    crime = scene(settings=["source.max_offsets_per_trigger=300"])
    crime.fill(900)
    shard = {"batch": 1, "shard": 0}
    with standalone_cluster(tmp_path, workers=2) as master:
        crime.arm("shard-mid-produce", **shard)
        driver = submit(crime, master)
        first = executor_of(crime.held("shard-mid-produce", driver))
        crime.disarm("shard-mid-produce")
        crime.arm("shard-mid-produce", **shard)

        kill(first)

        second = executor_of(crime.held("shard-mid-produce", driver))
        crime.release("shard-mid-produce")
        assert second.pid != first.pid
        assert driver.wait() == 0, driver.said[-3000:]
    verdict = crime.verdict()
    assert verdict.clean, verdict
    assert verdict.rows == 900
