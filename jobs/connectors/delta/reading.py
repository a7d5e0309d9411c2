"""Opens Delta tables without a JVM, and says in one line what keeps one from being read.

deltalake and pyarrow have no error in common, and theirs quote backtraces; every reader comes through here instead.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from conf.errors import TidemarkError
from jobs.connectors.delta.commit import ANEW, no_table
from jobs.connectors.files import table_uri


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
        from jobs.connectors.delta.damage import diagnosed  # it imports what starts do not need

        raise diagnosed(path, exc, anew) from exc
