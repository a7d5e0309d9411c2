"""Reads the accounts: is each record of each topic in bronze, and in silver or quarantine? how far is each output?

Rows are counted by what Delta's logs say of files; offsets are those that commits and ledgers record.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.delta.reading import StoredTable
from jobs.connectors.kafka.consumer import ReadCommittedConsumer
from jobs.connectors.kafka.offsets import Edges, edges
from jobs.operations.coverage.check import CoverageReport, check_coverage
from jobs.operations.coverage.holdings import Coverage, read_coverage, topics_of
from jobs.operations.coverage.query_offsets import Finding, QueryOffsets, Span, merge_spans
from jobs.operations.coverage.row_checks import BRONZE, RowAudit, row_audits
from jobs.pipeline import paths
from jobs.pipeline.paths import find_stored
from local.page.background import Brokers
from producers.quarantine.selection import Selection
from producers.quarantine.table import Quarantine

RANGE = "range-"
Sum = Literal["whole", "differs", "newest only", "no silver", "no bronze"]


@dataclass(frozen=True)
class Place:
    """One partition as one output holds it: offsets from `start` to before `end`, of a topic from `first` to `last`.

    Args:
        gaps: offsets within that are missing, doubled or lost, each from the first to before the last.
    """

    partition: int
    start: int
    end: int
    first: int
    last: int
    gaps: tuple[tuple[int, int], ...] = ()

    @property
    def behind(self) -> int:
        return max(0, self.last - max(self.end, self.first))


@dataclass(frozen=True)
class OutputAccount:
    """How far one table or output topic is with one topic."""

    name: str
    query: str
    places: tuple[Place, ...]
    at: datetime | None

    @property
    def behind(self) -> int:
        return sum(place.behind for place in self.places)

    @property
    def has_gaps(self) -> bool:
        return any(place.gaps for place in self.places)


@dataclass(frozen=True)
class TopicAccount:
    """The records of one topic, counted: rows by layer, None where there is no such table.

    Args:
        offsets: between the topic's first one and its end, those of transaction markers among them; None where no
            broker can be asked.
    """

    topic: str
    offsets: int | None
    bronze: int | None
    silver: int | None
    quarantine: int
    sum: Sum
    outputs: tuple[OutputAccount, ...]

    @property
    def difference(self) -> int:
        """Count rows that bronze has and neither of the others, or the other way round."""
        return (self.bronze or 0) - (self.silver or 0) - self.quarantine


@dataclass(frozen=True)
class Accounts:
    """All topics; `broker` is why the brokers cannot be asked."""

    topics: tuple[TopicAccount, ...]
    broker: TidemarkError | None

    @property
    def differing(self) -> list[str]:
        return [account.topic for account in self.topics if account.sum == "differs"]

    @property
    def behind(self) -> int:
        return sum(output.behind for account in self.topics for output in account.outputs)


def read_accounts(settings: Settings, brokers: Brokers, checked: CoverageReport | None) -> Accounts:
    """Read what every table and output topic holds.

    Args:
        checked: the newest report of `check_everything`, whose gaps are shown; None for none yet.

    Raises:
        TidemarkError: TABLE_LOG_DAMAGED, KAFKA_FAILED.
    """
    admin, down = brokers.ask(settings.kafka)
    with ReadCommittedConsumer({} if admin is None else settings.kafka.client_config()) as reader:
        coverage = read_coverage(settings, admin, reader, verify=False)
    names = topics_of(chain for _, chain in _chains(coverage))
    names |= set(settings.ingest.topics) if coverage.tables else set()
    ends = {} if admin is None else edges(admin, sorted(names))
    tables = {name: table for name, table in coverage.tables.items() if not name.startswith(RANGE)}
    audits = list(row_audits(tables, {}, tables))
    rejected = _count_rejects(settings)
    gaps = [finding for finding in (checked.findings if checked else []) if finding.is_problem]
    accounts = []
    for name in sorted(names):
        of_topic = {partition: edge for (topic, partition), edge in ends.items() if topic == name}
        outputs = tuple(_outputs(name, coverage, of_topic, gaps))
        audited = [audit for audit in audits if audit.topic == name]
        accounts.append(_account(name, audited, rejected[name], of_topic, outputs))
    return Accounts(tuple(account for account in accounts if account.outputs or account.bronze is not None), down)


def check_everything(settings: Settings, brokers: Brokers) -> CoverageReport:
    """Find what `coverage check` finds, row by row.

    Raises:
        TidemarkError: as `Brokers.admin` and `check_coverage` have them.
    """
    admin = brokers.admin(settings.kafka)
    with ReadCommittedConsumer(settings.kafka.client_config()) as reader:
        everything = read_coverage(settings, admin, reader, verify=True)
        return check_coverage(settings, admin, reader, everything, everything)


def _chains(coverage: Coverage) -> Iterator[tuple[str, QueryOffsets]]:
    """Yield every chain that goes on, with the name of its table or output topic; those of ranges are left out."""
    for name, table in coverage.tables.items():
        if not name.startswith(RANGE):
            yield from ((name, chain) for chain in table.chains)
    for sink in coverage.sinks:
        if sink.chain:
            yield f"topic {' '.join(sorted(sink.topics))}", sink.chain


def _count_rejects(settings: Settings) -> Counter[str]:
    """Return the rows of the table quarantine, by topic."""
    rejects: Counter[str] = Counter()
    if find_stored(settings, paths.QUARANTINE) is not None:
        for batch in Quarantine(settings).batches(Selection(), ["topic"]):
            for count in batch["topic"].value_counts().to_pylist():
                rejects[count["values"]] += count["counts"]
    return rejects


def _account(
    topic: str,
    audits: Sequence[RowAudit],
    rejected: int,
    ends: Mapping[int, Edges],
    outputs: tuple[OutputAccount, ...],
) -> TopicAccount:
    bronze = _count_rows(audit for audit in audits if audit.columns == BRONZE)
    of_silver = [audit for audit in audits if audit.columns != BRONZE]
    silver = _count_rows(of_silver)
    total: Sum = "whole" if (bronze or 0) == (silver or 0) + rejected else "differs"
    if bronze is None:
        total = "no bronze"
    elif silver is None:
        total = "no silver" if rejected < bronze else "whole"
    elif not all(audit.has_all for audit in of_silver):
        total = "newest only"
    offsets = sum(edge.end - edge.first for edge in ends.values()) if ends else None
    return TopicAccount(topic, offsets, bronze, silver, rejected, total, outputs)


def _count_rows(audits: Iterable[RowAudit]) -> int | None:
    tables = [table for audit in audits for table in audit.tables.values()]
    return sum(StoredTable(table.path, table.version, table.anew).count() for table in tables) if tables else None


def _outputs(
    topic: str, coverage: Coverage, ends: Mapping[int, Edges], gaps: Sequence[Finding]
) -> Iterator[OutputAccount]:
    by_name: dict[str, list[QueryOffsets]] = {}
    for name, chain in _chains(coverage):
        if not chain.key.is_range and any(span.topic == topic for span in chain.spans):
            by_name.setdefault(name, []).append(chain)
    for name, chains in by_name.items():
        spans = merge_spans(span for chain in chains for span in chain.spans if span.topic == topic)
        lost = [(f.partition, f.start, f.end) for f in gaps if f.topic == topic and name in f.where.split(" and ")]
        newest = chains[-1]
        # A table that skips batches, as quarantine does, is never reported as behind.
        places = _places(spans, ends if newest.every_batch else {}, lost)
        yield OutputAccount(name, newest.key.sink, tuple(places), newest.newest.at)


def _places(
    spans: Sequence[Span], ends: Mapping[int, Edges], lost: Sequence[tuple[int | None, int | None, int | None]]
) -> Iterator[Place]:
    for partition in sorted({span.partition for span in spans} | set(ends)):
        own = [span for span in spans if span.partition == partition]
        first, last = ends.get(partition, Edges(own[0].start or 0, own[-1].end) if own else Edges(0, 0))
        between = [(before.end, after.start or 0) for before, after in pairwise(own)]
        named = [(start, end) for at, start, end in lost if at == partition and start is not None and end is not None]
        start, end = (own[0].start or 0, own[-1].end) if own else (first, first)
        yield Place(partition, start, end, min(first, start), last, tuple(sorted({*between, *named})))
