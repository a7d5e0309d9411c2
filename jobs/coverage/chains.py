"""The claims on one table or output topic, linked: a chain a query and statement, from its first batch on."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jobs.coverage.claims import Claim, Key, Place, Span


@dataclass(frozen=True)
class Break:
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
class Chain:
    """What a query has written by one statement, up to its newest batch.

    Args:
        first, newest: the oldest and the newest claim that were read; `count`: how many were.
        places: a span for each source and partition.
        links: the breaks between successive claims, oldest first.
    """

    first: Claim
    newest: Claim
    count: int
    places: tuple[tuple[Place, Span], ...]
    links: tuple[Break, ...] = ()

    @property
    def key(self) -> Key:
        return self.newest.key

    @property
    def every_batch(self) -> bool:
        """False for a statement that leaves batches out."""
        return self.newest.every_batch

    @property
    def begins(self) -> bool:
        """Whether the spans begin where the query did, and not only where what was read does."""
        return self.first.batch <= 0 or all(self.newest.since(place) is not None for place, _ in self.places)

    @property
    def commits(self) -> int:
        """How many there were; where not `is_counted`, at least so many."""
        # A query without a gap, which would be found, has made a commit for each batch.
        return self.newest.batch + 1 if self.every_batch and not self.key.is_range else self.count

    @property
    def is_counted(self) -> bool:
        """Whether all commits are known: a statement that leaves batches out does not say how many it made."""
        return self.every_batch or self.first.batch == 0

    @property
    def spans(self) -> tuple[Span, ...]:
        """In order; two sources that read the same offsets give one."""
        return tuple(sorted({span for _, span in self.places}, key=lambda span: (span.topic, span.partition, span.end)))


class Links:
    """A chain while its claims are read, newest first; of those between, only what is wrong with them is kept."""

    def __init__(self, newest: Claim) -> None:
        self._newest, self._first, self._count = newest, newest, 1
        self._breaks: list[Break] = []

    def add(self, older: Claim) -> None:
        """The claim before those that were added."""
        self._breaks += reversed(list(_between(older, self._first)))
        self._first = older
        self._count += 1

    def chain(self) -> Chain:
        """What they make."""
        first, newest = self._first, self._newest
        places = []
        for place, end in sorted(newest.end().items()):
            since = newest.since(place)
            start = first.start(place) if since is None else since
            places.append((place, Span(place.topic, place.partition, start, end)))
        return Chain(first, newest, self._count, tuple(places), tuple(reversed(self._breaks)))


def chain_of(claims: Sequence[Claim]) -> Chain:
    """Of one key, oldest first."""
    links = Links(claims[-1])
    for claim in reversed(claims[:-1]):
        links.add(claim)
    return links.chain()


def breaks(chain: Chain, from_its_beginning: bool) -> Iterator[Break]:
    """Where successive claims of a chain do not meet.

    Args:
        from_its_beginning: whether the chain's oldest claim is among those that were read.
    """
    first = chain.first
    if from_its_beginning and chain.every_batch and not chain.key.is_range:
        for place in first.end():
            since, start = first.since(place), first.start(place)
            if since is not None and start is not None:
                yield from _meet(chain.key, place, since, start, "its beginning", _named(first))
    yield from chain.links


def _between(before: Claim, after: Claim) -> Iterator[Break]:
    ends = before.end()
    for place in after.end():
        start = after.start(place)
        end = ends.get(place, after.since(place))  # since: of a source that begins with this batch
        if start is not None and end is not None and (after.every_batch or start < end):
            yield from _meet(after.key, place, end, start, _named(before), _named(after))


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
