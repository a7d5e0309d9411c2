"""What does a key of state cost, on the heap and in RocksDB?

A query counts the records of each key. It reads so many keys first, and then, started anew on its checkpoint, batches
of BATCH records, whose keys are spread over all of them. The first of these loads the state.
"""

from collections.abc import Iterable, Iterator, Sequence

from pyspark.sql import functions as F
from pyspark.sql.streaming.listener import StreamingQueryProgress

from bench.growth.workbench import Row, Workbench, caught_up, milliseconds, size, summary
from jobs.pipeline.outputs import Batch
from jobs.pipeline.run import Run

POINTS, SMALL, ARMS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000), (1_000, 10_000), ("heap", "rocksdb")
MEMORY = "7g"  # what ten million keys on the heap need
BATCH, BATCHES, LOADING = 10_000, 24, 1_000_000
WARM = 4  # batches after the first that do not count
STRIDE = 7_368_787  # a prime: a walk by it meets each key once before it repeats one


def measure(bench: Workbench, arm: str, points: Sequence[int]) -> Iterator[Row]:
    _rows(bench, arm, f"keys/{arm}-warm-up", min(points))  # what the first query of a JVM takes is no cost of keys
    for keys in points:
        yield _rows(bench, arm, f"keys/{arm}-{keys}", keys)


def _rows(bench: Workbench, store: str, name: str, keys: int) -> Row:
    topic = bench.create(name.replace("/", "-"), 2)
    before = bench.heap_mb()
    bench.publish(topic, _records(range(keys)))
    _caught_up(bench, store, name, topic, LOADING)
    bench.publish(topic, _records(number * STRIDE % keys for number in range(BATCH * BATCHES)))
    used = bench.cpu_ms()
    batches = _caught_up(bench, store, name, topic, BATCH)
    used = bench.cpu_ms() - used
    state = batches[-1].stateOperators[0]
    first, *others = milliseconds(batches)
    stored = size(bench.folder / name / "checkpoints")
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


def _records(keys: Iterable[int]) -> Iterator[tuple[bytes, bytes]]:
    return ((b"%08d" % key, b"key-%012d" % key) for key in keys)


def _caught_up(bench: Workbench, store: str, name: str, topic: str, batch: int) -> list[StreamingQueryProgress]:
    run = bench.run(name, batch, f"spark.state_store={store}")
    declare(run, topic)
    return caught_up(run)


def declare(run: Run, topic: str) -> None:
    counts = run.records(topic).groupBy("key").agg(F.count("*").alias("records"), F.max("offset").alias("newest"))
    run.write(counts, "counts", _discard, mode="update")


def _discard(batch: Batch) -> None:
    batch.frame.write.format("noop").mode("overwrite").save()
