"""Do the job's decoder and the strict one agree on damaged payloads? Prints what became of them, and each disagreement.

    .tidemark/venv/bin/python -m bench.fuzz [--payloads 1000000] [--seed 1]

The exit code is 0 where they agree on every payload.
"""

import sys
from collections import Counter

from bench.workbench import read_options
from conf.errors import exit_on_error
from conf.settings import load
from local.session import spark_session
from tests.jobs.connectors.avro.fuzzing import fuzz

SHOWN = 50  # disagreements; the causes are fewer than the cases


def main() -> int:
    options = read_options(__doc__, payloads=1_000_000, seed=1)
    spark = spark_session(load(), "fuzz")
    counts: Counter[str] = Counter()
    shown = 0
    for report in fuzz(spark, options.seed, options.payloads):
        counts += report.counts
        for line in report.disagreements[: SHOWN - shown]:
            print(line)
        shown += len(report.disagreements)
        print(f"{counts.total():>12,} payloads", file=sys.stderr, flush=True)
    spark.stop()
    for verdict, count in counts.most_common():
        print(f"{count:>12,}  {verdict}")
    print(f"{counts.total():>12,}  payloads, seed {options.seed}")
    return 1 if shown else 0


if __name__ == "__main__":
    exit_on_error(main)
