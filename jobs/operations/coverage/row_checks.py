"""Checks tables that keep their records' coordinates row by row: bronze, and silver together with quarantine."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from jobs.connectors.delta.reading import StoredTable, naming_damage
from jobs.connectors.files import storage
from jobs.connectors.kafka.consumer import ReadCommittedConsumer
from jobs.connectors.kafka.offsets import Edges
from jobs.operations.coverage.query_offsets import Finding, Span, merge_spans, offsets_finding
from jobs.operations.coverage.tables import TableCoverage
from jobs.pipeline import paths

BRONZE = ("partition", "offset")
SILVER = ("_partition", "_offset")
DELETED = "_deleted"  # a column of silver tables that hold only the newest row of each key
WIDENING = {"typeWidening", "typeWidening-preview"}
Offsets = npt.NDArray[np.int64]
NO_OFFSETS: Offsets = np.empty(0, np.int64)
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


@dataclass
class RowAudit:
    """Compares tables whose rows together should be the records of a topic, each once.

    Args:
        name: what they are called together.
        tables: those whose commits say which offsets they hold, by name.
        beside: the table quarantine, whose rows of the topic count too, and whose commits do not.
        has_all: False where older rows make way for newer ones.
    """

    name: str
    topic: str
    columns: tuple[str, str]
    tables: dict[str, TableCoverage]
    beside: TableCoverage | None = None
    has_all: bool = True
    bitmaps: dict[int, OffsetBitmap] = field(default_factory=dict)

    def expected(self) -> dict[int, list[OffsetRun]]:
        """Return the offsets of each partition that all of the tables hold, by their commits."""
        first, *others = (self._runs(table) for table in self.tables.values())
        return {
            partition: reduce(_common, (runs.get(partition, []) for runs in others), held)
            for partition, held in first.items()
        }

    def read(self) -> int:
        """Read the rows; return how many."""
        committed = merge_spans(span for table in self.tables.values() for span in self._spans(table))
        for partition in {span.partition for span in committed}:
            spans = [span for span in committed if span.partition == partition]
            self.bitmaps[partition] = OffsetBitmap(
                min(span.start or 0 for span in spans), max(span.end for span in spans)
            )
        for table in self.tables.values():
            self._take(_row_coordinates(table, *self.columns))
        if self.beside:
            self._take(_row_coordinates(self.beside, *BRONZE, self.topic), False)
        return sum(bitmap.rows for bitmap in self.bitmaps.values())

    def _take(self, batches: Iterable[tuple[Offsets, Offsets]], has_commits: bool = True) -> None:
        for partitions, offsets in batches:
            for partition in np.flatnonzero(np.bincount(partitions)).tolist():
                taken = offsets[partitions == partition]
                if partition in self.bitmaps:
                    bitmap = self.bitmaps[partition]
                    taken = taken if self._begins() else taken[taken >= bitmap.start]
                    # Quarantine is read last: a batch that is under way may be there already.
                    bitmap.take(taken if has_commits else taken[taken < bitmap.end])
                elif has_commits:
                    self.bitmaps[partition] = OffsetBitmap(0, 0)
                    self.bitmaps[partition].take(taken)

    def _begins(self) -> bool:
        """Return whether it is known where the tables begin: commits of older code said only where each batch did."""
        return all(chain.begins for table in self.tables.values() for chain in table.chains)

    def _runs(self, table: TableCoverage) -> dict[int, list[OffsetRun]]:
        runs: dict[int, list[OffsetRun]] = {}
        for span in self._spans(table):
            runs.setdefault(span.partition, []).append((span.start or 0, span.end))
        return runs

    def _spans(self, table: TableCoverage) -> list[Span]:
        return merge_spans(span for chain in table.chains for span in chain.spans if span.topic == self.topic)


def unreadable_tables(audit: RowAudit) -> Iterator[Finding]:
    """Find tables that cannot be read here; without them nothing of the audit can be compared."""
    for name, table in {**audit.tables, **({paths.QUARANTINE: audit.beside} if audit.beside else {})}.items():
        if not _can_be_read(table):
            text = f"{name}: its rows are not compared: it has both widened types and deletion vectors"
            remedy = "ALTER TABLE ... DROP FEATURE deletionVectors lets every reader read it"
            yield Finding("NOT_COMPARED", audit.name, text, remedy, audit.topic)


def row_audits(
    tables: Mapping[str, TableCoverage], quarantines: Mapping[str, TableCoverage], checked: Container[str]
) -> Iterator[RowAudit]:
    """Yield the audits that can be made of `tables`, those in which one at least is to be `checked`.

    Args:
        quarantines: by the folder of a range, "" for the live one.
    """
    silver: dict[tuple[str, str], dict[str, TableCoverage]] = {}
    for name, table in tables.items():
        match = paths.TOPIC_TABLE.match(name)
        if match is None or not table.chains:
            continue
        if match["layer"] == "bronze":
            if name in checked and name == match[0] and set(BRONZE) <= _columns_of(table):
                yield RowAudit(name, match["topic"], BRONZE, {name: table})
        else:
            silver.setdefault((match["range"] or "", match["topic"]), {})[name] = table
    for (folder, topic), silver_tables in silver.items():
        if not any(name in checked for name in silver_tables):
            continue
        columns = [_columns_of(table) for table in silver_tables.values()]
        if all(set(SILVER) <= names for names in columns):
            has_all = not any(DELETED in names for names in columns)
            named = " and ".join([*silver_tables, *([f"{folder}{paths.QUARANTINE}"] if has_all else [])])
            beside = quarantines.get(folder) if has_all else None
            yield RowAudit(named, topic, SILVER, silver_tables, beside, has_all)


def check_rows(audit: RowAudit, edges: Mapping[int, Edges] | None, reader: ReadCommittedConsumer) -> Iterator[Finding]:
    """Find what is wrong with the rows of an audit that has been read.

    Args:
        edges: of the topic by partition; None where the topic cannot be asked for them.
    """
    where, topic = audit.name, audit.topic
    expected = audit.expected()
    for partition, bitmap in sorted(audit.bitmaps.items()):
        wrote_after = "DESCRIBE HISTORY says who wrote after the job: RESTORE to before that, or read the topic again"
        others = "somebody else has written them: DESCRIBE HISTORY says who"
        for code, offsets, text, remedy in (
            ("DOUBLED", bitmap.doubled, f"doubled in {where}", wrote_after),
            ("UNCLAIMED", bitmap.beyond, f"in {where} by no commit", others),
        ):
            for start, end in _offset_runs(np.unique(np.concatenate([NO_OFFSETS, *offsets]))):
                yield offsets_finding(code, where, Span(topic, partition, start, end), text, remedy)
        if audit.has_all:
            holes = bitmap.holes(expected.get(partition, []))
            yield from _missing(audit, partition, holes, edges, reader)


def _missing(
    audit: RowAudit,
    partition: int,
    holes: Sequence[OffsetRun],
    edges: Mapping[int, Edges] | None,
    reader: ReadCommittedConsumer,
) -> Iterator[Finding]:
    first = edges[partition].first if edges is not None and partition in edges else None
    gone = sum(max(0, (end if first is None else min(end, first)) - start) for start, end in holes)
    if gone:
        yield _cannot_tell(audit, partition, gone)
    if first is None:
        return
    in_topic = [(max(start, first), end) for start, end in holes if end > first]
    if in_topic:
        for start, end in _offset_runs(reader.records_within(audit.topic, partition, in_topic)):
            at = Span(audit.topic, partition, start, end)
            yield offsets_finding("MISSING", audit.name, at, f"missing in {audit.name}", _restore(audit))


def _cannot_tell(audit: RowAudit, partition: int, count: int) -> Finding:
    """Report offsets without rows: a problem only if rows were deleted; else they are taken for transaction markers."""
    has, them = ("1 offset has", "it") if count == 1 else (f"{count:,} offsets have", "them")
    text = f"{audit.topic} partition {partition}: {has} no row in {audit.name}, and the topic no longer has"
    were_deleted = any(table.removals for table in audit.tables.values())
    remedy = _restore(audit) if were_deleted else "nobody can tell records from ends of transactions there"
    place = audit.topic, partition
    return Finding("CANNOT_TELL", audit.name, f"{text} {them}", remedy, *place, is_problem=were_deleted)


def _restore(audit: RowAudit) -> str:
    removals = {name: table.removals for name, table in audit.tables.items() if table.removals}
    if removals:
        name, versions = next(iter(removals.items()))
        named = ", ".join(map(str, sorted(versions)))
        return f"version {named} of {name} deleted rows: where that was not meant, RESTORE it to the version before"
    finished = "" if audit.columns == BRONZE else "the next run finishes a batch that was cut short; else "
    if audit.columns == SILVER and audit.has_all and audit.beside is None:
        finished += f"there is no table {paths.QUARANTINE}: restore it from a copy, where there was one; else "
    return f"{finished}RESTORE the table to a version that is whole, or read the topic again"


def _common(left: list[OffsetRun], right: list[OffsetRun]) -> list[OffsetRun]:
    """Return the offsets that both hold."""
    both = [(max(a, c), min(b, d)) for a, b in left for c, d in right]
    return sorted((start, end) for start, end in both if start < end)


def _row_coordinates(
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


def _columns_of(held: TableCoverage) -> set[str]:
    """Return the names of the table's columns."""
    return {field.name for field in _opened(held.path, held.version, held.anew).schema().fields}


def _can_be_read(held: TableCoverage) -> bool:
    """Return whether rows that were deleted can be told from those that are there."""
    table = _opened(held.path, held.version, held.anew)
    return not (WIDENING & _features(table) and "deletionVectors" in _features(table))


def _features(table: DeltaTable) -> set[str]:
    return set(table.protocol().reader_features or ())


# Opening a table reads its log; each is asked for its columns first, then for its rows.
@lru_cache(maxsize=16)
def _opened(path: str, version: int, anew: str) -> DeltaTable:
    return StoredTable(path, version, anew).delta


def _offset_runs(offsets: Offsets) -> list[OffsetRun]:
    """Turn sorted offsets into runs, from the first to before the second."""
    if not len(offsets):
        return []
    edges = np.flatnonzero(np.diff(offsets) > 1)
    starts, ends = np.concatenate([[0], edges + 1]), np.concatenate([edges, [len(offsets) - 1]])
    return [(int(offsets[first]), int(offsets[last]) + 1) for first, last in zip(starts, ends, strict=True)]
