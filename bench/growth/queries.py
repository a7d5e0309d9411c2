"""Measures how queries of one session grow: with keys of state, partitions, versions of a table, batches.

Each curve is a function from a workbench, one of the curve's arms, and points to rows of results.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from pyspark.sql import functions as F
from pyspark.sql.streaming.listener import StreamingQueryProgress

from bench.workbench import (
    WEEK,
    Record,
    Row,
    Workbench,
    catch_up,
    disk_use,
    milliseconds,
    stop,
    summary,
    wait_for_batch,
)
from jobs.connectors.delta.maintenance import compact
from jobs.ingest import job
from jobs.pipeline import paths
from jobs.pipeline.outputs import Batch
from jobs.pipeline.run import Run

# keys
KEYS_BATCH, KEYS_BATCHES, LOADING = 10_000, 24, 1_000_000
STRIDE = 7_368_787  # a prime: a walk by it meets each key once before it repeats one
# partitions: a backlog, then records of a small batch -> batches; so many of them do not count
BACKLOG, SMALL_BATCHES, PARTITIONS_WARM = 1_000_000, {1_000: 20, 20_000: 12}, 2
# versions and batches
SMALL_BATCH = 40  # records
VERSIONS_BATCHES, MB = 16, 1024 * 1024
VERSIONS_TOPICS = {"append": "departures", "upsert": "planes"}
BATCHES_KEYS, NEWEST = 10_000, 20  # a median is made of the newest batches
BATCHES_END = "2013-03-01"  # before it 51,000 departures
WARM = 4  # batches that do not count; of `versions`, one or two of the others write a checkpoint of Delta's


def measure_keys(bench: Workbench, arm: str, points: Sequence[int]) -> Iterator[Row]:
    """Measure what a key of state costs, on the heap and in RocksDB.

    A query counts the records of each key. It reads so many keys first, and then, started anew on its checkpoint,
    batches of KEYS_BATCH records, whose keys are spread over all of them. The first of these loads the state.
    """
    _keys_row(bench, arm, f"keys/{arm}-warm-up", min(points))  # what a JVM's first query takes is no cost of keys
    for keys in points:
        yield _keys_row(bench, arm, f"keys/{arm}-{keys}", keys)


def _keys_row(bench: Workbench, store: str, name: str, keys: int) -> Row:
    topic = bench.create(name.replace("/", "-"), 2)
    before = bench.heap_mb()
    bench.publish(topic, _keyed_records(range(keys)))
    _count_by_key(bench, store, name, topic, LOADING)
    bench.publish(topic, _keyed_records(number * STRIDE % keys for number in range(KEYS_BATCH * KEYS_BATCHES)))
    used = bench.cpu_ms()
    batches = _count_by_key(bench, store, name, topic, KEYS_BATCH)
    used = bench.cpu_ms() - used
    state = batches[-1].stateOperators[0]
    first, *others = milliseconds(batches)
    stored = disk_use(bench.folder / name / "checkpoints")
    return {
        "store": store,
        "keys": keys,
        "first_ms": first,
        **summary(others[WARM:]),
        "cpu_ms": used / len(batches),
        "commit_ms": state.commitTimeMs / 2,  # of each of the two partitions
        "state_mb": state.memoryUsedBytes / 1e6,
        "heap_mb": bench.heap_mb() - before,
        "resident_mb": bench.driver.memory_info().rss / 1e6,
        "checkpoint_mb": stored["mb"],
    }


def _keyed_records(keys: Iterable[int]) -> Iterator[Record]:
    return ((b"%08d" % key, b"key-%012d" % key) for key in keys)


def _count_by_key(bench: Workbench, store: str, name: str, topic: str, batch: int) -> list[StreamingQueryProgress]:
    run = bench.run(name, batch, f"spark.state_store={store}")
    declare_counts(run, topic)
    return catch_up(run)


def declare_counts(run: Run, topic: str) -> None:
    counts = run.records(topic).groupBy("key").agg(F.count("*").alias("records"), F.max("offset").alias("newest"))
    run.write(counts, "counts", _discard, mode="update")


def _discard(batch: Batch) -> None:
    batch.frame.write.format("noop").mode("overwrite").save()


def measure_partitions(bench: Workbench, arm: str, points: Sequence[int]) -> Iterator[Row]:
    """Measure what a partition of the source costs.

    A query appends to a table, another one publishes exactly once: a backlog in one batch, then small batches. Each
    partition of a source is a task and a file of the table, and, up to `ledger.max_shards`, a shard of the output.
    """
    _partitions_row(bench, arm, points[0], "warm-up")
    for partitions in points:
        yield _partitions_row(bench, arm, partitions, str(partitions))


def _partitions_row(bench: Workbench, arm: str, partitions: int, label: str) -> Row:
    name = f"partitions/{arm}-{label}"
    topic = bench.create(name.replace("/", "-"), partitions)
    bench.create(f"{topic}-out", 4)
    bench.publish(topic, _numbered_records(BACKLOG))
    used = bench.cpu_ms()
    [backlog] = milliseconds(_copy_topic(bench, arm, name, topic, BACKLOG))
    used = bench.cpu_ms() - used
    row: dict[str, object] = {"arm": arm, "partitions": partitions, "backlog_records_s": BACKLOG / backlog * 1_000}
    row["backlog_cpu_s"] = used / 1_000
    for records, batches in SMALL_BATCHES.items():
        bench.publish(topic, _numbered_records(records * batches))
        before, used = _table_files(bench, name), bench.cpu_ms()
        took = milliseconds(_copy_topic(bench, arm, name, topic, records))
        row[f"ms_{records}"] = summary(took[PARTITIONS_WARM:])["ms"]
        row[f"cpu_ms_{records}"] = (bench.cpu_ms() - used) / len(took)
        if arm == "table":
            row[f"files_{records}"] = (_table_files(bench, name) - before) / len(took)
    return row


def _table_files(bench: Workbench, name: str) -> int:
    return len(list((bench.folder / name / "tables" / "records").glob("*.parquet")))


def _numbered_records(count: int) -> Iterator[Record]:
    return (
        (b"record number %08d of so many bytes as a small event has, of which there are %08d" % (n, n), b"%08d" % n)
        for n in range(count)
    )


def _copy_topic(bench: Workbench, arm: str, name: str, topic: str, batch: int) -> list[StreamingQueryProgress]:
    run = bench.run(name, batch)
    if arm == "table":
        run.append(run.records(topic), table="records")
    else:
        run.publish(run.records(topic).select("key", "value"), f"{topic}-out")
    return catch_up(run)


def measure_versions(bench: Workbench, arm: str, points: Sequence[int]) -> Iterator[Row]:
    """Measure what a table's age costs a batch of `ingest`, that appends (departures) or merges (planes).

    The first batch makes bronze and silver. Then so many versions are put into both logs, each a commit with a small
    file, as so many batches would have left them, with the checkpoint that Delta would have written; and the query goes
    on.
    """
    topic = VERSIONS_TOPICS[arm]
    bench.publish_flights(WEEK)
    name = f"versions/{arm}-warm-up"
    small_batches(bench, name, topic)
    for versions in points:
        name = f"versions/{arm}-{versions}"
        small_batches(bench, name, topic, 1)
        tables = [str(bench.folder / name / "tables" / table) for table in (paths.bronze(topic), paths.silver(topic))]
        for table in tables:
            _add_versions(Path(table), versions)
        yield _versions_row(bench, arm, name, topic, versions, tables, "no")
        if versions == max(points):
            for table in tables:
                compact(bench.spark, table, 16 * MB, 128 * MB)
            yield _versions_row(bench, arm, name, topic, versions, tables, "yes")


def _versions_row(
    bench: Workbench, arm: str, name: str, topic: str, versions: int, tables: Sequence[str], compacted: str
) -> Row:
    used = bench.cpu_ms()
    batches = small_batches(bench, name, topic)
    used = bench.cpu_ms() - used
    log = disk_use(Path(tables[-1]) / "_delta_log")
    return {
        "arm": arm,
        "versions": versions,
        "compacted": compacted,
        **summary(batches[WARM:]),
        "cpu_ms": used / len(batches),
        "live_files": len(DeltaTable(tables[-1]).file_uris()),
        "log_files": log["files"],
        "log_mb": log["mb"],
        "heap_mb": bench.heap_mb(),
    }


def small_batches(bench: Workbench, name: str, topic: str, batches: int = VERSIONS_BATCHES) -> list[float]:
    """Milliseconds of so many further batches, of SMALL_BATCH records each, of an `ingest` of that name."""
    run = bench.run(name, SMALL_BATCH, f"ingest.topics={topic}")
    job.build(run)
    (query,) = run.start(continuous=False)
    first = wait_for_batch(query, 0)
    wait_for_batch(query, first + batches - 1)
    stop(query)
    return milliseconds(query.recentProgress)[:batches]


def _add_versions(table: Path, versions: int) -> None:
    """Put versions into the table's log until it has so many, each with one more copy of the newest data file."""
    log = table / "_delta_log"
    newest = max(int(path.stem) for path in log.glob("*.json"))
    adding = next(_added_files(log, newest))
    for version in range(newest + 1, versions):
        name = f"part-{version:05}-{uuid.uuid4()}.snappy.parquet"
        (table / name).hardlink_to(table / adding["path"])
        info = {"timestamp": adding["modificationTime"] + version, "operation": "WRITE", "operationParameters": {}}
        actions = [{"commitInfo": info}, {"add": adding | {"path": name}}]
        (log / f"{version:020}.json").write_text("\n".join(map(json.dumps, actions)))
    if versions > newest + 1:
        DeltaTable(str(table)).create_checkpoint()


def _added_files(log: Path, newest: int) -> Iterator[dict[str, Any]]:
    """The files that commits added, those of the newest commit first."""
    for version in range(newest, -1, -1):
        for line in (log / f"{version:020}.json").read_text().splitlines():
            if add := json.loads(line).get("add"):
                yield add


def measure_batches(bench: Workbench, arm: str, points: Sequence[int]) -> Iterator[Row]:
    """Measure what a query's own age costs: the thousandth batch beside the first.

    One query makes batch after batch: `ingest` of departures, or counts by key, which are kept as state.
    """
    name = f"batches/{arm}"
    run = bench.run(name, SMALL_BATCH, "ingest.topics=departures")
    if arm == "ingest":
        bench.publish_flights(BATCHES_END)
        job.build(run)
    else:
        topic = bench.create("batches", 2)
        records = max(points) * SMALL_BATCH
        bench.publish(topic, ((b"value", b"key-%08d" % (number % BATCHES_KEYS)) for number in range(records)))
        declare_counts(run, topic)
    (query,) = run.start(continuous=False)
    before, used = 0, bench.cpu_ms()
    for batches in points:
        wait_for_batch(query, batches - 1)
        used_before, used = used, bench.cpu_ms()
        newest = milliseconds(query.recentProgress)[-NEWEST:]
        checkpoint, tables = (disk_use(bench.folder / name / kind) for kind in ("checkpoints", "tables"))
        yield {
            "arm": arm,
            "batches": batches,
            **summary(newest),
            "cpu_ms": (used - used_before) / (batches - before),
            "heap_mb": bench.heap_mb(),
            "resident_mb": bench.driver.memory_info().rss / 1e6,
            "threads": bench.driver.num_threads(),
            "checkpoint_files": checkpoint["files"],
            "checkpoint_mb": checkpoint["mb"],
            "log_files": len(list((bench.folder / name / "tables").rglob("_delta_log/*"))),
            "table_files": tables["files"],
        }
        before = batches
    stop(query)
