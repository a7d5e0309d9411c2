"""What the ledgers of output topics say: which offsets the batches took that are published, and which batch is not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from jobs.connectors.committed import CommittedReader, Edges, edges
from jobs.connectors.ledger.markers import Done, Plan, parse
from jobs.connectors.ledger.topic import PLAN_PARTITION
from jobs.coverage.chains import Chain, chain_of
from jobs.coverage.claims import Claim, Key
from jobs.offset_log import SOURCE_TOPICS, batch_offsets

PUBLISH = "publish"  # the statement that a sink's batches count as
# A plan takes three offsets, and the newest one is within the last few; of these batches the links are verified.
PLAN_TAIL = 256
VERIFIED_TAIL = 3_000
# The last marker of a shard is within the last few, unless transactions were aborted again and again.
SHARD_TAIL = 256


@dataclass(frozen=True)
class SinkCoverage:
    """What an output topic holds, by the ledger of its sink.

    Args:
        sink: its id, which names the ledger.
        topics: the output topics' ids by name.
        source_topics: the source topics' ids by name, as the query's checkpoint knew them.
        chain: of the batches that are published whole; None where the ledger says nothing of offsets.
        batch: the newest batch that was begun.
        records: that it has published so far.
        shards: how many there are of it; `missing`: those that are not published.
    """

    sink: str
    topics: dict[str, str]
    source_topics: dict[str, str]
    chain: Chain | None
    batch: int
    records: int
    shards: int
    missing: tuple[int, ...]
    at: datetime | None

    @property
    def query(self) -> str:
        """The name of the query that feeds it."""
        return self.sink.split(".", 1)[-1]


def sinks(admin: AdminClient, reader: CommittedReader, application: str, verify: bool = False) -> list[SinkCoverage]:
    """Every sink of the installation `application` that has published, by its id.

    Args:
        verify: read more than the newest batches, so that the links between them can be verified.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    begin, end = f"__{application}.", ".ledger"
    names = [
        name for name in sorted(admin.list_topics(timeout=30).topics) if name.startswith(begin) and name.endswith(end)
    ]
    ends = edges(admin, names)
    most = VERIFIED_TAIL if verify else PLAN_TAIL
    found = (_sink(reader, name, {p: at for (topic, p), at in ends.items() if topic == name}, most) for name in names)
    return [each for each in found if each is not None]


def _sink(reader: CommittedReader, ledger: str, ends: dict[int, Edges], most: int) -> SinkCoverage | None:
    plans = _plans(reader, ledger, ends, most)
    if not plans:
        return None  # a publisher's ledger, or one without a batch
    newest, message = plans[-1]
    done = [_done(reader, ledger, shard, ends) for shard in range(newest.shards)]
    missing = tuple(n for n, each in enumerate(done) if each is None or each.id != newest.id)
    sink = ledger.removeprefix("__").removesuffix(".ledger")
    found = [_claim(sink, plan, at) for plan, at in plans]
    if missing:
        found[-1] = _claim_before(found[-1])
    claims = [each for each in found if each is not None]
    return SinkCoverage(
        sink,
        newest.topics,
        dict(json.loads(newest.checkpoint.get(SOURCE_TOPICS) or "{}")),
        chain_of(_of_newest_query(claims)) if claims else None,
        newest.id.batch,
        sum(each.n for n, each in enumerate(done) if each is not None and n not in missing),
        newest.shards,
        missing,
        _time(message),
    )


def _plans(reader: CommittedReader, ledger: str, ends: dict[int, Edges], most: int) -> list[tuple[Plan, Message]]:
    """Those within the last `most` offsets; where none is, of all."""
    everything = ends[PLAN_PARTITION].end if PLAN_PARTITION in ends else 0
    for behind in (most, everything):
        tail = _tail(reader, ledger, PLAN_PARTITION, ends, behind)
        parsed = [(parse(message.value()), message) for message in tail]
        plans = [(plan, message) for plan, message in parsed if isinstance(plan, Plan)]
        if plans or behind >= everything:
            return plans
    return []


def _tail(reader: CommittedReader, ledger: str, partition: int, ends: dict[int, Edges], most: int) -> list[Message]:
    if partition not in ends or ends[partition].first == ends[partition].end:
        return []
    return reader.tail(ledger, partition, max(ends[partition].first, ends[partition].end - most))


def _done(reader: CommittedReader, ledger: str, shard: int, ends: dict[int, Edges]) -> Done | None:
    markers = [parse(each.value()) for each in _tail(reader, ledger, PLAN_PARTITION + 1 + shard, ends, SHARD_TAIL)]
    return next((each for each in reversed(markers) if isinstance(each, Done)), None)


def _claim(sink: str, plan: Plan, message: Message) -> Claim | None:
    """None for a plan that only marks where a ledger begins anew."""
    offsets: dict[str, Any] = batch_offsets(plan.checkpoint, plan.id.batch)
    if offsets["until"] is None:
        return None
    key = Key(sink, plan.id.query_id, PUBLISH)
    return Claim(key, plan.id.batch, int(message.offset() or 0), _time(message), True, offsets)


def _claim_before(begun: Claim | None) -> Claim | None:
    """What the batches before one that is not published whole took."""
    if begun is None or begun.sources["from"] is None:
        return None
    ends = {"from": None, "until": begun.sources["from"], "since": begun.sources["since"]}
    return replace(begun, batch=begun.batch - 1, sources=ends)


def _of_newest_query(claims: Sequence[Claim]) -> list[Claim]:
    """Those of the newest one's query, a batch once: a plan is written again where topics were taken over."""
    own: dict[int, Claim] = {}
    for each in claims:
        if each.key == claims[-1].key:
            # What says where the batch began says more than what was made of its successor.
            own[each.batch] = own.get(each.batch, each) if each.sources["from"] is None else each
    return [own[batch] for batch in sorted(own)]


def _time(message: Message) -> datetime | None:
    milliseconds = message.timestamp()[1]
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds > 0 else None
