"""Checks coverage: every chain of offsets against itself and its topics, every file against its log, every row."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.delta.log import tables_under
from jobs.connectors.files import lacks_folder
from jobs.connectors.kafka.consumer import ReadCommittedConsumer
from jobs.connectors.kafka.offsets import Edges, edges, topic_ids
from jobs.operations.coverage.holdings import Coverage, SinkCoverage, read_table, topic_ids_by_query, topics_of
from jobs.operations.coverage.query_offsets import (
    Finding,
    Gap,
    Key,
    QueryOffsets,
    Span,
    gaps_between,
    gaps_within,
    merge_spans,
    offsets_finding,
)
from jobs.operations.coverage.row_checks import check_rows, row_audits, unreadable_tables
from jobs.operations.coverage.tables import TableCoverage, check_files
from jobs.pipeline import paths
from jobs.pipeline.paths import GO_ON_WITH_NEW, OTHER_NAME, SKIP, lost_table_remedy, recreated_topic_remedy

INTO_A_RANGE = "`--from` and `--to` read them into tables of a range"
# What goes on where the offsets of an output topic no longer are those of its source.
GO_ON = f"{SKIP}: what was published stays"


@dataclass(frozen=True)
class ClusterTopics:
    """The topics as the cluster has them now.

    Args:
        edges: by topic and partition; ids: of topics by name; known: the ids that checkpoints know, by query id.
        publishing: the ids of queries that have a ledger.
    """

    edges: Mapping[tuple[str, int], Edges]
    ids: Mapping[str, str]
    known: Mapping[str, Mapping[str, str]]
    publishing: Collection[str] = ()

    def recreated(self, query_id: str) -> set[str]:
        """Return the query's topics that are others now."""
        known = self.known.get(query_id, {})
        return {name for name, id in known.items() if name in self.ids and self.ids[name] != id}

    def partitions(self, topic: str) -> dict[int, Edges]:
        """Return the edges by partition."""
        return {partition: edge for (name, partition), edge in self.edges.items() if name == topic}


@dataclass
class CoverageReport:
    """The findings of a check, problems first, and what it looked at."""

    findings: list[Finding] = field(default_factory=list)
    tables: int = 0
    sinks: int = 0
    offsets: int = 0
    rows: int = 0

    @property
    def problems(self) -> int:
        return sum(finding.is_problem for finding in self.findings)

    def summary(self) -> str:
        """Return the last line."""
        looked_at = f"{_count(self.tables, 'table')}, {_count(self.sinks, 'output topic')}"
        read = f"{self.offsets:,} offsets, {self.rows:,} rows compared"
        return f"{looked_at}, {read}: {_count(self.problems, 'problem') if self.problems else 'all well'}"

    def to_json(self) -> dict[str, Any]:
        """Return the last object: what was looked at, and how many problems there are."""
        looked_at = {"tables": self.tables, "output_topics": self.sinks, "offsets": self.offsets, "rows": self.rows}
        return {"code": "SUMMARY"} | looked_at | {"problems": self.problems}


def check_coverage(
    settings: Settings,
    admin: AdminClient,
    reader: ReadCommittedConsumer,
    chosen: Coverage,
    everything: Coverage,
    complete: bool = False,
) -> CoverageReport:
    """Check coverage that was read with `verify`.

    Args:
        everything: all coverage; `chosen` is the part to check, whose rows may lie in other tables, too.
        complete: whether being behind a topic's end is a problem.

    Raises:
        TidemarkError: NOTHING_COVERED, where there is no folder of tables, and no output topic; KAFKA_FAILED,
            TABLE_LOG_DAMAGED.
    """
    root = settings.paths.tables
    if everything == Coverage({}, []) and lacks_folder(root):
        raise TidemarkError("NOTHING_COVERED", f"there is no folder {root}", "run a job, or name another by --tables")
    # Topics are read after tables and ledgers: what those hold is in the topics by then.
    topics = _topics_on_cluster(settings, admin, everything)
    report = CoverageReport(tables=len(chosen.tables), sinks=len(chosen.sinks))
    for name, query in chosen.missing.items():
        text = f"{name}: there is no such table, and the checkpoint of {query} has batches that were written to it"
        remedy = f"restore it from a copy, or {lost_table_remedy(name)}"
        report.findings.append(Finding("TABLE_MISSING", name, text, remedy))
    damaged: set[str] = set()
    for name, table in chosen.tables.items():
        lost = list(check_files(name, table))
        report.findings += lost
        damaged |= {table.path for _ in lost}
        report.findings += _check_table(name, table, topics, complete)
        report.offsets += _count_offsets(span for chain in table.chains for span in chain.spans)
    for sink in chosen.sinks:
        report.findings += _check_sink(sink, topics, complete)
        report.offsets += _count_offsets(sink.chain.spans) if sink.chain else 0
    for audit in row_audits(everything.tables, _quarantines(settings, chosen.tables), chosen.tables):
        beside = [audit.beside] if audit.beside else []
        if any(table.path in damaged for table in (*audit.tables.values(), *beside)):
            continue
        if not_comparable := list(unreadable_tables(audit)):
            report.findings += not_comparable
            continue
        report.rows += audit.read()
        queries = {chain.key.query_id for table in audit.tables.values() for chain in table.chains}
        is_another = any(audit.topic in topics.recreated(query) for query in queries)
        can_be_asked = audit.topic in topics.ids and not is_another
        report.findings += check_rows(audit, topics.partitions(audit.topic) if can_be_asked else None, reader)
    report.findings.sort(key=lambda finding: not finding.is_problem)
    return report


def _topics_on_cluster(settings: Settings, admin: AdminClient, coverage: Coverage) -> ClusterTopics:
    """Ask the cluster for the topics that tables and output topics are made of.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    chains = [chain for table in coverage.tables.values() for chain in table.chains]
    chains += [sink.chain for sink in coverage.sinks if sink.chain]
    topics = topics_of(chains).union(*(sink.topics for sink in coverage.sinks))
    in_ledgers = {sink.chain.key.query_id: sink.source_topics for sink in coverage.sinks if sink.chain}
    known = in_ledgers | topic_ids_by_query(settings.paths.checkpoints)
    ids = topic_ids(admin, topics, settings.kafka.client_config())
    return ClusterTopics(edges(admin, topics), ids, known, in_ledgers.keys())


def _quarantines(settings: Settings, tables: Mapping[str, TableCoverage]) -> dict[str, TableCoverage]:
    """Read quarantine again, after silver, so that no reject of a batch that silver has is missed.

    Returns:
        the tables of that name, by the folder of a range that each lies in, "" for the live one.
    """
    if not any((match := paths.TOPIC_TABLE.match(name)) and match["layer"] == "silver" for name in tables):
        return {}
    root = settings.paths.tables
    names = [name for name in tables_under(root) if name.rpartition("/")[2] == paths.QUARANTINE]
    return {name.removesuffix(paths.QUARANTINE): read_table(root, name) for name in names}


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _count_offsets(spans: Iterable[Span]) -> int:
    """Return how many offsets the spans hold."""
    return sum(span.end - (span.start or 0) for span in merge_spans(spans))


def _check_table(name: str, table: TableCoverage, topics: ClusterTopics, complete: bool) -> Iterator[Finding]:
    """Find what is wrong with the offsets of a table, read with `verify`."""
    for chain in table.chains:
        for gap in gaps_within(chain, table.is_whole or chain.first.batch == 0):
            yield _broken(name, gap, table.anew)
    by_writer: dict[tuple[str, str], list[QueryOffsets]] = defaultdict(list)
    for chain in table.chains:
        if not chain.key.is_range:
            by_writer[chain.key.sink, chain.key.statement].append(chain)  # in the order in which they began
    for chains in by_writer.values():
        for gap in gaps_between(_not_removed(chains, table.removals)):
            yield _broken(name, gap, table.anew)
        publishes = chains[-1].key.query_id in topics.publishing
        with_new = GO_ON_WITH_NEW if publishes else table.anew
        yield from _against_topics(name, chains, topics, complete, with_new, GO_ON if publishes else table.anew)
    for lost in table.undone:
        text = f"taken back: version {lost.version} of {name} held them, version {lost.undone_by} restored an older one"
        remedy = f"restore it to its version {lost.undone_by - 1}, or {table.anew}"
        yield offsets_finding("TAKEN_BACK", name, lost.span, text, remedy)
    if table.chains and not table.is_whole:
        text = f"{name}: the links between batches are verified from version {table.first_read} on"
        yield Finding("NOT_VERIFIED", name, text, "older commits are not in its log, or too many", is_problem=False)


def _check_sink(sink: SinkCoverage, topics: ClusterTopics, complete: bool) -> Iterator[Finding]:
    """Find what is wrong with the offsets of an output topic."""
    for topic, id in sink.topics.items():
        if id and topics.ids.get(topic) != id:
            what = "was deleted and created again" if topic in topics.ids else "was deleted"
            text = f"{sink.sink}: its output topic {topic} {what} since it was written"
            yield Finding("TOPIC_RECREATED", sink.sink, text, "`--adopt` goes on with the topic as it is", topic)
    if sink.missing:
        text = f"{sink.sink}: {len(sink.missing)} of {sink.shards} shards of batch {sink.batch} are not published"
        remedy = "a run is under way, or was cut short: the next one finishes it"
        yield Finding("UNFINISHED", sink.sink, text, remedy, is_problem=False)
    if sink.chain is None:
        text = f"{sink.sink}: the ledger holds no offsets before batch {sink.batch + 1}"
        yield Finding("NOT_VERIFIED", sink.sink, text, "", is_problem=False)
        return
    for gap in gaps_within(sink.chain, sink.chain.first.batch == 0):
        yield _broken(sink.sink, gap, OTHER_NAME)
    yield from _against_topics(sink.sink, [sink.chain], topics, complete, GO_ON_WITH_NEW, GO_ON)


def _broken(name: str, gap: Gap, anew: str) -> Finding:
    if gap.is_overlap:
        text = f"{_are(gap.span)} in {name} by {gap.before} and by {gap.after} of {gap.key.sink}"
        return offsets_finding("OVERLAP", name, gap.span, text, f"records of it are doubled: {anew}")
    text = f"{_are(gap.span)} not in {name}: between {gap.before} and {gap.after} of {gap.key.sink}"
    return offsets_finding("GAP", name, gap.span, text, INTO_A_RANGE)


def _are(span: Span) -> str:
    return "is" if span.end - (span.start or 0) == 1 else "are"


def _not_removed(chains: Sequence[QueryOffsets], removals: Collection[int]) -> list[QueryOffsets]:
    """Leave out chains whose rows were deleted before the newest one began: it may hold again what they held."""
    newest = chains[-1]
    return [
        chain
        for chain in chains
        if not any(chain.newest.version < removal < newest.first.version for removal in removals)
    ]


def _against_topics(
    name: str, chains: Sequence[QueryOffsets], topics: ClusterTopics, complete: bool, with_new: str, behind: str
) -> Iterator[Finding]:
    """Compare chains with their topics.

    Args:
        with_new, behind: what the query goes on by where a topic was created again, or has lost its newest records.
    """
    newest = chains[-1]
    recreated = topics.recreated(newest.key.query_id)
    spans = merge_spans(span for chain in chains for span in chain.spans)
    names = sorted({span.topic for span in spans})
    for topic in names:
        if topic not in topics.ids:
            text, remedy = f"{name}: its topic {topic} is not on the cluster", "see kafka.bootstrap_servers"
            yield Finding("TOPIC_MISSING", name, text, remedy, topic)
        elif topic in recreated:
            text = f"{name}: topic {topic} was deleted and created again since {newest.key.sink} began to read it"
            yield Finding("TOPIC_RECREATED", name, text, recreated_topic_remedy(with_new), topic)
        elif newest.every_batch:
            ends = {span.partition: span for span in spans if span.topic == topic}
            starts = {p: min(s.start or 0 for s in spans if s[:2] == (topic, p)) for p in ends}
            edges = topics.partitions(topic)
            if not all(chain.begins for chain in chains):
                starts = {p: min(at, edges[p].first) if p in edges else at for p, at in starts.items()}
            yield from _edges(name, newest.key, topic, starts, ends, edges, behind)
            yield from _behind(name, topic, ends, edges, complete)


def _edges(
    name: str,
    key: Key,
    topic: str,
    starts: Mapping[int, int],
    spans: Mapping[int, Span],
    edges: Mapping[int, Edges],
    behind: str,
) -> Iterator[Finding]:
    """Yield where a table begins and ends, beside its topic; `spans`: the last one of each partition."""
    expired = 0
    for partition, span in spans.items():
        start, partition_edges = starts[partition], edges.get(partition, Edges(0, 0))
        if span.end > partition_edges.end:
            at = Span(topic, partition, max(start, partition_edges.end), span.end)
            text = f"{_are(at)} in {name} and beyond the end of the topic"
            remedy = f"the topic was created again or has lost records: compare its records, then {behind}"
            yield offsets_finding("BEYOND_TOPIC", name, at, text, remedy)
        if start > partition_edges.first:
            at = Span(topic, partition, partition_edges.first, start)
            text = f"{_are(at)} in the topic and not in {name}: {key.sink} began behind"
            yield offsets_finding("NOT_FROM_START", name, at, text, INTO_A_RANGE)
        if span.end < partition_edges.first:
            text = f"gone from the topic before {key.sink} read so far"
            remedy = "see what is missing, and compare the topic's retention with the pauses of the job"
            at = Span(topic, partition, span.end, partition_edges.first)
            yield offsets_finding("DATA_LOST", name, at, text, remedy)
        expired += max(0, min(partition_edges.first, span.end) - start)
    if expired:
        text = f"{name}: {expired:,} of its offsets are no longer in the topic {topic}"
        yield Finding("EXPIRED", name, text, "", topic, is_problem=False)


def _behind(
    name: str, topic: str, spans: Mapping[int, Span], edges: Mapping[int, Edges], complete: bool
) -> Iterator[Finding]:
    behind = 0
    for partition, edge in edges.items():
        at = spans[partition].end if partition in spans else edge.first
        behind += max(0, edge.end - max(at, edge.first))
    if behind:
        text = f"{name} is {behind:,} offsets behind the topic {topic}"
        yield Finding("BEHIND", name, text, "run its job until it has caught up", topic, is_problem=complete)
