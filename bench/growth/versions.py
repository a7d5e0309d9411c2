"""What does a table's age cost a batch of `ingest`, that appends (departures) or merges (planes)?

The first batch makes bronze and silver. Then so many versions are put into both logs, each a commit with a small file,
as so many batches would have left them, with the checkpoint that Delta would have written; and the query goes on.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from bench.growth.workbench import Row, Workbench, milliseconds, size, stop, summary, until
from jobs.connectors.delta.maintenance import compact
from jobs.ingest import job
from jobs.pipeline import paths

POINTS, SMALL, ARMS = (1, 100, 1_000, 10_000), (1, 20), ("append", "upsert")
TOPICS = {"append": "departures", "upsert": "planes"}
BATCH, BATCHES = 40, 16
WARM = 4  # batches that do not count; of the others one or two write a checkpoint of Delta's
MB = 1024 * 1024
WEEK = "2013-01-08"


def measure(bench: Workbench, arm: str, points: Sequence[int]) -> Iterator[Row]:
    topic = TOPICS[arm]
    bench.publish_flights(WEEK)
    name = f"versions/{arm}-warm-up"
    small_batches(bench, name, topic)
    for versions in points:
        name = f"versions/{arm}-{versions}"
        small_batches(bench, name, topic, 1)
        tables = [str(bench.folder / name / "tables" / table) for table in (paths.bronze(topic), paths.silver(topic))]
        for table in tables:
            age(Path(table), versions)
        yield _row(bench, arm, name, topic, versions, tables, "no")
        if versions == max(points):
            for table in tables:
                compact(bench.spark, table, 16 * MB, 128 * MB)
            yield _row(bench, arm, name, topic, versions, tables, "yes")


def _row(
    bench: Workbench, arm: str, name: str, topic: str, versions: int, tables: Sequence[str], compacted: str
) -> Row:
    used = bench.cpu_ms()
    batches = small_batches(bench, name, topic)
    used = bench.cpu_ms() - used
    log = size(Path(tables[-1]) / "_delta_log")
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


def small_batches(bench: Workbench, name: str, topic: str, batches: int = BATCHES) -> list[float]:
    """Milliseconds of so many further batches, of BATCH records each, of an `ingest` of that name."""
    run = bench.run(name, BATCH, f"ingest.topics={topic}")
    job.build(run)
    (query,) = run.start(continuous=False)
    first = until(query, 0)
    until(query, first + batches - 1)
    stop(query)
    return milliseconds(query.recentProgress)[:batches]


def age(table: Path, versions: int) -> None:
    """Put versions into the table's log until it has so many, each with one more copy of the newest data file."""
    log = table / "_delta_log"
    newest = max(int(path.stem) for path in log.glob("*.json"))
    adding = next(add for add in _added(log, newest))
    for version in range(newest + 1, versions):
        name = f"part-{version:05}-{uuid.uuid4()}.snappy.parquet"
        (table / name).hardlink_to(table / adding["path"])
        info = {"timestamp": adding["modificationTime"] + version, "operation": "WRITE", "operationParameters": {}}
        actions = [{"commitInfo": info}, {"add": adding | {"path": name}}]
        (log / f"{version:020}.json").write_text("\n".join(map(json.dumps, actions)))
    if versions > newest + 1:
        DeltaTable(str(table)).create_checkpoint()


def _added(log: Path, newest: int) -> Iterator[dict[str, Any]]:
    """The files that commits added, those of the newest commit first."""
    for version in range(newest, -1, -1):
        for line in (log / f"{version:020}.json").read_text().splitlines():
            if add := json.loads(line).get("add"):
                yield add
