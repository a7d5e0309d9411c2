"""How long does it take to check the year? Prints seconds of `local/tidemark coverage show` and `coverage check`, with
the start of Python, and of reading a log with 100,000 commits.

    local/tidemark demo
    .tidemark/venv/bin/python -m bench.coverage [--rounds 5] [--commits 100000]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from conf import ROOT, command_line, state_dir
from conf.errors import exit_on_error
from jobs.operations.coverage.tables import table_coverage

APP_ID = "ingest.t/bronze/t/bronze/q"
RECORDS = 10  # a batch and partition
PARTITIONS = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commits", type=int, default=100_000)
    options = command_line.parse(parser, sys.argv[1:])
    for command in ("show", "check"):
        line, seconds = _timed(options.rounds, lambda command=command: _run(command))
        print(f"{'coverage ' + command:<40} {seconds:6.2f} s   {line}", flush=True)
    with tempfile.TemporaryDirectory(dir=state_dir()) as scratch:
        path = str(Path(scratch) / "many")
        _make(path, options.commits)
        for verify, name in ((False, "the newest commits"), (True, "verified")):
            line, seconds = _timed(options.rounds, lambda verify=verify: _read(path, verify))
            print(f"{f'{options.commits:,} commits, {name}':<40} {seconds:6.2f} s   {line}", flush=True)
    return 0


def _timed(rounds: int, run: Callable[[], str]) -> tuple[str, float]:
    """The line of the last round, and the median of its seconds."""
    seconds, line = [], ""
    for _ in range(rounds):
        began = time.monotonic()
        line = run()
        seconds.append(time.monotonic() - began)
    return line, statistics.median(seconds)


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
    info = CommitProperties(
        custom_metadata={"userMetadata": _commit_info(0)}, app_transactions=[Transaction(APP_ID, 0)]
    )
    write_deltalake(path, row, commit_properties=info)
    log = Path(path) / "_delta_log"
    for number in range(1, commits):
        info = {"timestamp": 1_700_000_000_000 + number, "operation": "WRITE", "userMetadata": _commit_info(number)}
        actions = [{"commitInfo": info}, {"txn": {"appId": APP_ID, "version": number}}]
        text = "\n".join(json.dumps(action, separators=(",", ":")) for action in actions)
        (log / f"{number:020}.json").write_text(text)
        if number == commits - 10:
            DeltaTable(path).create_checkpoint()


def _commit_info(batch: int) -> str:
    at = [[{"t": {str(partition): offset for partition in range(PARTITIONS)}}] for offset in _edges(batch)]
    offsets = dict(zip(("since", "from", "until"), at, strict=True))
    info = {"sink": "ingest.t", "query_id": "q", "statement": "bronze", "batch": batch, "offsets": offsets}
    return json.dumps(info)


def _edges(batch: int) -> tuple[int, int, int]:
    return 0, batch * RECORDS, (batch + 1) * RECORDS


if __name__ == "__main__":
    exit_on_error(main)
