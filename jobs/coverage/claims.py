"""What a commit says that it took from topics, and the spans of offsets that this makes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from jobs.connectors.delta_commit import RANGE
from jobs.connectors.delta_log import LogCommit

CUTOVER = "cutover"  # the statement of a replay that takes the place of a range
# Statements that left batches out before commits said so.
SPARSE = {"quarantine", "rules"}


class Place(NamedTuple):
    """A partition as one source of a query reads it."""

    source: int
    topic: str
    partition: int


class Span(NamedTuple):
    """Offsets of one partition, from `start` to before `end`; `start` is None where nobody knows it."""

    topic: str
    partition: int
    start: int | None
    end: int


class Key(NamedTuple):
    """Who writes: one query, by one of its statements."""

    sink: str
    query_id: str
    statement: str

    @property
    def is_range(self) -> bool:
        """Whether it is a bounded range, which does not go on."""
        return self.query_id.startswith(RANGE)


@dataclass(frozen=True)
class Claim:
    """What one commit, or one plan of a ledger, says that it took.

    Args:
        start, since: by place; a place that they lack is None where nobody knows, 0 where the partition was new then.
    """

    key: Key
    batch: int
    version: int
    at: datetime | None
    every_batch: bool
    sources: Mapping[str, Any]

    def end(self) -> dict[Place, int]:
        """Before which offset of each place the batch ended."""
        return _places(self.sources.get("until"))

    def start(self, place: Place) -> int | None:
        """Where in `place` the batch began."""
        return _at(self.sources.get("from"), place)

    def since(self, place: Place) -> int | None:
        """Where in `place` the query's very first batch began; a range is one batch."""
        since = _at(self.sources.get("since"), place)
        return self.start(place) if since is None and (self.key.is_range or self.batch == 0) else since


def claim_of(commit: LogCommit) -> Claim | None:
    """What a commit of ours took; None for all others, and for one that takes the place of rows that were there."""
    said = commit.metadata
    named = all(isinstance(said.get(name), str) for name in ("sink", "query_id", "statement"))
    offsets, batch = said.get("offsets"), said.get("batch")
    if not named or not isinstance(offsets, Mapping) or not isinstance(batch, int):
        return None
    if not _is_recorded(said, commit.app_ids) or "replaces" in said or said["statement"] == CUTOVER:
        return None
    key = Key(said["sink"], said["query_id"], said["statement"])
    every = bool(said.get("every_batch", key.statement not in SPARSE))
    return Claim(key, batch, commit.version, commit.at, every, offsets)


def _is_recorded(said: Mapping[str, Any], app_ids: Iterable[str]) -> bool:
    """Whether the commit is the write that it says: the making of a table beside one may carry the other's words."""
    begin, end = f"{said['sink']}/", f"/{said['statement']}/{said['query_id']}"
    return any(id.startswith(begin) and id.endswith(end) for id in app_ids)


def _places(sources: Any) -> dict[Place, int]:
    """Of Kafka sources alone: others have no topics."""
    tables = [(n, each) for n, each in enumerate(sources or ()) if isinstance(each, Mapping)]
    found = [(n, topic, offsets) for n, each in tables for topic, offsets in each.items()]
    return {
        Place(n, topic, int(partition)): int(offset)
        for n, topic, offsets in found
        if isinstance(offsets, Mapping)
        for partition, offset in offsets.items()
    }


def _at(sources: Any, place: Place) -> int | None:
    if not sources or place.source >= len(sources) or not isinstance(sources[place.source], Mapping):
        return None
    # Spark begins a partition that is added later at 0, or stops.
    return int(sources[place.source].get(place.topic, {}).get(str(place.partition), 0))
