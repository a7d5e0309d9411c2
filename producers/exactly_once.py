"""What a run under a name is to publish, and what the name's ledger says of it: begin, go on, stop, or nothing to do.

A name stands for one input, which the facts of `producers.facts` describe; its identity is a hash of them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jobs.connectors.ledger import stops
from jobs.connectors.ledger.markers import BatchId, Published


@dataclass(frozen=True)
class Position:
    """How far an input was read: rows or events, and how many of them were rejected."""

    read: int
    rejected: int = 0


def begun(facts: Mapping[str, str], topic_ids: Mapping[str, str], run: str) -> Published:
    """The marker of a run that begins with the first row."""
    identity = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return Published(BatchId(identity, 0, ""), 0, topic_ids=dict(topic_ids), facts=dict(facts), run=run)


def starting_point(last: Published | None, wanted: Published, name: str) -> Published:
    """Where the run that `wanted` begins goes on, given the name's last marker; complete where nothing is left.

    Raises:
        TidemarkError: INPUT_CHANGED, TOPIC_RECREATED.
    """
    if last is None:
        return wanted
    if last.id.query_id != wanted.id.query_id:
        names = sorted(last.facts.keys() | wanted.facts.keys())
        changed = [each for each in names if last.facts.get(each) != wanted.facts.get(each)]
        raise stops.input_changed(name, changed, last.read)
    for topic in sorted(last.topic_ids.keys() & wanted.topic_ids.keys()):
        if last.topic_ids[topic] != wanted.topic_ids[topic]:
            raise stops.published_topic_recreated(name, topic)
    return replace(last, id=_next(last), n=0, topic_ids=wanted.topic_ids, run=wanted.run)


def advanced(last: Published, position: Position, records: Mapping[str, int], complete: bool) -> Published:
    """The marker of the transaction after `last`, which holds so many records by topic."""
    topics = {*last.delivered, *records}
    return replace(
        last,
        id=_next(last),
        n=sum(records.values()),
        topics=tuple(sorted(records)),
        read=position.read,
        rejected=position.rejected,
        delivered={topic: last.delivered.get(topic, 0) + records.get(topic, 0) for topic in sorted(topics)},
        complete=complete,
    )


def told(start: Published, name: str, unit: str) -> str | None:
    """The line on what earlier runs have done; None where there is nothing to say. `unit`: row or event."""
    done = f"{sum(start.delivered.values()):,} delivered"
    done += f", {start.rejected:,} rejected" if start.rejected else ""
    if start.complete:
        return f"exactly once: {name} is complete since an earlier run, {start.read:,} {unit}s ({done}): nothing to do"
    if not start.read:
        return None
    return f"exactly once: {name} goes on after {unit} {start.read:,}: {done} by earlier runs"


def _next(last: Published) -> BatchId:
    return replace(last.id, batch=last.id.batch + 1)
