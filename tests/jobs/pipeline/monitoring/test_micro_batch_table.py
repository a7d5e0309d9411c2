"""What a process has written of its micro-batches is there after it was killed, once, in table and journals."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from conf import ROOT
from conf.errors import TidemarkError
from conf.settings import Settings, load
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.monitoring.journal import BEGAN, ENDED, Journal
from jobs.pipeline.monitoring.micro_batch_table import COLUMNS, SCHEMA, fold, micro_batches

BEGUN_AT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
WRITER = """
import json, sys
from pathlib import Path
from jobs.pipeline.monitoring.journal import Journal
journal = Journal(Path(sys.argv[1]), "victim")
for kind, row in json.loads(sys.argv[2]):
    journal.append(kind, row)
print("written", flush=True)
sys.stdin.read()
"""
# Kills itself at a moment of the cut.
CUTTER = """
import json, os, signal, sys
from pathlib import Path
from conf.settings import load
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.monitoring.journal import BEGAN, ENDED, Journal
folder, tables, moment, row = json.loads(sys.argv[1])
settings = load("local", [f"paths.tables={tables}", f"paths.logs={Path(folder).parent}"])
micro_batch_table.CUT_BYTES = 1
own = Journal(Path(folder), "victim")
own.append(BEGAN, row)
own.append(ENDED, row | {"batch": 1})
micro_batch_table.fold(settings)
own.append(ENDED, row | {"batch": 2})
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if moment == "replace":
    Path.replace = kill
elif moment == "fsync":
    os.fsync = kill
else:
    replace = Path.replace
    Path.replace = lambda *paths: (replace(*paths), kill())
micro_batch_table.fold(settings, own)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load("local", [f"paths.tables={tmp_path}/tables", f"paths.logs={tmp_path}/logs"])


def row(batch: int, **more: Any) -> dict[str, Any]:
    said = {
        "job": "j",
        "query": "j.q",
        "query_id": "i",
        "run_id": "r",
        "batch": batch,
        "outcome": "done",
        "rows_in": 10,
    }
    return said | {"began_at": (BEGUN_AT + timedelta(seconds=batch)).isoformat(), "failed_rules": {"known": 1}} | more


def batches(settings: Settings) -> list[tuple[int, str]]:
    rows = micro_batches(settings).to_pylist()
    return [(each["batch"], each["outcome"]) for each in rows]


class Victim:
    """A process that writes lines and then waits to be killed."""

    def __init__(self, settings: Settings, *lines: tuple[str, dict[str, Any]]) -> None:
        command = [sys.executable, "-c", WRITER, str(micro_batch_table.journal_folder(settings)), json.dumps(lines)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"written\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def victims() -> Iterator[list[Victim]]:
    running: list[Victim] = []
    yield running
    for victim in running:
        victim.kill()


def test_a_killed_process_leaves_its_batches_and_the_one_it_was_at(settings: Settings) -> None:
    begun = row(2, outcome=None, offsets=[{"topic": "t", "partition": 0, "start": 5, "end": 9}])
    victim = Victim(settings, (BEGAN, row(1)), (ENDED, row(1)), (BEGAN, begun))
    assert batches(settings) == [(1, "done")]  # it may still end
    victim.kill()
    expected = [(1, "done"), (2, "killed")]
    assert batches(settings) == expected
    fold(settings)
    assert batches(settings) == expected
    assert not list(micro_batch_table.journal_folder(settings).glob("*.jsonl"))
    [killed] = [each for each in micro_batches(settings).to_pylist() if each["outcome"] == "killed"]
    assert killed["offsets"] == [{"topic": "t", "partition": 0, "start": 5, "end": 9}]
    assert killed["ended_at"] is None


def test_a_journal_is_folded_while_its_process_goes_on_each_line_once(settings: Settings) -> None:
    with closing(Journal(micro_batch_table.journal_folder(settings), "job/of mine")) as writer:
        writer.append(ENDED, row(0))
        fold(settings)
        writer.append(ENDED, row(1))
        assert batches(settings) == [(0, "done"), (1, "done")]
        fold(settings)
        fold(settings)
        assert writer.path.exists()
        assert batches(settings) == [(0, "done"), (1, "done")]
    table = DeltaTable(micro_batch_table.table_path(settings))
    assert table.to_pyarrow_table().schema.names == SCHEMA.names
    assert dict(table.to_pyarrow_table()["failed_rules"][0].as_py()) == {"known": 1}


def test_a_line_cut_short_costs_itself_only(settings: Settings, victims: list[Victim]) -> None:
    victim = Victim(settings, (ENDED, row(0)), (ENDED, row(1)))
    victim.kill()
    [path] = micro_batch_table.journal_folder(settings).glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-7])
    assert batches(settings) == [(0, "done")]
    fold(settings)
    assert batches(settings) == [(0, "done")]


def test_rows_of_a_killed_batch_are_not_taken_again_where_the_journal_stayed(settings: Settings) -> None:
    victim = Victim(settings, (BEGAN, row(3)))
    victim.kill()
    [path] = micro_batch_table.journal_folder(settings).glob("*.jsonl")
    kept = path.read_bytes()
    fold(settings)
    path.write_bytes(kept)  # as if the process that folded had been killed before it removed the journal
    fold(settings)
    assert batches(settings) == [(3, "killed")]


def test_a_journal_that_grows_is_cut_and_what_is_open_stays_open(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro_batch_table, "CUT_BYTES", 1)
    with closing(Journal(micro_batch_table.journal_folder(settings), "j")) as writer:
        writer.append(BEGAN, row(0))
        for number in range(1, 40):
            writer.append(BEGAN, row(number))
            writer.append(ENDED, row(number))
        whole = writer.path.stat().st_size
        fold(settings, writer)
        assert writer.path.stat().st_size < whole / 10
        writer.append(BEGAN, row(40))
        assert len(batches(settings)) == 39
        fold(settings, writer)
        writer.append(ENDED, row(0))
        fold(settings, writer)
        assert batches(settings) == [(number, "done") for number in range(40)]
    expected = [*((number, "done") for number in range(40)), (40, "killed")]
    assert batches(settings) == expected
    fold(settings)
    assert batches(settings) == expected


@pytest.mark.parametrize("moment", ["fsync", "replace", "close"])
def test_a_process_that_is_killed_while_it_cuts_its_journal_loses_and_doubles_nothing(
    settings: Settings, moment: str
) -> None:
    """Before the new file is whole, before it takes the old one's place, and right after."""
    folder = micro_batch_table.journal_folder(settings)
    command = [sys.executable, "-c", CUTTER, json.dumps([str(folder), str(settings.paths.tables), moment, row(0)])]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -signal.SIGKILL
    expected = [(0, "killed"), (1, "done"), (2, "done")]
    assert batches(settings) == expected
    fold(settings)
    assert batches(settings) == expected
    assert [path.name for path in folder.iterdir()] == ["fold.lock"]


def test_rows_that_a_full_disk_cut_short_cost_themselves_only(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    with closing(Journal(micro_batch_table.journal_folder(settings), "j")) as writer:
        monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:20]))
        writer.append(ENDED, row(0))
        monkeypatch.undo()
        writer.append(ENDED, row(1))
        assert batches(settings) == [(1, "done")]


def test_a_table_that_an_older_version_made_goes_on(settings: Settings) -> None:
    older = pa.schema([field for field in SCHEMA if field.name not in ("run", "rows_out", "rejected_by_code")])
    begun = BEGUN_AT - timedelta(days=1)
    values = {"job": "j", "query": "j.q", "batch": 7, "outcome": "done", "began_at": begun}
    columns = [pa.array([values.get(field.name)], field.type) for field in older]
    write_deltalake(micro_batch_table.table_path(settings), pa.table(columns, older))
    with closing(Journal(micro_batch_table.journal_folder(settings), "j")) as writer:
        writer.append(ENDED, row(8, run="stream", rows_out={"readings": 3}))
        assert batches(settings) == [(7, "done"), (8, "done")]
        fold(settings)
    found = micro_batches(settings).to_pylist(maps_as_pydicts="strict")
    assert [(each["batch"], each["run"], each["rows_out"]) for each in found] == [
        (7, None, None),
        (8, "stream", {"readings": 3}),
    ]


def test_old_rows_are_removed(settings: Settings) -> None:
    with closing(Journal(micro_batch_table.journal_folder(settings), "j")) as writer:
        for number in range(3):
            writer.append(ENDED, row(number))
    fold(settings)
    micro_batch_table.expire(settings, BEGUN_AT + timedelta(seconds=2))
    assert batches(settings) == [(2, "done")]


def test_a_journal_that_cannot_be_written_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    with closing(Journal(tmp_path / "file" / "folder", "j")) as writer:
        writer.append(ENDED, row(0))
        writer.append(ENDED, row(1))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("note: the journal ")
    assert "micro-batches go on" in line


def test_every_column_says_what_it_means() -> None:
    assert all(column.meaning for column in COLUMNS)
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)


def test_the_newest_are_found_in_journals_and_table_and_files_of_older_ones_are_not_opened(settings: Settings) -> None:
    now = datetime.now(UTC)
    ages = [timedelta(days=30), timedelta(days=3), timedelta(hours=2), timedelta(minutes=5)]
    with closing(Journal(micro_batch_table.journal_folder(settings), "j")) as writer:
        for number, age in enumerate(ages):
            fold(settings)  # each in a file of its own, the newest in the journal alone
            writer.append(ENDED, row(number, began_at=(now - age).isoformat(), query=f"q{number % 2}"))

        def newest(count: int, query: str | None = None) -> list[int]:
            where = micro_batch_table.ALL if query is None else pc.field("query") == query
            numbers: list[int] = micro_batch_table.newest(settings, count, where)["batch"].to_pylist()
            return numbers

        assert [newest(count) for count in (1, 2, 3, 4, 5)] == [[3], [2, 3], [1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
        assert [newest(count, "q0") for count in (1, 2, 3)] == [[2], [0, 2], [0, 2]]
        [oldest] = [
            file
            for file in DeltaTable(micro_batch_table.table_path(settings)).file_uris()
            if pq.read_table(file)["batch"].to_pylist() == [0]
        ]
        Path(oldest).write_bytes(b"not Parquet")
        assert newest(2, "q1") == [1, 3]
        recent = micro_batch_table.micro_batches(
            settings, micro_batch_table.since(now - timedelta(days=7)), micro_batch_table.ORDER
        )
        assert recent["batch"].to_pylist() == [1, 2, 3]
        with pytest.raises(TidemarkError, match=f"DATA_FILE_DAMAGED: .*{Path(oldest).name} .*move the table away"):
            newest(4)
