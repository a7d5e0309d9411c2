"""Keeps the table of micro-batches, a Delta table: defines its columns, folds the journals of all processes into it,
and reads both.

The recorder, the command `history` and docs/operate.md are made of the columns. The table takes each line of a journal
once: its transaction identifier is the file, its version the place up to which it has been taken.
"""

import fcntl
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, Transaction, write_deltalake

from conf.settings import Settings
from jobs.connectors.delta.reading import StoredTable
from jobs.connectors.exactly_once.process import Author
from jobs.connectors.files import table_uri
from jobs.pipeline import paths
from jobs.pipeline.monitoring.journal import BESIDE, SUFFIX, Journal, read_journal
from jobs.pipeline.paths import find_stored

TIME = pa.timestamp("us", "UTC")
COUNTS = pa.map_(pa.string(), pa.int64())
OFFSETS = pa.list_(pa.struct({"topic": pa.string(), "partition": pa.int32(), "start": pa.int64(), "end": pa.int64()}))
FOLDER = "micro_batches"  # beside the logs
CUT_BYTES = 1_000_000  # some hundred micro-batches
READ_ATTEMPTS = 3
ORDER = ("began_at", "query", "batch")
# Each micro-batch has this column; for a constant, made of a Python value, Arrow would load pandas.
ALL = pc.field("began_at").is_valid()
# The newest micro-batches are looked for in these parts of the past first: files that are older are not opened.
NEWEST_WITHIN = (timedelta(hours=1), timedelta(days=1), timedelta(days=7))


@dataclass(frozen=True)
class Column:
    """A column of the table of micro-batches; `unit` is empty where there is none."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str


COLUMNS = (
    Column("job", pa.string(), "", "the job's name"),
    Column("query", pa.string(), "", "the query's name: the job's own, or JOB.OUTPUT"),
    Column("run", pa.string(), "", "stream, range (`--from`, `--to`) or replay; null in rows of older versions"),
    Column("query_id", pa.string(), "", "Spark's id of the query, the same for as long as its checkpoint"),
    Column("run_id", pa.string(), "", "Spark's id of this start of the query"),
    Column("batch", pa.int64(), "", "the micro-batch's number in its checkpoint"),
    Column("began_at", TIME, "", "when the micro-batch was triggered; for a killed one, when its write began"),
    Column("ended_at", TIME, "", "when it ended; null for one whose process was killed"),
    Column("outcome", pa.string(), "", "done, failed (the query stopped), or killed (its process was gone)"),
    Column("error", pa.string(), "", "what stopped it: CODE: message; null for a batch that is done"),
    Column("offsets", OFFSETS, "", "by topic and partition: from offset `start` to before offset `end`"),
    Column("lag", pa.int64(), "records", "in the topics and in no micro-batch yet; null where that is not known"),
    Column(
        "rows_in", pa.int64(), "records", "read from the topics; of a range or replay that does not count, its offsets"
    ),
    Column("bytes_in", pa.int64(), "bytes", "of the keys and values of those, where they were counted"),
    Column(
        "rows_out", COUNTS, "rows", "written to each table or topic; 0 for a write that an earlier attempt had made"
    ),
    Column("rejected", pa.int64(), "records", "went to quarantine, or were left out by a job that keeps none"),
    Column("rejected_by_code", COUNTS, "records", "that were rejected, by code"),
    Column("failed_rules", COUNTS, "records", "that fail each data rule, by its name"),
    Column("late", pa.int64(), "rows", "dropped by the watermark, into the table `late`"),
    Column("watermark", TIME, "", "the event time before which the query takes nothing more; null before there is one"),
    Column("max_event_time", TIME, "", "the newest event time of the micro-batch; null without a watermark"),
    Column("state_rows", pa.int64(), "rows", "that the query keeps in its state; null for a query without state"),
    Column("state_bytes", pa.int64(), "bytes", "of memory that the state takes; null for a query without state"),
    Column("phases", COUNTS, "ms", "what each phase took, by Spark's name of it; `triggerExecution` is the whole"),
    Column(
        "write_phases",
        COUNTS,
        "ms",
        "the parts of Spark's phase `addBatch`, see docs/operate.md; some run side by side",
    ),
    Column("code_version", pa.string(), "", "of this code: package version and hash of its sources"),
    Column("host", pa.string(), "", "the machine of the driver"),
    Column("pid", pa.int64(), "", "the driver's process id"),
    Column("boot", pa.string(), "", "Linux's id of the machine's boot; with the next two it names the process"),
    Column("pid_namespace", pa.string(), "", "that the process id is of: a container has its own"),
    Column("pid_started", pa.string(), "", "when that process began, in ticks after the boot"),
)
SCHEMA = pa.schema([pa.field(column.name, column.type) for column in COLUMNS])


def journal_folder(settings: Settings) -> Path:
    """Return where the journals of all processes of this machine lie."""
    return Path(settings.paths.logs) / FOLDER


def table_path(settings: Settings) -> str:
    return paths.table(settings.paths.tables, paths.MICRO_BATCHES)


def fold(settings: Settings, own: Journal | None = None) -> None:
    """Take what journals hold into the table; journals whose processes are gone are removed then.

    Args:
        own: this process's, which is cut once CUT_BYTES of it are in the table.

    Raises:
        TidemarkError: where the table cannot be read, as `naming_damage` says.
        OSError, deltalake's errors: where journals cannot be read, or the table cannot be written.
    """
    folder, uri = journal_folder(settings), table_uri(table_path(settings))
    if not folder.is_dir():
        return
    with _alone(folder) as is_alone:
        if not is_alone:
            return
        table = find_stored(settings, paths.MICRO_BATCHES)
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


def micro_batches(settings: Settings, where: pc.Expression = ALL, columns: Sequence[str] = SCHEMA.names) -> pa.Table:
    """Return the micro-batches that table and journals know, oldest first.

    Args:
        where: holds for those that are wanted. A file of the table that has none of them, as far as the table's log
            tells, is not opened.
        columns: of `SCHEMA`, ORDER among them.

    Raises:
        TidemarkError: as `naming_damage`.
    """
    for _ in range(READ_ATTEMPTS):
        table, found, is_whole = (
            find_stored(settings, paths.MICRO_BATCHES),
            [SCHEMA.empty_table().select(columns)],
            True,
        )
        if table is not None:
            # A table that an older version has made gets nulls in the columns that it lacks.
            found.append(table.rows(columns, where, SCHEMA))
        for path in _journals(journal_folder(settings)):
            try:
                unfolded = read_journal(path, folded := _folded(table, path))
            except FileNotFoundError:
                is_whole = False
            else:
                is_whole = is_whole and unfolded.start <= folded
                found.append(as_table(unfolded.rows).filter(where).select(columns))
        if is_whole:
            break
        # What is in neither was folded between the two readings.
    return pa.concat_tables(found).sort_by([(name, "ascending") for name in ORDER])


def newest(settings: Settings, count: int, where: pc.Expression = ALL) -> pa.Table:
    """Return the newest `count` of the micro-batches that `where` holds for, oldest first, in all columns."""
    now = datetime.now(UTC)
    for age in NEWEST_WITHIN:
        found = micro_batches(settings, where & since(now - age), ORDER)
        if len(found) >= count:
            break
    else:
        found = micro_batches(settings, where, ORDER)
    if len(found) >= count:
        where &= since(found["began_at"][-count].as_py())
    rows = micro_batches(settings, where)
    return rows.slice(max(0, len(rows) - count))


def since(time: datetime) -> pc.Expression:
    """Return whether a micro-batch began at that time or later."""
    return pc.field("began_at") >= pa.scalar(time, TIME)


def process_columns(process: Author) -> dict[str, Any]:
    """Return the columns that name the driver of a micro-batch."""
    named = {"boot": process.boot, "pid_namespace": process.namespace, "pid_started": process.started}
    return {"host": process.host, "pid": process.pid, **named}


def process_of(row: Mapping[str, Any]) -> Author:
    """Return the driver of a micro-batch; without what older versions did not note of it."""
    host, boot, namespace, started = (row[name] or "" for name in ("host", "boot", "pid_namespace", "pid_started"))
    return Author(host, boot, namespace, row["pid"] or 0, started)


def expire(settings: Settings, before: datetime) -> None:
    """Remove rows of micro-batches that began before a time; nothing where there is no table."""
    table = find_stored(settings, paths.MICRO_BATCHES)
    if table is not None:
        limit = f"arrow_cast('{before.astimezone(UTC):%Y-%m-%dT%H:%M:%S}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
        table.delete(f"began_at < {limit}")


def as_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return the rows of journals as Arrow columns by `SCHEMA`."""
    columns = []
    for field in SCHEMA:
        values = [row.get(field.name) for row in rows]
        if field.type == TIME:
            values = [datetime.fromisoformat(value) if value else None for value in values]
        elif pa.types.is_map(field.type):
            values = [None if value is None else list(value.items()) for value in values]
        columns.append(pa.array(values, field.type))
    return pa.table(columns, SCHEMA)


def _journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def _app_id(journal: Path) -> str:
    return f"{socket.gethostname()}/{journal.name}"


def _folded(table: StoredTable | None, journal: Path) -> int:
    return int(table.delta.transaction_version(_app_id(journal)) or 0) if table is not None else 0


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Keep other processes of this machine from folding in the block; give whether none does already."""
    with (folder / "fold.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
