"""The table of micro-batches: the journals of all processes, folded into a Delta table.

The table takes each line of a journal once: its transaction identifier is the file, its version the place up to which
it has been taken.
"""

import fcntl
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from conf.settings import Settings
from jobs.connectors.files import table_uri
from jobs.pipeline import paths
from jobs.pipeline.monitoring.definitions import SCHEMA, TIME
from jobs.pipeline.monitoring.journal_file import BESIDE, SUFFIX, Journal, read_journal

FOLDER = "micro_batches"  # beside the logs
CUT_BYTES = 1_000_000  # some hundred micro-batches
READ_ATTEMPTS = 3


def journal_folder(settings: Settings) -> Path:
    """Where the journals of all processes of this machine lie."""
    return Path(settings.paths.logs) / FOLDER


def table_path(settings: Settings) -> str:
    """Where the table of micro-batches lies."""
    return paths.table(settings.paths.tables, paths.MICRO_BATCHES)


def fold(settings: Settings, own: Journal | None = None) -> None:
    """Take what journals hold into the table; journals whose processes are gone are removed then.

    Args:
        own: this process's, which is cut once CUT_BYTES of it are in the table.

    Raises:
        OSError, deltalake's errors: where table or journals cannot be read or written.
    """
    folder, uri = journal_folder(settings), table_uri(table_path(settings))
    if not folder.is_dir():
        return
    with _alone(folder) as is_alone:
        if not is_alone:
            return
        table = _table(settings)
        for path in _journals(folder):
            folded = _folded(table, path)
            unfolded = read_journal(path, folded)
            if unfolded.rows:
                version = unfolded.end + unfolded.is_finished  # the last time adds rows of killed batches only
                properties = CommitProperties(app_transactions=[Transaction(_app_id(path), version)])
                write_deltalake(
                    uri, as_table(unfolded.rows), mode="append", schema_mode="merge", commit_properties=properties
                )
                folded = unfolded.end
            if unfolded.is_finished:
                path.unlink()
            elif own is not None and path == own.path and folded - unfolded.start >= CUT_BYTES:
                own.cut(folded)
        for path in folder.glob(f"*{BESIDE}"):  # of a process that was killed as it cut its journal
            path.unlink()


def micro_batches(settings: Settings) -> pa.Table:
    """Every micro-batch that table and journals know, oldest first; columns as `definitions.SCHEMA`."""
    for _ in range(READ_ATTEMPTS):
        table, found, is_whole = _table(settings), [SCHEMA.empty_table()], True
        if table is not None:
            found.append(_with_all_columns(table.to_pyarrow_table()))
        for path in _journals(journal_folder(settings)):
            try:
                unfolded = read_journal(path, folded := _folded(table, path))
            except FileNotFoundError:
                is_whole = False
            else:
                is_whole = is_whole and unfolded.start <= folded
                found.append(as_table(unfolded.rows))
        if is_whole:
            break
        # What is neither here nor there was folded between the two readings.
    return pa.concat_tables(found).sort_by([("began_at", "ascending"), ("query", "ascending"), ("batch", "ascending")])


def expire(settings: Settings, before: datetime) -> None:
    """Remove rows of micro-batches that began before a time; nothing where there is no table."""
    table = _table(settings)
    if table is not None:
        limit = f"arrow_cast('{before.astimezone(UTC):%Y-%m-%dT%H:%M:%S}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
        table.delete(f"began_at < {limit}")


def as_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of journals as Arrow columns by `definitions.SCHEMA`."""
    columns = []
    for field in SCHEMA:
        values = [row.get(field.name) for row in rows]
        if field.type == TIME:
            values = [datetime.fromisoformat(value) if value else None for value in values]
        elif pa.types.is_map(field.type):
            values = [None if value is None else list(value.items()) for value in values]
        columns.append(pa.array(values, field.type))
    return pa.table(columns, SCHEMA)


def _with_all_columns(table: pa.Table) -> pa.Table:
    """A table that an older version may have made, with nulls in the columns that it lacks."""
    for field in SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(SCHEMA.names).cast(SCHEMA)


def _journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def _table(settings: Settings) -> DeltaTable | None:
    uri = table_uri(table_path(settings))
    return DeltaTable(uri) if DeltaTable.is_deltatable(uri) else None


def _app_id(journal: Path) -> str:
    return f"{socket.gethostname()}/{journal.name}"


def _folded(table: DeltaTable | None, journal: Path) -> int:
    """How many bytes of a journal the table has."""
    return int(table.transaction_version(_app_id(journal)) or 0) if table is not None else 0


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other process of this machine folds at the same time."""
    with (folder / "fold.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
