"""What does a small micro-batch of `ingest` cost?

    .tidemark/venv/bin/python -m bench.small_batches [--rounds 1] [--batches 20]

It publishes a week of departures to a broker of its own, and prints milliseconds of a batch of 40 records, and
CPU-seconds of JVM, broker and Python, with what an id has committed read from the table's checksum, and with the log
replayed for it; both in turn (ABBA) in one warm JVM, each turn with tables of its own; the first round is cold and
stays out. `bench.growth topics` has runs of many topics.
"""

import statistics

import psutil

from bench.growth.queries import small_batches
from bench.workbench import WEEK, Workbench, cpu_seconds, own_workbench, read_options
from conf.errors import exit_on_error
from jobs.connectors.spark_internals import DeltaSnapshot

FROM_CHECKSUM, REPLAYED = "checksum", "log replayed"
LISTED = DeltaSnapshot._listed_in_checksum


def main() -> int:
    options = read_options(__doc__, rounds=1, batches=20)
    with own_workbench() as bench:
        bench.publish_flights(WEEK)
        _compare(bench, options.rounds, options.batches)
    return 0


def _compare(bench: Workbench, rounds: int, batches: int) -> None:
    walls: dict[str, list[float]] = {FROM_CHECKSUM: [], REPLAYED: []}
    used: dict[str, list[float]] = {FROM_CHECKSUM: [], REPLAYED: []}
    for number in range(rounds + 1):
        for turn, arm in enumerate((FROM_CHECKSUM, REPLAYED, REPLAYED, FROM_CHECKSUM)[: 4 if number else 1]):
            listed = LISTED if arm == FROM_CHECKSUM else _none_listed
            DeltaSnapshot._listed_in_checksum = listed  # type: ignore[method-assign, assignment]
            began = _cpu()
            milliseconds = small_batches(bench, f"turn-{number}-{turn}", "departures", batches + 1)[1:]
            if number:
                walls[arm] += milliseconds
                used[arm].append((_cpu() - began) / (batches + 1))
    print(f"a batch of 40 records, medians of {len(walls[REPLAYED])} batches")
    print(f"{'':<16}{'ms':>8}{'CPU-s':>8}")
    for arm in (REPLAYED, FROM_CHECKSUM):
        print(f"{arm:<16}{statistics.median(walls[arm]):>8.0f}{statistics.median(used[arm]):>8.2f}")
    wall, cpu = (statistics.median(of[FROM_CHECKSUM]) / statistics.median(of[REPLAYED]) for of in (walls, used))
    print(f"{'ratio':<16}{wall:>8.2f}{cpu:>8.2f}", flush=True)


def _none_listed(snapshot: DeltaSnapshot) -> dict[str, int]:
    return {}


def _cpu() -> float:
    """CPU-seconds of this process and of those that it has begun and that live."""
    return cpu_seconds([psutil.Process(), *psutil.Process().children(recursive=True)])


if __name__ == "__main__":
    exit_on_error(main)
