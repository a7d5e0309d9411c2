"""What does a small micro-batch of `ingest` cost, and how many topics may one run have?

    .tidemark/venv/bin/python -m bench.small_batches [--rounds 2] [--batches 20] [--topics 1 10 40]

It copies a week of departures into topics on a broker of its own, and prints two tables. The first: milliseconds of a
batch of 40 records, and CPU-seconds of JVM, broker and Python, with what an id has committed read from
the table's checksum, and with the log replayed for it as before; both in turn (ABBA) in one warm JVM, each round with
tables of its own; the first round is cold and stays out. The second: `./spark-submit.sh ingest --until-caught-up` of so
many small topics: seconds, the most memory and threads of all its processes, milliseconds of a batch.
"""

import argparse
import re
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import SparkSession

from bench.ingest import read_all
from conf import ROOT
from conf.errors import exit_on_error
from conf.settings import load
from conf.topics import subject_of
from jobs.connectors.spark_internals import DeltaSnapshot
from jobs.ingest import job
from jobs.pipeline.run import Run
from local.broker import Cluster
from local.demo import records_in
from local.session import spark_session
from schemas.registry_folder import FileRegistry

RECORDS, SMALL_TOPIC = 40, 400  # records of a batch, and of a topic that is small
FROM_CHECKSUM, REPLAYED = "checksum", "log replayed"
LISTED = DeltaSnapshot._listed_in_checksum
POLL_SECONDS = 0.2
BATCH = re.compile(r"^\S+ ingest\.\S+ +batch \d+ ")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--topics", type=int, nargs="*", default=[1, 10, 40])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with Cluster(folder / "broker", folder / "logs", attached=True) as cluster:
            sets = [f"kafka.bootstrap_servers={cluster.bootstrap_servers}", f"paths.logs={folder / 'logs'}"]
            for words in (["topics", "apply"], ["publish", "flights", "--to", "2013-01-08"]):
                command = [ROOT / "local" / "tidemark", *words, "--set", sets[0]]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if options.rounds:
                _compare(folder, sets, options.rounds, options.batches)
            if options.topics:
                _count_topics(folder, sets, options.topics)
    return 0


def _compare(folder: Path, sets: Sequence[str], rounds: int, batches: int) -> None:
    spark = spark_session(load(overrides=sets), "bench")
    walls: dict[str, list[float]] = {FROM_CHECKSUM: [], REPLAYED: []}
    used: dict[str, list[float]] = {FROM_CHECKSUM: [], REPLAYED: []}
    for number in range(rounds + 1):
        for turn, arm in enumerate((FROM_CHECKSUM, REPLAYED, REPLAYED, FROM_CHECKSUM)[: 4 if number else 1]):
            replayed = arm == REPLAYED
            DeltaSnapshot._listed_in_checksum = (lambda _: {}) if replayed else LISTED  # type: ignore[method-assign]
            began = _cpu()
            milliseconds = _small_batches(spark, [*sets, f"paths.tables={folder / f't{number}-{turn}'}"], batches)
            if number:
                walls[arm] += milliseconds
                used[arm].append((_cpu() - began) / batches)
    spark.stop()
    print(f"a batch of {RECORDS} records, medians of {len(walls[REPLAYED])} batches")
    print(f"{'':<16}{'ms':>8}{'CPU-s':>8}")
    for arm in (REPLAYED, FROM_CHECKSUM):
        print(f"{arm:<16}{statistics.median(walls[arm]):>8.0f}{statistics.median(used[arm]):>8.2f}")
    wall, cpu = (statistics.median(of[FROM_CHECKSUM]) / statistics.median(of[REPLAYED]) for of in (walls, used))
    print(f"{'ratio':<16}{wall:>8.2f}{cpu:>8.2f}", flush=True)


def _small_batches(spark: SparkSession, sets: Sequence[str], batches: int) -> list[float]:
    """Milliseconds of each batch but the first."""
    with tempfile.TemporaryDirectory() as checkpoints:
        limits = ["ingest.topics=departures", f"source.max_offsets_per_trigger={RECORDS}"]
        run = Run(spark, load(overrides=[*sets, *limits, f"paths.checkpoints={checkpoints}"]), "ingest")
        job.build(run)
        (query,) = run.start(continuous=False)
        while query.isActive and not ((seen := query.lastProgress) and seen.batchId >= batches):
            time.sleep(POLL_SECONDS)
        query.stop()
        if error := query.exception():
            raise error
        return [float(each.durationMs["triggerExecution"]) for each in query.recentProgress][1:]


def _count_topics(folder: Path, sets: Sequence[str], counts: Sequence[int]) -> None:
    print(f"{'topics':<8}{'seconds':>10}{'MB':>8}{'threads':>9}{'batches':>9}{'CPU-s':>8}", flush=True)
    registry = FileRegistry(folder / "registry")
    departures = FileRegistry(ROOT / "schemas" / "registry").latest(subject_of("departures")).text
    settings = load(overrides=sets)
    values = read_all(settings.kafka, records_in(settings, "departures"))[:SMALL_TOPIC]
    for count in counts:
        topics = [f"small_{count}_{number}" for number in range(count)]
        _fill(sets, topics, values)
        for topic in topics:
            registry.register(subject_of(topic), departures)
        own = [f"ingest.topics={','.join(topics)}", f"registry.path={folder / 'registry'}"]
        own += [f"paths.{name}={folder / name / str(count)}" for name in ("tables", "checkpoints")]
        command = [str(ROOT / "spark-submit.sh"), "ingest", "--until-caught-up"]
        command += [word for each in (*sets, *own) for word in ("--set", each)]
        seconds, megabytes, threads, batches, cpu = _watched(command)
        print(f"{count:<8}{seconds:>10.0f}{megabytes:>8.0f}{threads:>9}{batches:>9}{cpu:>8.0f}", flush=True)


def _fill(sets: Sequence[str], topics: Sequence[str], values: Sequence[tuple[bytes, bytes]]) -> None:
    kafka = load(overrides=sets).kafka
    admin = AdminClient(kafka.client_config())
    for created in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics]).values():
        created.result()
    producer = Producer(kafka.client_config())
    for topic in topics:
        for value, key in values:
            producer.produce(topic, value, key)
        producer.flush()


def _watched(command: Sequence[str]) -> tuple[float, float, int, int, float]:
    """Seconds, the most megabytes and threads, the micro-batches that it says it made, and CPU-seconds."""
    began, before, most_bytes, most_threads = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN), 0, 0
    with tempfile.TemporaryFile("w+") as said:
        process = psutil.Popen(command, stdout=said)
        while process.poll() is None:
            with suppress(psutil.Error):
                family = [process, *process.children(recursive=True)]
                most_bytes = max(most_bytes, sum(each.memory_info().rss for each in family))
                most_threads = max(most_threads, sum(each.num_threads() for each in family))
            time.sleep(POLL_SECONDS)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed")
        said.seek(0)
        batches = sum(bool(BATCH.match(line)) for line in said)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, most_bytes / 1e6, most_threads, batches, cpu


def _cpu() -> float:
    """CPU-seconds of this process and of those that it has begun and that live."""
    times = [each.cpu_times() for each in (psutil.Process(), *psutil.Process().children(recursive=True))]
    return sum(each.user + each.system for each in times)


if __name__ == "__main__":
    exit_on_error(main)
