"""The claims on one table or output topic, linked: a chain a query and statement, from its first batch on."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from jobs.coverage.claims import Claim, Key, Place, Span


@dataclass(frozen=True)
class Chain:
    """What a query has written by one statement, up to its newest batch.

    Args:
        version: of the table, that recorded the newest batch; the offset of the newest plan, for an output topic.
        first_version: of the oldest claim that was read.
        commits: how many there were; where not `is_counted`, at least so many.
        every_batch: False for a statement that leaves batches out.
        spans: a span for each source and partition.
        claims: those that were read, oldest first.
    """

    key: Key
    batch: int
    version: int
    first_version: int
    at: datetime | None
    commits: int
    every_batch: bool
    places: tuple[tuple[Place, Span], ...]
    claims: tuple[Claim, ...] = ()

    @property
    def begins(self) -> bool:
        """Whether the spans begin where the query did, and not only where what was read does."""
        newest = self.claims[-1]
        return self.claims[0].batch <= 0 or all(newest.since(place) is not None for place, _ in self.places)

    @property
    def is_counted(self) -> bool:
        """Whether all commits are known: a statement that leaves batches out does not say how many it made."""
        return self.every_batch or self.claims[0].batch == 0

    @property
    def spans(self) -> tuple[Span, ...]:
        """In order; two sources that read the same offsets give one."""
        return tuple(sorted({span for _, span in self.places}, key=lambda span: (span.topic, span.partition, span.end)))


@dataclass(frozen=True)
class Break:
    """Two batches that follow one another and do not meet: the offsets between them, or that both took.

    Args:
        span: from `start` to before `end`.
        before, after: what each is called: a version, a query.
    """

    is_overlap: bool
    key: Key
    span: Span
    before: str
    after: str


def chain_of(claims: Sequence[Claim]) -> Chain:
    """Of one key, oldest first."""
    first, newest = claims[0], claims[-1]
    places = []
    for place, end in sorted(newest.end().items()):
        start = newest.since(place)
        if start is None:
            start = first.start(place)
        places.append((place, Span(place.topic, place.partition, start, end)))
    # A query without a gap, which `breaks` would find, has made a commit for each batch.
    commits = newest.batch + 1 if newest.every_batch and not newest.key.is_range else len(claims)
    return Chain(
        newest.key,
        newest.batch,
        newest.version,
        first.version,
        newest.at,
        commits,
        newest.every_batch,
        tuple(places),
        tuple(claims),
    )


def breaks(chain: Chain, from_its_beginning: bool) -> Iterator[Break]:
    """Where successive claims of a chain do not meet.

    Args:
        from_its_beginning: whether the chain's oldest claim is among those that were read.
    """
    claims = chain.claims
    if from_its_beginning and claims and not chain.key.is_range:
        for place in claims[0].end():
            since, start = claims[0].since(place), claims[0].start(place)
            if since is not None and start is not None and chain.every_batch:
                yield from _meet(chain.key, place, since, start, "its beginning", _named(claims[0]))
    for before, after in pairwise(claims):
        ends = before.end()
        for place in after.end():
            start = after.start(place)
            end = ends.get(place, after.since(place))  # since: of a source that begins with this batch
            if start is not None and end is not None and (chain.every_batch or start < end):
                yield from _meet(chain.key, place, end, start, _named(before), _named(after))


def breaks_between(chains: Sequence[Chain]) -> Iterator[Break]:
    """Where the queries that one sink had one after the other, by one statement, do not meet; in their order."""
    for before, after in pairwise(chains):
        ends = dict(before.places)
        for place, span in after.places:
            if place in ends and span.start is not None and (after.every_batch or span.start < ends[place].end):
                named = f"query {before.key.query_id}", f"query {after.key.query_id}"
                yield from _meet(after.key, place, ends[place].end, span.start, *named)


def _meet(key: Key, place: Place, end: int, start: int, before: str, after: str) -> Iterator[Break]:
    if start != end:
        low, high = sorted((start, end))
        yield Break(start < end, key, Span(place.topic, place.partition, low, high), before, after)


def _named(claim: Claim) -> str:
    return f"batch {claim.batch}"


def merged(spans: Iterable[Span]) -> list[Span]:
    """Spans that meet or overlap as one, in order."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda each: (each.topic, each.partition, each.start or 0, each.end)):
        last = found[-1] if found else None
        if last and last[:2] == span[:2] and (span.start is None or span.start <= last.end):
            found[-1] = last._replace(end=max(last.end, span.end))
        else:
            found.append(span)
    return found
