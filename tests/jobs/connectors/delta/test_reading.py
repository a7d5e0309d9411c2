"""A table that cannot be read without a JVM is named in one line, with the file and what to do."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from conf.errors import TidemarkError
from jobs.connectors.delta import reading
from jobs.connectors.delta.log import DeltaLog
from jobs.connectors.delta.reading import StoredTable, find_table, naming_damage

ROWS = pa.table({"id": [1, 2, 3], "text": ["x", "y", "z"]})
COMMIT = f"{0:020}.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table of two files, one a commit."""
    for _ in range(2):
        write_deltalake(tmp_path / "table", ROWS, mode="append")
    return tmp_path / "table"


def data_file(folder: Path) -> Path:
    return sorted(folder.glob("*.parquet"))[0]


def overwritten(folder: Path) -> Path:
    file = data_file(folder)
    file.write_bytes(b"x" * file.stat().st_size)
    return file


def holed(folder: Path) -> Path:
    """Damaged where no footer tells of it, so that the error names no file."""
    file = data_file(folder)
    content = bytearray(file.read_bytes())
    content[4:60] = b"\xff" * 56
    file.write_bytes(content)
    return file


def cut(folder: Path) -> Path:
    file = data_file(folder)
    file.write_bytes(file.read_bytes()[:200])
    return file


def removed(folder: Path) -> Path:
    file = data_file(folder)
    file.unlink()
    return file


def damaged_commit(folder: Path) -> Path:
    file = folder / "_delta_log" / COMMIT
    file.write_text("{")
    return file


def removed_commit(folder: Path) -> Path:
    file = folder / "_delta_log" / COMMIT
    file.unlink()
    return file


def damaged_checkpoint(folder: Path) -> Path:
    DeltaTable(folder).create_checkpoint()
    [file] = folder.glob("_delta_log/*.checkpoint.parquet")
    file.write_bytes(file.read_bytes()[:100])
    return file


def rows(folder: Path) -> int:
    return int(StoredTable(str(folder)).rows().num_rows)


def batches(folder: Path) -> int:
    return sum(batch.num_rows for batch in StoredTable(str(folder)).batches(["id"], batch_size=1))


def scanned(folder: Path) -> int:
    """By deltalake's own reader, whose errors have no class."""
    table = StoredTable(str(folder)).delta
    with naming_damage(str(folder)):
        return sum(batch.num_rows for batch in table.scan(columns=["id"]))


@pytest.mark.parametrize("read", [rows, batches, scanned])
@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (overwritten, "DATA_FILE_DAMAGED"),
        (holed, "DATA_FILE_DAMAGED"),
        (cut, "DATA_FILE_DAMAGED"),
        (removed, "DATA_FILE_LOST"),
        (damaged_commit, "TABLE_LOG_DAMAGED"),
        (removed_commit, "TABLE_LOG_DAMAGED"),
        (damaged_checkpoint, "TABLE_LOG_DAMAGED"),
    ],
)
def test_what_is_damaged_is_named_in_a_line_whichever_way_it_is_read(
    damage: Callable[[Path], Path], code: str, read: Callable[[Path], int], folder: Path
) -> None:
    assert read(folder) == 6
    file = damage(folder)
    with pytest.raises(TidemarkError) as refused:
        read(folder)
    assert refused.value.code == code
    assert str(folder) in str(refused.value)
    assert file.name in str(refused.value)
    assert str(refused.value).isprintable()
    assert "from a copy, or" in refused.value.remedy


def test_a_checkpoint_of_a_log_that_is_damaged_is_named_by_whoever_reads_the_log(folder: Path) -> None:
    file = damaged_checkpoint(folder)
    with pytest.raises(TidemarkError, match=f"TABLE_LOG_DAMAGED: {file} cannot be read"):
        DeltaLog(str(folder)).app_ids()


def test_a_table_that_is_not_there_is_none_and_no_damage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in ("none", "file"):
        assert find_table(str(tmp_path / path)) is None
        with pytest.raises(TidemarkError, match=f"NO_TABLE: there is no Delta table at {tmp_path / path}"):
            StoredTable(str(tmp_path / path))


def test_a_table_of_a_newer_format_is_not_called_damaged(folder: Path) -> None:
    commit = folder / "_delta_log" / COMMIT
    lines = [json.loads(line) for line in commit.read_text().splitlines()]
    protocol = next(line["protocol"] for line in lines if "protocol" in line)
    protocol["minReaderVersion"] = 9
    commit.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(TidemarkError, match=r"NOT_READ: .*read it with Spark"):
        rows(folder)


def test_files_that_the_system_does_not_open_are_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object) -> NoReturn:
        raise OSError("Failed to open local file: [errno 24] Too many open files")

    monkeypatch.setattr("pyarrow.parquet.ParquetFile", refuse)
    for said in ("Too many open files", "Parquet magic bytes not found"):
        assert reading.diagnosed(str(folder), OSError(said), "delete it").code == "NOT_READ"


def test_files_that_were_removed_as_they_were_read_are_no_damage(folder: Path) -> None:
    def read() -> Iterator[None]:
        table = StoredTable(str(folder))
        write_deltalake(folder, ROWS, mode="overwrite")
        DeltaTable(folder).vacuum(0, dry_run=False, enforce_retention_duration=False)
        yield from (None for _ in table.batches(["id"]))

    with pytest.raises(TidemarkError, match=r"NOT_READ: .*run the same again"):
        list(read())


def test_what_the_block_itself_raises_stays(folder: Path) -> None:
    with pytest.raises(KeyError), naming_damage(str(folder)):
        raise KeyError("mine")
