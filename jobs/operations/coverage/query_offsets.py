"""Links the offsets that commits record to one chain for each query and statement, and finds where they do not meet.

`Finding` is what every check of coverage says of offsets, rows and files.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from jobs.connectors.delta.commit import RANGE
from jobs.connectors.delta.log import LogCommit
from jobs.pipeline.checkpoint_format import topic_offsets

CUTOVER = "cutover"  # the statement of a replay that takes the place of a range
# These statements leave batches out; commits of older code do not say so.
SPARSE = {"quarantine", "rules"}


class SourcePartition(NamedTuple):
    """A partition as one source of a query reads it."""

    source: int
    topic: str
    partition: int


class Span(NamedTuple):
    """Offsets of one partition, from `start` to before `end`; `start` is None where it is not known."""

    topic: str
    partition: int
    start: int | None
    end: int


class Key(NamedTuple):
    """The writer of a commit: one query, by one of its statements."""

    sink: str
    query_id: str
    statement: str

    @property
    def is_range(self) -> bool:
        """Return whether it is a bounded range, which does not go on."""
        return self.query_id.startswith(RANGE)


@dataclass(frozen=True)
class OffsetCommit:
    """Says which offsets one commit, or one plan of a ledger, took.

    Args:
        start, since: by place; a place that they lack is None where unknown, 0 where the partition was new then.
    """

    key: Key
    batch: int
    version: int
    at: datetime | None
    every_batch: bool
    sources: Mapping[str, Any]

    def end(self) -> dict[SourcePartition, int]:
        """Return before which offset of each place the batch ended."""
        return _places(self.sources.get("until"))

    def start(self, place: SourcePartition) -> int | None:
        """Return where in `place` the batch began."""
        return _at(self.sources.get("from"), place)

    def says_where_it_began(self) -> bool:
        """Return whether the query's very first offset is known in each partition."""
        return all(self.since(place) is not None for place in self.end())

    def since(self, place: SourcePartition) -> int | None:
        """Return where in `place` the query's very first batch began; a range is one batch."""
        since = _at(self.sources.get("since"), place)
        return self.start(place) if since is None and (self.key.is_range or self.batch == 0) else since


def offset_commit_of(commit: LogCommit) -> OffsetCommit | None:
    """Return the offsets that a commit of ours took; None for all others,
    and for one that replaces rows that were there."""
    metadata = commit.metadata
    is_named = all(isinstance(metadata.get(name), str) for name in ("sink", "query_id", "statement"))
    offsets, batch = metadata.get("offsets"), metadata.get("batch")
    if not is_named or not isinstance(offsets, Mapping) or not isinstance(batch, int):
        return None
    key = Key(metadata["sink"], metadata["query_id"], metadata["statement"])
    begin, end = f"{key.sink}/", f"/{key.statement}/{key.query_id}"
    # A CREATE TABLE may carry the userMetadata of the write beside it, and none of its app ids.
    is_write = any(id.startswith(begin) and id.endswith(end) for id in commit.app_ids)
    if not is_write or "replaces" in metadata or key.statement == CUTOVER:
        return None
    every = bool(metadata.get("every_batch", key.statement not in SPARSE))
    return OffsetCommit(key, batch, commit.version, commit.at, every, offsets)


def _places(sources: Any) -> dict[SourcePartition, int]:
    """Return the offsets of Kafka sources alone: others have no topics."""
    return {
        SourcePartition(number, topic, partition): offset
        for number, source in enumerate(sources or ())
        for topic, offsets in topic_offsets(source).items()
        for partition, offset in offsets.items()
    }


def _at(sources: Any, place: SourcePartition) -> int | None:
    if not sources or place.source >= len(sources) or not isinstance(sources[place.source], Mapping):
        return None
    # Spark begins a partition that is added later at 0, or stops.
    return int(sources[place.source].get(place.topic, {}).get(str(place.partition), 0))


@dataclass(frozen=True)
class Gap:
    """Two batches that follow one another and do not meet: the offsets between them, or that both took.

    Args:
        span: from `start` to before `end`.
        before, after: what each is called: a batch, a query.
    """

    is_overlap: bool
    key: Key
    span: Span
    before: str
    after: str


@dataclass(frozen=True)
class QueryOffsets:
    """Says which offsets a query has written by one statement, up to its newest batch: a chain of offset commits.

    Args:
        first, newest: the oldest and the newest commit that were read; `count`: how many were.
        places: a span for each source and partition.
        links: the gaps between successive commits, oldest first.
    """

    first: OffsetCommit
    newest: OffsetCommit
    count: int
    places: tuple[tuple[SourcePartition, Span], ...]
    links: tuple[Gap, ...] = ()

    @property
    def key(self) -> Key:
        return self.newest.key

    @property
    def every_batch(self) -> bool:
        """Return False for a statement that leaves batches out."""
        return self.newest.every_batch

    @property
    def begins(self) -> bool:
        """Return whether the spans begin where the query did, and not only where what was read does."""
        return self.first.batch <= 0 or all(self.newest.since(place) is not None for place, _ in self.places)

    @property
    def commits(self) -> int:
        """Return how many commits there were; where not `is_counted`, at least so many."""
        # A query without a gap, which would be found, has made a commit for each batch.
        return self.newest.batch + 1 if self.every_batch and not self.key.is_range else self.count

    @property
    def is_counted(self) -> bool:
        """Return whether all commits are known: a statement that leaves batches out does not say how many it made."""
        return self.every_batch or self.first.batch == 0

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return the offsets that it holds, in order; two sources that read the same offsets give one span."""
        return tuple(sorted({span for _, span in self.places}, key=lambda span: (span.topic, span.partition, span.end)))


class QueryOffsetsBuilder:
    """Builds a chain while its commits are read, newest first; of those between, only the gaps are kept."""

    def __init__(self, newest: OffsetCommit) -> None:
        self._newest, self._first, self._count = newest, newest, 1
        self._gaps: list[Gap] = []

    def add(self, older: OffsetCommit) -> None:
        """Add the commit before those that were added."""
        self._gaps += reversed(list(_between(older, self._first)))
        self._first = older
        self._count += 1

    def build(self) -> QueryOffsets:
        """Return the chain that the commits make."""
        first, newest = self._first, self._newest
        places = []
        for place, end in sorted(newest.end().items()):
            since = newest.since(place)
            start = first.start(place) if since is None else since
            places.append((place, Span(place.topic, place.partition, start, end)))
        return QueryOffsets(first, newest, self._count, tuple(places), tuple(reversed(self._gaps)))


def query_offsets_of(commits: Sequence[OffsetCommit]) -> QueryOffsets:
    """Link commits of one key, oldest first."""
    builder = QueryOffsetsBuilder(commits[-1])
    for commit in reversed(commits[:-1]):
        builder.add(commit)
    return builder.build()


def gaps_within(chain: QueryOffsets, from_its_beginning: bool) -> Iterator[Gap]:
    """Find where successive commits of a chain do not meet.

    Args:
        from_its_beginning: whether the chain's oldest commit is among those that were read.
    """
    first = chain.first
    if from_its_beginning and chain.every_batch and not chain.key.is_range:
        for place in first.end():
            since, start = first.since(place), first.start(place)
            if since is not None and start is not None:
                yield from _meet(chain.key, place, since, start, "its beginning", f"batch {first.batch}")
    yield from chain.links


def _between(before: OffsetCommit, after: OffsetCommit) -> Iterator[Gap]:
    ends = before.end()
    for place in after.end():
        start = after.start(place)
        end = ends.get(place, after.since(place))  # since: of a source that begins with this batch
        if start is not None and end is not None and (after.every_batch or start < end):
            yield from _meet(after.key, place, end, start, f"batch {before.batch}", f"batch {after.batch}")


def gaps_between(chains: Sequence[QueryOffsets]) -> Iterator[Gap]:
    """Find where the queries that one sink had one after the other, by one statement, do not meet; in their order."""
    for before, after in pairwise(chains):
        ends = dict(before.places)
        for place, span in after.places:
            if place in ends and span.start is not None and (after.every_batch or span.start < ends[place].end):
                named = f"query {before.key.query_id}", f"query {after.key.query_id}"
                yield from _meet(after.key, place, ends[place].end, span.start, *named)


def _meet(key: Key, place: SourcePartition, end: int, start: int, before: str, after: str) -> Iterator[Gap]:
    if start != end:
        low, high = sorted((start, end))
        yield Gap(start < end, key, Span(place.topic, place.partition, low, high), before, after)


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Make one of spans that meet or overlap; in order."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.topic, span.partition, span.start or 0, span.end)):
        last = merged[-1] if merged else None
        if last and last[:2] == span[:2] and (span.start is None or span.start <= last.end):
            merged[-1] = last._replace(end=max(last.end, span.end))
        else:
            merged.append(span)
    return merged


@dataclass(frozen=True)
class Finding:
    """One thing that a check found: a line.

    Args:
        code: names the kind for programs.
        where: the table, or the sink of an output topic.
        topic, partition, start, end: the offsets, from `start` to before `end`, where it is about some.
        is_problem: False for a note.
    """

    code: str
    where: str
    text: str
    remedy: str
    topic: str = ""
    partition: int | None = None
    start: int | None = None
    end: int | None = None
    is_problem: bool = True

    def line(self) -> str:
        """Return the finding as a line for people."""
        text = f"{self.code}: {self.text}" if self.is_problem else f"note: {self.text}"
        return f"{text}; {self.remedy}" if self.remedy else text

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON by the names above; `from` and `to` for start and end."""
        fields = asdict(self)
        fields["from"], fields["to"] = fields.pop("start"), fields.pop("end")
        return fields


def offsets_finding(code: str, where: str, span: Span, text: str, remedy: str) -> Finding:
    """Make a finding about the offsets of `span`, which begin its text."""
    start, end = span.start or 0, span.end
    offsets = f"offset {start}" if end - start == 1 else f"offsets {start} to {end - 1}"
    named = f"{span.topic} partition {span.partition}: {offsets} {text}"
    return Finding(code, where, named, remedy, span.topic, span.partition, start, end)
