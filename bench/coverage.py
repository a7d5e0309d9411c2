"""How long does it take to check the year? Prints seconds of `local/tidemark coverage show` and `coverage check`, with
the start of Python, and of reading a log with 100,000 commits.

    local/tidemark demo
    .tidemark/venv/bin/python -m bench.coverage [--rounds 5] [--commits 100000]
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from bench.workbench import read_options, seconds
from conf import ROOT, state_dir
from conf.errors import exit_on_error
from jobs.operations.coverage.tables import table_coverage

APP_ID = "ingest.t/bronze/t/bronze/q"
RECORDS = 10  # a batch and partition
PARTITIONS = 4


def main() -> int:
    options = read_options(__doc__, rounds=5, commits=100_000)
    for command in ("show", "check"):
        _measure(f"coverage {command}", options.rounds, partial(_run, command))
    with tempfile.TemporaryDirectory(dir=state_dir()) as scratch:
        path = str(Path(scratch) / "many")
        _make(path, options.commits)
        for verify, name in ((False, "the newest commits"), (True, "verified")):
            _measure(f"{options.commits:,} commits, {name}", options.rounds, partial(_read, path, verify))
    return 0


def _measure(name: str, rounds: int, work: Callable[[], str]) -> None:
    """Print the median of the rounds' seconds, and what the last one says."""
    said: list[str] = []
    took = [seconds(lambda: said.append(work())) for _ in range(rounds)]
    print(f"{name:<40} {statistics.median(took):6.2f} s   {said[-1]}", flush=True)


def _run(command: str) -> str:
    arguments = [sys.executable, "-P", "-m", "local.cli", "coverage", command]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    return lines[-1] if command == "check" and lines else f"{len(lines)} lines"


def _read(path: str, verify: bool) -> str:
    coverage = table_coverage(path, verify)
    return f"versions {coverage.first_read:,} to {coverage.version:,} were read"


def _make(path: str, commits: int) -> None:
    """A table whose log has so many commits, and a checkpoint near its end."""
    row = pa.table({"partition": pa.array([0], pa.int32()), "offset": pa.array([0], pa.int64())})
    properties = CommitProperties({"userMetadata": _commit_info(0)}, app_transactions=[Transaction(APP_ID, 0)])
    write_deltalake(path, row, commit_properties=properties)
    log = Path(path) / "_delta_log"
    for number in range(1, commits):
        info = {"timestamp": 1_700_000_000_000 + number, "operation": "WRITE", "userMetadata": _commit_info(number)}
        actions = [{"commitInfo": info}, {"txn": {"appId": APP_ID, "version": number}}]
        text = "\n".join(json.dumps(action, separators=(",", ":")) for action in actions)
        (log / f"{number:020}.json").write_text(text)
        if number == commits - 10:
            DeltaTable(path).create_checkpoint()


def _commit_info(batch: int) -> str:
    edges = (0, batch * RECORDS, (batch + 1) * RECORDS)
    at = [[{"t": {str(partition): offset for partition in range(PARTITIONS)}}] for offset in edges]
    offsets = dict(zip(("since", "from", "until"), at, strict=True))
    info = {"sink": "ingest.t", "query_id": "q", "statement": "bronze", "batch": batch, "offsets": offsets}
    return json.dumps(info)


if __name__ == "__main__":
    exit_on_error(main)
