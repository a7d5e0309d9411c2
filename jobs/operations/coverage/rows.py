"""Reads the rows of tables that keep their records' coordinates, and counts them against the offsets of commits."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from jobs.connectors.delta.reading import StoredTable, naming_damage
from jobs.connectors.files import storage
from jobs.operations.coverage.tables import TableCoverage

WIDENING = {"typeWidening", "typeWidening-preview"}
VECTORS = "deletionVectors"
Offsets = npt.NDArray[np.int64]
OffsetRun = tuple[int, int]


@dataclass
class OffsetBitmap:
    """Counts which offsets of one partition rows hold, from `start` to before `end`: a byte each.

    Args:
        doubled: offsets of rows whose record has a row already.
        beyond: offsets of rows that lie outside.
    """

    start: int
    end: int
    rows: int = 0
    doubled: list[Offsets] = field(default_factory=list)
    beyond: list[Offsets] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._held = np.zeros(self.end - self.start, dtype=bool)

    def take(self, offsets: Offsets) -> None:
        """Count rows with these offsets."""
        self.rows += len(offsets)
        inside = (offsets >= self.start) & (offsets < self.end)
        if not inside.all():
            self.beyond.append(offsets[~inside])
        held = np.sort(offsets[inside])
        again = self._held[held - self.start]
        again[1:] |= held[1:] == held[:-1]
        if again.any():
            self.doubled.append(held[again])
        self._held[held - self.start] = True

    def holes(self, within: Iterable[OffsetRun]) -> list[OffsetRun]:
        """Return the runs of offsets, from the first to before the second, that no row holds, among those `within`."""
        holes: list[OffsetRun] = []
        for start, end in within:
            held = self._held[start - self.start : end - self.start]
            edges = np.flatnonzero(np.diff(np.concatenate([[True], held, [True]]).astype(np.int8)))
            holes += [(start + int(first), start + int(past)) for first, past in edges.reshape(-1, 2)]
        return holes


def row_coordinates(
    held: TableCoverage, partition: str, offset: str, topic: str | None = None
) -> Iterator[tuple[Offsets, Offsets]]:
    """Yield the partitions and offsets of a table's rows at its version, a part at a time.

    Args:
        partition, offset: the columns' names.
        topic: only rows whose column `topic` is this.

    Raises:
        TidemarkError: as `naming_damage`.
    """
    table = _opened(held.path, held.version, held.anew)
    with naming_damage(held.path, held.anew):
        if WIDENING & _features(table):
            yield from _in_files(held.path, table, (partition, offset), topic)
            return
        where = None if topic is None else "topic = '{}'".format(topic.replace("'", "''"))
        # The arrays are used as they come: pyarrow's would import pandas, which takes longer than all else.
        for batch in table.scan(columns=[partition, offset], predicate=where):
            yield batch[partition].to_numpy().astype(np.int64), batch[offset].to_numpy()


def _in_files(
    path: str, table: DeltaTable, columns: tuple[str, str], topic: str | None
) -> Iterator[tuple[Offsets, Offsets]]:
    """Read the data files themselves: deltalake reads no table with widened types. Coordinates are not widened."""
    files, base = storage(path)
    names = [*columns, *([] if topic is None else ["topic"])]
    for name in table.get_add_actions()["path"].to_pylist():
        with files.open_input_file(f"{base}{unquote(name)}") as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=names):
                rows = batch if topic is None else batch.filter(pc.equal(batch["topic"].cast("string"), topic))
                partitions, offsets = (np.from_dlpack(rows[name]).astype(np.int64, copy=False) for name in columns)
                yield partitions, offsets


def columns_of(held: TableCoverage) -> set[str]:
    """Return the names of the table's columns."""
    return {field.name for field in _opened(held.path, held.version, held.anew).schema().fields}


def can_be_read(held: TableCoverage) -> bool:
    """Return whether rows that were deleted can be told from those that are there."""
    table = _opened(held.path, held.version, held.anew)
    return not (WIDENING & _features(table) and VECTORS in _features(table))


def _features(table: DeltaTable) -> set[str]:
    return set(table.protocol().reader_features or ())


# Opening a table reads its log; each is asked for its columns first, then for its rows.
@lru_cache(maxsize=16)
def _opened(path: str, version: int, anew: str) -> DeltaTable:
    return StoredTable(path, version, anew).delta


def offset_runs(offsets: Offsets) -> list[OffsetRun]:
    """Turn sorted offsets into runs, from the first to before the second."""
    if not len(offsets):
        return []
    edges = np.flatnonzero(np.diff(offsets) > 1)
    starts, ends = np.concatenate([[0], edges + 1]), np.concatenate([edges, [len(offsets) - 1]])
    return [(int(offsets[first]), int(offsets[last]) + 1) for first, last in zip(starts, ends, strict=True)]


def distinct_offsets(parts: Sequence[Offsets]) -> Offsets:
    """Return the offsets of all parts, sorted, each once."""
    offsets = np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
    return offsets[np.concatenate([[True], np.diff(offsets) != 0])] if len(offsets) else offsets
