"""What does a query's own age cost: the thousandth batch beside the first?

One query makes batch after batch: `ingest` of departures, or counts by key, which are kept as state.
"""

from collections.abc import Iterator, Sequence

from bench.growth.keys import declare
from bench.growth.workbench import Row, Workbench, milliseconds, size, stop, summary, until
from jobs.ingest import job

POINTS, SMALL, ARMS = (10, 50, 100, 200, 400, 600, 800, 1_000), (10, 20), ("ingest", "state")
BATCH, NEWEST = 40, 20  # records of a batch; batches that a median is made of
KEYS = 10_000
END = "2013-03-01"  # before it 51,000 departures


def measure(bench: Workbench, arm: str, points: Sequence[int]) -> Iterator[Row]:
    name = f"batches/{arm}"
    run = bench.run(name, BATCH, "ingest.topics=departures")
    if arm == "ingest":
        bench.publish_flights(END)
        job.build(run)
    else:
        topic = bench.create("batches", 2)
        records = max(points) * BATCH
        bench.publish(topic, ((b"value", b"key-%08d" % (number % KEYS)) for number in range(records)))
        declare(run, topic)
    (query,) = run.start(continuous=False)
    before, used = 0, bench.cpu_ms()
    for batches in points:
        until(query, batches - 1)
        used_before, used = used, bench.cpu_ms()
        newest = milliseconds(query.recentProgress)[-NEWEST:]
        checkpoint, tables = (size(bench.folder / name / kind) for kind in ("checkpoints", "tables"))
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
