"""Which offsets of which topics a Delta table holds, by what its commits recorded.

Every commit names where its query's reading began, so the newest one of each query and statement tells all that the
query has written: older commits may have been cleaned from the log.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.connectors.delta_log import DeltaLog, LogCommit
from jobs.coverage.chains import Chain, Links
from jobs.coverage.claims import Claim, Key, Place, Span, claim_of

RESTORE = "RESTORE"
REMOVALS = {"DELETE", "TRUNCATE"}
MOST_COMMITS = 20_000  # whose links are verified: some 2 s of reading


@dataclass(frozen=True)
class Replaced:
    """Rows that a replay wrote in the place of those that were there: those whose `column` is in `start` to `end`.

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
class Undone:
    """Offsets that the table held up to its version `version`, which a RESTORE, `undone_by`, took back."""

    key: Key
    span: Span
    version: int
    undone_by: int


@dataclass(frozen=True)
class TableCoverage:
    """What a table holds at its version `version`.

    Args:
        chains: a chain for each (sink, query id, statement), in the order in which they began.
        first_read: the oldest version that was read; `is_whole`: whether it is the log's first, which is the table's.
        removals: versions that deleted rows.
        replaced: see `Replaced`, newest first.
        undone: see `Undone`; what is held again is left out.
    """

    path: str
    version: int
    first_read: int
    chains: tuple[Chain, ...]
    replaced: tuple[Replaced, ...] = ()
    undone: tuple[Undone, ...] = ()
    removals: tuple[int, ...] = ()

    @property
    def is_whole(self) -> bool:
        return self.first_read == 0


def table_coverage(path: str, verify: bool = False) -> TableCoverage:
    """The coverage of the table at `path` at its newest version, -1 where there is no table.

    Args:
        verify: read as many commits as there are, so that the links between batches can be verified, and not only so
            many that each query's newest one is among them. The newest MOST_COMMITS are the most that are read.
    """
    log = DeltaLog(path)
    commits = log.commits()
    visited = list(_bounded(commits) if verify else _newest(commits, log))
    return coverage_of(path, log.newest, visited)


def coverage_of(path: str, version: int, commits: Iterable[LogCommit]) -> TableCoverage:
    """The coverage that `commits`, newest first, make."""
    held: dict[Key, Links] = {}
    taken_back: dict[Key, tuple[Claim, int]] = {}
    replaced: list[Replaced] = []
    removals = []
    oldest = version
    for commit, undone_by in undone(commits):
        oldest = commit.version
        replaced += _replaced(commit, undone_by)
        if commit.operation in REMOVALS and undone_by is None:
            removals.append(commit.version)
        claim = claim_of(commit)
        if claim and undone_by is not None:
            taken_back.setdefault(claim.key, (claim, undone_by))
        elif claim and claim.key in held:
            held[claim.key].add(claim)
        elif claim:
            held[claim.key] = Links(claim)
    chains = sorted((each.chain() for each in held.values()), key=lambda each: (each.first.version, each.key))
    lost = [each for claim, by in taken_back.values() for each in _undone(claim, by, chains)]
    return TableCoverage(path, version, oldest, tuple(chains), tuple(replaced), tuple(lost), tuple(removals))


def undone(commits: Iterable[LogCommit]) -> Iterator[tuple[LogCommit, int | None]]:
    """Each of `commits`, newest first, and the version whose RESTORE took it back; None where it holds.

    A restore to a moment, not to a version, counts as one to before.
    """
    kept, by = None, None
    for commit in commits:
        if by is not None and kept is not None and commit.version <= kept:
            kept, by = None, None
        yield commit, by
        if by is None and commit.operation == RESTORE:
            restored = commit.parameters.get("version")
            kept, by = -1 if restored is None else int(restored), commit.version


def _bounded(commits: Iterator[LogCommit]) -> Iterator[LogCommit]:
    for _, commit in zip(range(MOST_COMMITS), commits, strict=False):
        yield commit


def _newest(commits: Iterator[LogCommit], log: DeltaLog) -> Iterator[LogCommit]:
    """So many that each transaction identifier's newest one that holds is among them, and says where it began."""
    wanted = log.app_ids()
    found: set[str] = set()
    for commit, undone_by in undone(_bounded(commits)):
        yield commit
        claim = claim_of(commit)
        tells = claim is None or all(claim.since(place) is not None for place in claim.end())
        if undone_by is None and tells:
            found.update(commit.app_ids)
        if wanted is not None and commit.version <= log.checkpoint and wanted <= found:
            return


def _replaced(commit: LogCommit, undone_by: int | None) -> list[Replaced]:
    said: Any = commit.metadata.get("replaces")
    entries = [each for each in (said if isinstance(said, list) else [said]) if isinstance(each, Mapping)]
    return [
        Replaced(
            str(each.get("replay", "")),
            str(each.get("column", "")),
            str(each.get("from", "")),
            str(each.get("until", "")),
            commit.version,
            undone_by,
        )
        for each in entries
    ]


def _undone(claim: Claim, by: int, chains: Iterable[Chain]) -> Iterator[Undone]:
    """What `claim`, the newest that was taken back of its key, held and nobody of its sink and statement holds now."""
    same = [each for each in chains if (each.key.sink, each.key.statement) == (claim.key.sink, claim.key.statement)]
    ends: dict[Place, int] = {}
    for chain in same:
        for place, span in chain.places:
            ends[place] = max(span.end, ends.get(place, 0))
    for place, end in claim.end().items():
        start = ends.get(place, claim.since(place) or 0)
        if end > start:
            yield Undone(claim.key, Span(place.topic, place.partition, start, end), claim.version, by)
