"""Checks chains of offset commits: are they contiguous, disjoint, and complete beside their topics?"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.connectors.kafka.offsets import Edges
from jobs.operations.coverage.findings import Finding, offsets_finding
from jobs.operations.coverage.ledgers import SinkCoverage
from jobs.operations.coverage.query_offsets import Gap, Key, QueryOffsets, Span, gaps_between, gaps_within, merge_spans
from jobs.operations.coverage.tables import TableCoverage
from jobs.pipeline.paths import GO_ON_WITH_NEW, OTHER_NAME, SKIP, recreated_topic_remedy

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

    def is_there(self, topic: str) -> bool:
        return topic in self.ids

    def recreated(self, query_id: str) -> set[str]:
        """Return the query's topics that are others now."""
        known = self.known.get(query_id, {})
        return {name for name, id in known.items() if name in self.ids and self.ids[name] != id}

    def partitions(self, topic: str) -> dict[int, Edges]:
        """Return the edges by partition."""
        return {partition: edge for (name, partition), edge in self.edges.items() if name == topic}


def check_table(name: str, table: TableCoverage, topics: ClusterTopics, complete: bool) -> Iterator[Finding]:
    """Find what is wrong with the offsets of a table, read with `verify`."""
    for chain in table.chains:
        yield from _linked(name, chain, table.is_whole or chain.first.batch == 0, table.anew)
    for chains in _by_sink(table.chains):
        for gap in gaps_between(_not_removed(chains, table.removals)):
            yield _broken(name, gap, table.anew)
        publishes = chains[-1].key.query_id in topics.publishing
        with_new = GO_ON_WITH_NEW if publishes else table.anew
        yield from _against_topics(name, chains, topics, complete, with_new, GO_ON if publishes else table.anew)
    for lost in table.undone:
        text = f"taken back: version {lost.version} of {name} held them, version {lost.undone_by} restored an older one"
        remedy = f"restore it to its version {lost.undone_by - 1}, or {table.anew}"
        yield offsets_finding("TAKEN_BACK", name, (*lost.span[:2], lost.span.start or 0, lost.span.end), text, remedy)
    if table.chains and not table.is_whole:
        text = f"{name}: the links between batches are verified from version {table.first_read} on"
        yield Finding("NOT_VERIFIED", name, text, "older commits are not in its log, or too many", is_problem=False)


def check_sink(sink: SinkCoverage, topics: ClusterTopics, complete: bool) -> Iterator[Finding]:
    """Find what is wrong with the offsets of an output topic."""
    for topic, id in sink.topics.items():
        if id and topics.ids.get(topic) != id:
            what = "was deleted and created again" if topics.is_there(topic) else "was deleted"
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
    yield from _linked(sink.sink, sink.chain, sink.chain.first.batch == 0, OTHER_NAME)
    yield from _against_topics(sink.sink, [sink.chain], topics, complete, GO_ON_WITH_NEW, GO_ON)


def _linked(name: str, chain: QueryOffsets, from_its_beginning: bool, anew: str) -> Iterator[Finding]:
    for gap in gaps_within(chain, from_its_beginning):
        yield _broken(name, gap, anew)


def _broken(name: str, gap: Gap, anew: str) -> Finding:
    position = *gap.span[:2], gap.span.start or 0, gap.span.end
    if gap.is_overlap:
        text = f"{_are(position)} in {name} by {gap.before} and by {gap.after} of {gap.key.sink}"
        return offsets_finding("OVERLAP", name, position, text, f"records of it are doubled: {anew}")
    text = f"{_are(position)} not in {name}: between {gap.before} and {gap.after} of {gap.key.sink}"
    return offsets_finding("GAP", name, position, text, INTO_A_RANGE)


def _are(at: tuple[str, int, int, int]) -> str:
    return "is" if at[3] - at[2] == 1 else "are"


def _by_sink(chains: Iterable[QueryOffsets]) -> list[list[QueryOffsets]]:
    """Group the chains that go on by sink and statement, in the order in which they began."""
    by_sink: dict[tuple[str, str], list[QueryOffsets]] = defaultdict(list)
    for chain in chains:
        if not chain.key.is_range:
            by_sink[chain.key.sink, chain.key.statement].append(chain)
    return list(by_sink.values())


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
        if not topics.is_there(topic):
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
            at = topic, partition, max(start, partition_edges.end), span.end
            text = f"{_are(at)} in {name} and beyond the end of the topic"
            remedy = f"the topic was created again or has lost records: compare its records, then {behind}"
            yield offsets_finding("BEYOND_TOPIC", name, at, text, remedy)
        if start > partition_edges.first:
            at = topic, partition, partition_edges.first, start
            text = f"{_are(at)} in the topic and not in {name}: {key.sink} began behind"
            yield offsets_finding("NOT_FROM_START", name, at, text, INTO_A_RANGE)
        if span.end < partition_edges.first:
            text = f"gone from the topic before {key.sink} read so far"
            remedy = "see what is missing, and compare the topic's retention with the pauses of the job"
            yield offsets_finding("DATA_LOST", name, (topic, partition, span.end, partition_edges.first), text, remedy)
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


def topics_of(chains: Iterable[QueryOffsets]) -> set[str]:
    """Return the topics that chains have read."""
    return {span.topic for chain in chains for span in chain.spans}


def count_offsets(spans: Iterable[Span]) -> int:
    """Return how many offsets the spans hold."""
    return sum(span.end - (span.start or 0) for span in merge_spans(spans))


def known_ids(by_query: Mapping[str, Mapping[str, str]], sinks: Iterable[SinkCoverage]) -> dict[str, Mapping[str, Any]]:
    """Collect the ids of topics that checkpoints know, those that ledgers keep among them."""
    of_ledgers = {sink.chain.key.query_id: sink.source_topics for sink in sinks if sink.chain}
    return {**of_ledgers, **by_query}
