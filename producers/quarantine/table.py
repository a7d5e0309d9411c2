"""The Delta table `quarantine`, read in batches without a JVM, at one version."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from conf.errors import TidemarkError
from conf.settings import Settings
from producers.quarantine.records import Coordinates, Rejected
from producers.quarantine.selection import Selection

# Rows carry whole records: few at a time, so that a million of them need no more memory than these.
BATCH_ROWS = 2_000
COLUMNS = ("key", "value", "topic", "partition", "offset", "timestamp", "headers", "schema_id", "error", "reason")
NEWER_COLUMNS = ("rule", "code_version", "quarantined_at")
ORDER = [("topic", "ascending"), ("partition", "ascending"), ("offset", "ascending")]


@dataclass(frozen=True)
class Slice:
    """Rows of one partition that belong together, in the order of their offsets, from the first to the last."""

    topic: str
    partition: int
    first: int
    last: int
    count: int


class Quarantine:
    """The table as it was when this was made.

    Raises:
        TidemarkError: NO_QUARANTINE, where there is no such table.
    """

    def __init__(self, settings: Settings) -> None:
        path = f"{settings.paths.tables}/quarantine"
        if not urlsplit(path).scheme and not Path(path, "_delta_log").is_dir():
            remedy = "run `./spark-submit.sh ingest` first: it makes the table when it rejects the first record"
            raise TidemarkError("NO_QUARANTINE", f"there is no table {path}", remedy)
        self._dataset = DeltaTable(path).to_pyarrow_dataset()

    def batches(self, selection: Selection, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Those `columns` of the selected rows, null where an older table lacks them, in the order of the files."""
        return self._scan(selection.condition(self._dataset.schema), columns)

    def index(self, selection: Selection) -> pa.Table:
        """Where the selected rows lie, in order: `topic`, `partition`, `offset`, `error`, `bytes` of key and value."""
        found = []
        for batch in self.batches(selection, ("topic", "partition", "offset", "error", "key", "value")):
            sizes = (pc.fill_null(pc.binary_length(batch[name]), 0) for name in ("key", "value"))
            columns = {name: batch[name] for name in ("topic", "partition", "offset")}
            # Texts that repeat a million times are kept once.
            columns["topic"] = columns["topic"].cast(pa.string())
            error = batch["error"].cast(pa.string()).dictionary_encode()
            found.append(pa.table({**columns, "error": error, "bytes": pc.add(*(pc.cast(s, "int64") for s in sizes))}))
        if not found:
            return pa.table({name: [] for name in ("topic", "partition", "offset", "error", "bytes")})
        return pa.concat_tables(found).unify_dictionaries().sort_by(ORDER)

    def rows(self, selection: Selection, part: Slice) -> list[Rejected]:
        """The selected rows of a slice, in order, each record once."""
        where = selection.within(self._dataset.schema, part.topic, part.partition, part.first, part.last)
        rows = [Rejected.from_row(row) for batch in self._scan(where, _ALL) for row in batch.to_pylist()]
        return sorted({row.at: row for row in rows}.values(), key=lambda row: row.at)

    def _scan(self, condition: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        names = self._dataset.schema.names
        there = [name for name in columns if name in names]
        scanner = self._dataset.scanner(
            columns=there, filter=condition, batch_size=BATCH_ROWS, batch_readahead=1, fragment_readahead=1
        )
        for batch in scanner.to_batches():
            if batch.num_rows:
                missing = [name for name in columns if name not in names]
                yield _with_nulls(batch, missing)


_ALL = (*COLUMNS, *NEWER_COLUMNS)


def slices(index: pa.Table, most: int, most_bytes: int) -> Iterator[Slice]:
    """Cut an `index` into slices of at most so many records and bytes (a larger record is one of its own)."""
    if not index.num_rows:
        return
    topics = index["topic"].combine_chunks().dictionary_encode()
    codes, names = topics.indices.to_numpy(), topics.dictionary.to_pylist()
    partitions, offsets, sizes = (index[name].to_numpy() for name in ("partition", "offset", "bytes"))
    new_place = (np.diff(codes) != 0) | (np.diff(partitions) != 0)
    edges = np.flatnonzero(new_place) + 1
    start, held, ends = 0, 0, {*edges.tolist(), index.num_rows}
    for row in range(index.num_rows):
        held += int(sizes[row])
        full = row + 1 - start >= most or (row + 1 < index.num_rows and held + int(sizes[row + 1]) > most_bytes)
        if full or row + 1 in ends:
            first, last = int(offsets[start]), int(offsets[row])
            yield Slice(names[codes[row]], int(partitions[row]), first, last, row + 1 - start)
            start, held = row + 1, 0


def first_coordinates(index: pa.Table, count: int) -> list[Coordinates]:
    """Of the first rows of an `index`."""
    rows = index.slice(0, count).select(["topic", "partition", "offset"]).to_pylist()
    return [Coordinates(row["topic"], row["partition"], row["offset"]) for row in rows]


def _with_nulls(batch: pa.RecordBatch, missing: Sequence[str]) -> pa.RecordBatch:
    for name in missing:
        kind = pa.timestamp("us", "UTC") if name == "quarantined_at" else pa.string()
        batch = batch.append_column(name, pa.nulls(batch.num_rows, kind))
    return batch
