"""Opens Delta tables without a JVM, and says in one line which file of a table keeps it from being read.

deltalake and pyarrow have no error in common, and theirs quote backtraces; every reader comes through here instead.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, DeltaProtocolError, TableNotFoundError
from pyarrow import fs

from conf.errors import TidemarkError
from jobs.connectors.delta.log import ANEW, DeltaLog, log_damaged, no_table
from jobs.connectors.files import is_of_store, is_unopened, not_opened, one_line, storage, store_refuses, table_uri

LOST, DAMAGED = "DATA_FILE_LOST", "DATA_FILE_DAMAGED"
# None of these has a class of its own.
UNSUPPORTED, NO_FOLDER = "Kernel error: Unsupported", "Invalid table location"


class StoredTable:
    """The table at `path` as it was when this was made; all that it does raises what `naming_damage` says.

    Args:
        version: of the table; None for the newest.
        anew: what helps where a damaged file cannot be restored.
    """

    def __init__(self, path: str, version: int | None = None, anew: str = ANEW) -> None:
        self._path, self._anew = path, anew
        with self._naming():
            self.delta = DeltaTable(table_uri(path), version=version)

    @property
    def version(self) -> int:
        """Return the version that is read."""
        return int(self.delta.version())

    def count(self) -> int:
        """Return the number of rows, by what the table's log says of its files."""
        with self._naming():
            return int(self.delta.count())

    @property
    def columns(self) -> pa.Schema:
        """Return the names and types of the columns."""
        with self._naming():
            return self._dataset.schema

    def rows(
        self, columns: Sequence[str] | None = None, where: Any = None, schema: pa.Schema | None = None
    ) -> pa.Table:
        """Return the rows that `where` holds for; columns of `schema` that the table lacks are null."""
        with self._naming():
            dataset = self._dataset if schema is None else self.delta.to_pyarrow_dataset(schema=schema)
            return dataset.to_table(columns=None if columns is None else list(columns), filter=where)

    def batches(self, columns: Sequence[str], where: Any = None, **how: int) -> Iterator[pa.RecordBatch]:
        """Yield those rows in the order of the files, a part at a time; `how`: of `pyarrow.dataset.Scanner`."""
        with self._naming():
            yield from self._dataset.scanner(columns=list(columns), filter=where, **how).to_batches()

    @cached_property
    def _dataset(self) -> Any:
        # It has a part for each file, and imports pandas, which takes longer than all else that a command does.
        return self.delta.to_pyarrow_dataset()

    def delete(self, where: str) -> None:
        """Remove the rows that SQL's `where` holds for."""
        with self._naming():
            self.delta.delete(where)

    def _naming(self) -> AbstractContextManager[None]:
        return naming_damage(self._path, self._anew)


def find_table(path: str, version: int | None = None, anew: str = ANEW) -> StoredTable | None:
    """Return the table at `path`; None where there is none. Errors are those of `naming_damage`, but for NO_TABLE."""
    try:
        return StoredTable(path, version, anew)
    except TidemarkError as error:
        if error.code != "NO_TABLE":
            raise
        return None


@contextmanager
def naming_damage(path: str, anew: str = ANEW) -> Iterator[None]:
    """Turn what deltalake and pyarrow raise of the table at `path`, in the block, into an error of one line.

    Raises:
        TidemarkError: NO_TABLE; TABLE_LOG_DAMAGED, DATA_FILE_LOST, DATA_FILE_DAMAGED, with the file;
            OBJECT_STORE_REFUSES; NOT_READ, where it is something else.
    """
    try:
        yield
    except TableNotFoundError as exc:
        raise no_table(path) from exc
    except (CommitFailedError, MemoryError, pa.lib.ArrowCancelled):
        raise
    except Exception as exc:
        # What deltalake's own scans raise has no class but this one.
        if type(exc) is not Exception and not isinstance(exc, DeltaError | pa.ArrowException | OSError):
            raise
        raise diagnosed(path, exc, anew) from exc


class FileFault(NamedTuple):
    """What is wrong with a data file: LOST or DAMAGED, its path in the table, and how that shows."""

    code: str
    file: str
    text: str


def diagnosed(path: str, exc: Exception, anew: str) -> TidemarkError:
    """Return what is wrong with the table at `path`, of which deltalake or pyarrow raised `exc`.

    Args:
        anew: what helps where no copy is left.
    """
    if is_of_store(exc):
        return store_refuses(path, exc)
    if is_unopened(exc):
        return not_opened(path, exc)
    said = one_line(str(exc))
    if NO_FOLDER in said:
        return no_table(path)
    if isinstance(exc, DeltaProtocolError) or UNSUPPORTED in said:
        return _not_read(path, said, "read it with Spark")
    try:
        table = DeltaTable(table_uri(path))
    except TableNotFoundError:
        return no_table(path)
    except (DeltaError, OSError) as broken:
        return not_opened(path, broken) if is_unopened(broken) else _of_log(path, one_line(str(broken)), anew)
    try:
        fault = next(file_faults(path, table), None) or _unreadable(path, table, str(exc))
    except (DeltaError, OSError, pa.ArrowException) as failed:
        if is_unopened(failed):
            return not_opened(path, failed)
        return _not_read(path, one_line(str(failed)), "run the same again")
    if fault is not None:
        what = f"the data file {path}/{fault.file} {fault.text}"
        return TidemarkError(fault.code, what, f"restore it from a copy, or {anew}")
    # Compaction and vacuum may have removed what an earlier version has.
    remedy = "its files changed while it was read: run the same again" if isinstance(exc, OSError) else "see its writer"
    return _not_read(path, said, remedy)


def file_faults(path: str, table: DeltaTable) -> Iterator[FileFault]:
    """Yield the data files of `table` that are not there, or of another length than its log says.

    Raises:
        OSError, deltalake's errors: where the folder cannot be listed.
    """
    actions = table.get_add_actions()
    sizes = zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True)
    # One of another table, which a clone shares, has a scheme.
    listed = [(unquote(file), int(size)) for file, size in sizes if not urlsplit(file).scheme]
    # The folder is listed after the log: files that are added meanwhile do no harm.
    files, base = storage(path)
    # One listing: a look at each file would be a request.
    infos = files.get_file_info(fs.FileSelector(base.rstrip("/"), recursive=True, allow_not_found=True))
    lengths = {info.path.removeprefix(base): int(info.size) for info in infos if info.type == fs.FileType.File}
    for file, size in listed:
        length = lengths.get(file)
        if length is None:
            yield FileFault(LOST, file, "is not there")
        elif length != size:
            yield FileFault(DAMAGED, file, f"has {length:,} bytes, its log says {size:,}")


def _unreadable(path: str, table: DeltaTable, said: str) -> FileFault | None:
    """Return the first data file that cannot be read to its end, those that the error names before all others."""
    import pyarrow.parquet as pq  # starts do not need it

    files, base = storage(path)
    names = [unquote(file) for file in table.get_add_actions()["path"].to_pylist() if not urlsplit(file).scheme]
    named = [name for name in names if name.rpartition("/")[2] in said]
    for name in named or names:
        try:
            with files.open_input_file(f"{base}{name}") as file:
                for _ in pq.ParquetFile(file).iter_batches():
                    pass
        except (OSError, pa.ArrowException) as exc:
            if is_unopened(exc):
                raise  # the file may be whole
            return FileFault(DAMAGED, name, f"cannot be read: {one_line(str(exc))}")
    return None


def _of_log(path: str, said: str, anew: str) -> TidemarkError:
    """Return the TABLE_LOG_DAMAGED of a log that deltalake cannot read, with the file where that can be found."""
    try:
        log = DeltaLog(path)
        before = min((commit.version for commit in log.commits()), default=log.newest + 1) - 1
    except TidemarkError as error:
        is_damaged = error.code == "TABLE_LOG_DAMAGED"
        return log_damaged(path, error.message.rpartition(": ")[2], anew) if is_damaged else error
    except (OSError, LookupError, TypeError, AttributeError, OverflowError) as exc:
        return not_opened(path, exc) if is_unopened(exc) else log_damaged(path, said, anew)
    if before > log.checkpoint:
        return log_damaged(path, f"{before:020}.json is not there", anew)
    try:
        log.app_ids()
    except TidemarkError as error:
        return error
    return log_damaged(path, said, anew)


def _not_read(path: str, said: str, remedy: str) -> TidemarkError:
    return TidemarkError("NOT_READ", f"the table {path} cannot be read: {said}", remedy)
