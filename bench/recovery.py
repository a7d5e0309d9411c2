"""How long until a query that was killed writes again? Prints seconds from SIGKILL to the first new committed record.

    local/tidemark setup
    .tidemark/venv/bin/python -m bench.recovery [--rounds 3]

The driver, its JVM and its workers are killed in the middle of a transaction, which they leave open, and the driver is
started anew at once, on a broker of the benchmark's own. The parts, each from the end of the one before:

    session   Python and JVM start, the session is made
    query     the query starts, decides on its first batch, and its plan's writer has fenced the one that was killed
    shards    the plan is read, the Python workers start, and the first shard's writer has fenced its predecessor
    records   the shard's records are written, committed, and seen by a `read_committed` reader
"""

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from bench.workbench import line, own_broker, read_options, seconds_line
from conf.errors import exit_on_error
from local.broker import Cluster
from tests.faults.host import Driver
from tests.faults.scene import Scene

BATCH = 3_000
SECONDS = 120.0
QUIET_SECONDS = 5.0  # the ledger is at rest: what is there comes at once
PLAN_PARTITION = 0
PARTS = ("session", "query", "shards", "records")
POINT = "shard-mid-produce"


def main() -> int:
    rounds = read_options(__doc__, rounds=3).rounds
    print(line("", (*PARTS, "all"), 10), " seconds")
    taken = []
    with own_broker() as (folder, cluster):
        for number in range(1, rounds + 1):
            taken.append(_recovered(cluster, folder / f"round-{number}"))
            print(seconds_line(number, taken[-1]), flush=True)
    print(seconds_line("median", map(statistics.median, zip(*taken, strict=True))))
    return 0


def _recovered(cluster: Cluster, folder: Path) -> list[float]:
    """The seconds of each of PARTS, and of all."""
    # One partition, so one shard: nothing else of the batch is committed while it is held.
    scene = Scene(cluster, folder, settings=[f"source.max_offsets_per_trigger={BATCH}"], partitions=1)
    try:
        scene.fill(3 * BATCH)
        scene.arm(POINT, batch=1)
        driver = scene.start(alone=True)
        scene.held(POINT, driver)
        return _restarted(scene, driver)
    finally:
        scene.close()


def _restarted(scene: Scene, driver: Driver) -> list[float]:
    with _reader(scene, scene.target, "read_committed") as reader:
        for _ in range(BATCH):
            assert reader.poll(SECONDS) is not None, "batch 0 is not there"
        killed = time.time()
        driver.kill()
        after = scene.start(alone=True)
        assert reader.poll(SECONDS) is not None, "nothing new was committed"
        seen = time.time()
    assert after.wait() == 0, after.said[-3000:]
    assert scene.verdict().clean, scene.verdict()
    with _reader(scene, scene.ledger, "read_uncommitted") as reader:
        planned, fenced = _openings(reader, killed)
    session = next(json.loads(line)["session"] for line in after.said.splitlines() if line.startswith('{"session"'))
    times = [killed, session, planned, fenced, seen]
    return [*(end - begin for begin, end in pairwise(times)), seen - killed]


@contextmanager
def _reader(scene: Scene, topic: str, isolation: str) -> Iterator[Consumer]:
    config = {"bootstrap.servers": scene.servers, "group.id": "bench", "isolation.level": isolation}
    reader = Consumer({**config, "fetch.wait.max.ms": 5, "log_level": 0})
    partitions = reader.list_topics(topic, timeout=SECONDS).topics[topic].partitions
    reader.assign([TopicPartition(topic, number, 0) for number in partitions])
    try:
        yield reader
    finally:
        reader.close()


def _openings(reader: Consumer, since: float) -> tuple[float, float]:
    """When, after `since`, the first plan and the first shard opened a transaction, by the clock of their writers."""
    opened: dict[bool, float] = {}
    while (message := reader.poll(QUIET_SECONDS)) is not None:
        written = message.timestamp()[1] / 1000
        if json.loads(message.value() or b"{}").get("kind") == "open" and written > since:
            of_plan = message.partition() == PLAN_PARTITION
            opened[of_plan] = min(written, opened.get(of_plan, written))
    return opened[True], opened[False]


if __name__ == "__main__":
    exit_on_error(main)
