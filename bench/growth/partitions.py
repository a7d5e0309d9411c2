"""What does a partition of the source cost?

A query appends to a table, another one publishes exactly once: a backlog in one batch, then small batches. Each
partition of a source is a task and a file of the table, and, up to `ledger.max_shards`, a shard of the output topic.
"""

from collections.abc import Iterator, Sequence

from pyspark.sql.streaming.listener import StreamingQueryProgress

from bench.growth.workbench import Row, Workbench, caught_up, milliseconds, summary

POINTS, SMALL, ARMS = (1, 4, 16, 64), (1, 4), ("table", "topic")
BACKLOG, SMALL_BATCHES = 1_000_000, {1_000: 20, 20_000: 12}
WARM = 2  # batches of each size that do not count


def measure(bench: Workbench, arm: str, points: Sequence[int]) -> Iterator[Row]:
    _row(bench, arm, points[0], "warm-up")
    for partitions in points:
        yield _row(bench, arm, partitions, str(partitions))


def _row(bench: Workbench, arm: str, partitions: int, label: str) -> Row:
    name = f"partitions/{arm}-{label}"
    topic = bench.create(name.replace("/", "-"), partitions)
    bench.create(f"{topic}-out", 4)
    bench.publish(topic, _records(BACKLOG))
    used = bench.cpu_ms()
    [backlog] = milliseconds(_caught_up(bench, arm, name, topic, BACKLOG))
    used = bench.cpu_ms() - used
    row: dict[str, object] = {"arm": arm, "partitions": partitions, "backlog_records_s": BACKLOG / backlog * 1_000}
    row["backlog_cpu_s"] = used / 1_000
    for records, batches in SMALL_BATCHES.items():
        bench.publish(topic, _records(records * batches))
        before, used = _files(bench, name), bench.cpu_ms()
        found = milliseconds(_caught_up(bench, arm, name, topic, records))
        row[f"ms_{records}"] = summary(found[WARM:])["ms"]
        row[f"cpu_ms_{records}"] = (bench.cpu_ms() - used) / len(found)
        if arm == "table":
            row[f"files_{records}"] = (_files(bench, name) - before) / len(found)
    return row


def _files(bench: Workbench, name: str) -> int:
    return len(list((bench.folder / name / "tables" / "records").glob("*.parquet")))


def _records(count: int) -> Iterator[tuple[bytes, bytes]]:
    return (
        (b"record number %08d of so many bytes as a small event has, of which there are %08d" % (n, n), b"%08d" % n)
        for n in range(count)
    )


def _caught_up(bench: Workbench, arm: str, name: str, topic: str, batch: int) -> list[StreamingQueryProgress]:
    run = bench.run(name, batch)
    if arm == "table":
        run.append(run.records(topic), table="records")
    else:
        run.publish(run.records(topic).select("key", "value"), f"{topic}-out")
    return caught_up(run)
