"""What does another executor give?

A backlog is read by a standalone cluster on loopback with so many workers of one core.
`ingest` reads, checks and appends, without a shuffle; `flights.hourly_delays` shuffles, keeps state and merges. Rows a
second are those of the batches after the first, which compiles code. On a machine whose cores are fewer than executors,
driver and broker, what counts is how much of processors a record takes with more executors: with cores to spare a run
is as much faster as that stays the same.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pyspark

from bench.growth.process import Watched
from bench.growth.workbench import Row, Workbench
from conf import ROOT
from jobs.pipeline.monitoring.micro_batch_table import micro_batches
from local.processes import wait_for
from tests.standalone import standalone_cluster

POINTS, SMALL, ARMS = (1, 2, 3), (1, 2), ("ingest", "flights.hourly_delays")
END = "2014-01-01"
BATCH = {"ingest": 40_000, "flights.hourly_delays": 80_000}
OPTIONS = ["--executor-memory", "800m", "--conf", "spark.driver.host=127.0.0.1"]


def measure(bench: Workbench, arm: str, points: Sequence[int]) -> Iterator[Row]:
    os.environ.setdefault("SPARK_HOME", str(Path(pyspark.__file__).parent))
    bench.publish_flights(END)
    for executors in points:
        folder = bench.folder / f"cluster-{arm}-{executors}"
        folder.mkdir()
        with standalone_cluster(folder, executors) as master:
            yield {"job": arm, "executors": executors} | _run(bench, arm, executors, master)


def _run(bench: Workbench, job: str, executors: int, master: str) -> dict[str, float]:
    sets = [*bench.places(f"executors/{job}-{executors}"), "ingest.topics=departures"]
    sets += [f"jobs.{job}.max_offsets_per_trigger={BATCH[job]}", f"spark.shuffle_partitions={executors}"]
    command = [str(ROOT / "spark-submit.sh"), job, "--until-caught-up", *bench.words(*sets)]
    before = _cluster_seconds()
    with Watched([*command, "--", "--master", master, *OPTIONS], bench.folder / "said") as run:
        run.wait_for_end()
    # What they used is told once they have ended, and their workers have waited for them.
    wait_for(lambda: not _executors(), 30, lambda: AssertionError("executors go on"))
    of_executors = _cluster_seconds() - before
    found = [row for row in micro_batches(bench.settings(*sets)).to_pylist() if row["query"].startswith(job)]
    first, *others = [row for row in found if row["rows_in"]]
    warm = sum(dict(row["phases"])["triggerExecution"] for row in others) / 1_000
    records = sum(row["rows_in"] for row in others)
    return {
        "seconds": run.seconds,
        "first_s": dict(first["phases"])["triggerExecution"] / 1_000,
        "records_s": records / warm,
        "driver_cpu_s": run.cpu_seconds(),
        "executor_cpu_s": of_executors,
        "cpu_s_a_million": (run.cpu_seconds() + of_executors) / (records + first["rows_in"]) * 1e6,
    }


def _executors() -> list[psutil.Process]:
    return _named("CoarseGrainedExecutorBackend", psutil.Process().children(recursive=True))


def _cluster_seconds() -> float:
    """What master, workers, and executors that have ended, used of processors."""
    daemons = _named("org.apache.spark.deploy", psutil.Process().children())
    return sum(sum(each.cpu_times()[:4]) for each in daemons)


def _named(word: str, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have a word in their command line, and have not ended."""
    found = []
    for each in processes:
        with suppress(psutil.Error):
            found += [each] if any(word in part for part in each.cmdline()) else []
    return found
