"""Finds which offsets of which topics a Delta table holds by its commits, and whether its data files are there."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jobs.connectors.delta.log import ANEW, DeltaLog, LogCommit, undone
from jobs.connectors.delta.reading import StoredTable, file_faults, naming_damage
from jobs.operations.coverage.query_offsets import (
    Finding,
    Key,
    OffsetCommit,
    QueryOffsets,
    QueryOffsetsBuilder,
    SourcePartition,
    Span,
    offset_commit_of,
)

REMOVALS = {"DELETE", "TRUNCATE"}
MOST_COMMITS = 20_000  # whose links are verified: some 2 s of reading


@dataclass(frozen=True)
class ReplacedRows:
    """Says which rows a replay has replaced: those whose `column` is in `start` to `end`.

    Args:
        undone_by: the version whose RESTORE took that back; None where it holds.
    """

    replay: str
    column: str
    start: str
    end: str
    version: int
    undone_by: int | None


@dataclass(frozen=True)
class UndoneOffsets:
    """Says which offsets the table held up to its version `version`, which a RESTORE, `undone_by`, took back."""

    key: Key
    span: Span
    version: int
    undone_by: int


@dataclass(frozen=True)
class TableCoverage:
    """The offsets that a table holds at its version `version`.

    Args:
        chains: a chain for each (sink, query id, statement), in the order in which they began.
        first_read: the oldest version that was read; `is_whole`: whether it is the log's first, which is the table's.
        removals: versions that deleted rows.
        replaced: see `ReplacedRows`, newest first.
        undone: see `UndoneOffsets`; what is held again is left out.
        anew: what helps where no copy is left of the table.
    """

    path: str
    version: int
    first_read: int
    chains: tuple[QueryOffsets, ...]
    replaced: tuple[ReplacedRows, ...] = ()
    undone: tuple[UndoneOffsets, ...] = ()
    removals: tuple[int, ...] = ()
    anew: str = ANEW

    @property
    def is_whole(self) -> bool:
        return self.first_read == 0


def table_coverage(path: str, verify: bool = False, anew: str = ANEW) -> TableCoverage:
    """Read the coverage of the table at `path` at its newest version, -1 where there is no table.

    Args:
        verify: read all commits (the newest MOST_COMMITS at most), so that the links between batches can be verified;
            else reading ends once the newest commit of each query was found.
        anew: what helps where no copy is left of the table.

    Raises:
        TidemarkError: TABLE_LOG_DAMAGED.
    """
    log = DeltaLog(path, anew)
    in_checkpoint = None if verify else log.app_ids()
    held: dict[Key, QueryOffsetsBuilder] = {}
    taken_back: dict[Key, tuple[OffsetCommit, int]] = {}
    replaced: list[ReplacedRows] = []
    removals: list[int] = []
    known: set[str] = set()
    oldest = log.newest
    for commit, undone_by in undone(islice(log.commits(), MOST_COMMITS)):
        oldest = commit.version
        replaced += _replaced(commit, undone_by)
        if commit.operation in REMOVALS and undone_by is None:
            removals.append(commit.version)
        offset_commit = offset_commit_of(commit)
        if offset_commit and undone_by is not None:
            taken_back.setdefault(offset_commit.key, (offset_commit, undone_by))
        elif offset_commit and offset_commit.key in held:
            held[offset_commit.key].add(offset_commit)
        elif offset_commit:
            held[offset_commit.key] = QueryOffsetsBuilder(offset_commit)
        if undone_by is None and (offset_commit is None or offset_commit.says_where_it_began()):
            known.update(commit.app_ids)
        # Every query of the log was in a commit that holds and says where the query began.
        if in_checkpoint is not None and commit.version <= log.checkpoint and in_checkpoint <= known:
            break
    chains = sorted((builder.build() for builder in held.values()), key=lambda chain: (chain.first.version, chain.key))
    lost = tuple(lost for commit, by in taken_back.values() for lost in _undone_offsets(commit, by, chains))
    return TableCoverage(path, log.newest, oldest, tuple(chains), tuple(replaced), lost, tuple(removals), anew)


def _replaced(commit: LogCommit, undone_by: int | None) -> list[ReplacedRows]:
    replaces: Any = commit.metadata.get("replaces")
    entries = replaces if isinstance(replaces, list) else [replaces]
    return [
        ReplacedRows(
            str(entry.get("replay", "")),
            str(entry.get("column", "")),
            str(entry.get("from", "")),
            str(entry.get("until", "")),
            commit.version,
            undone_by,
        )
        for entry in entries
        if isinstance(entry, Mapping)
    ]


def _undone_offsets(commit: OffsetCommit, by: int, chains: Iterable[QueryOffsets]) -> Iterator[UndoneOffsets]:
    """Find what `commit`, the newest undone one of its key, held and no other chain of its sink and statement holds."""
    ends: dict[SourcePartition, int] = {}
    for chain in chains:
        if (chain.key.sink, chain.key.statement) == (commit.key.sink, commit.key.statement):
            for place, span in chain.places:
                ends[place] = max(span.end, ends.get(place, 0))
    for place, end in commit.end().items():
        start = ends.get(place, commit.since(place) or 0)
        if end > start:
            yield UndoneOffsets(commit.key, Span(place.topic, place.partition, start, end), commit.version, by)


def check_files(name: str, coverage: TableCoverage) -> Iterator[Finding]:
    """Compare the data files of a table with its log.

    Raises:
        TidemarkError: TABLE_LOG_DAMAGED; others as `naming_damage`.
    """
    path = coverage.path
    table = StoredTable(path, anew=coverage.anew).delta
    with naming_damage(path, coverage.anew):
        faults = list(file_faults(path, table))
    for code, file, text in faults:
        remedy = f"restore it from a copy, or {coverage.anew}"
        yield Finding(code, name, f"{name}: its data file {path}/{file} {text}", remedy)
