"""Lets a query go on whose ledger and checkpoint no longer agree: the ledger restores the checkpoint or begins anew."""

from dataclasses import dataclass, replace

from conf.errors import TidemarkError
from jobs.connectors.exactly_once.ledger_topic import topic_ids
from jobs.connectors.exactly_once.markers import DONE, PLAN, BatchId, Done, Plan
from jobs.connectors.exactly_once.sink import LedgerSink
from jobs.connectors.exactly_once.transaction import Transaction


@dataclass(frozen=True)
class Held:
    """The state of a checkpoint.

    Args:
        last: the last micro-batch that Spark took for done, as the ledger would name it; None for none.
        next_hash: the offsets hash of the micro-batch after it, where Spark has begun that.
        damaged: whether a file is empty or cut short.
    """

    query_id: str | None
    last: BatchId | None
    next_hash: str | None
    damaged: bool = False


@dataclass(frozen=True)
class Adoption:
    """The outcome of `adopt`: `restore` is the plan whose checkpoint is to be built again; None where it stays."""

    text: str
    restore: Plan | None = None


def adopt(sink: LedgerSink, held: Held, stateful: bool) -> Adoption:
    """Bring the sink's ledger and its checkpoint together again; this fences a run of the query.

    A checkpoint that is missing, another query's, or older than the ledger, is to be restored from the ledger; a ledger
    that is missing, or older than the checkpoint, begins anew where the checkpoint is. The output topics are taken as
    they are now.

    Raises:
        TidemarkError: ADOPT_NEEDS_STATE, where the ledger cannot give back the state that the query keeps.
    """
    with Transaction(sink.writer(None, -1)) as transaction:
        marker = transaction.last_marker()
        last = marker if isinstance(marker, Plan) else None
        if last is None or _is_behind(last, held):
            if held.last is None:
                return Adoption(f"{sink.id}: ledger and checkpoint are both new, there is nothing to adopt")
            _begin_anew(sink, held.last)
            baseline = Plan(held.last, "key", 0, topics=topic_ids(sink.admin, sink.topics, sink.kafka.client_config()))
            transaction.commit(baseline.to_json(), PLAN)
            return Adoption(f"{sink.id}: the ledger begins after batch {held.last.batch} of query {held.query_id}")
        ids = topic_ids(sink.admin, {*sink.topics, *last.topics}, sink.kafka.client_config())
        if ids != last.topics:
            transaction.commit(replace(last, topics=ids).to_json(), PLAN)
    if _is_in_step(last, held):
        return Adoption(
            f"{sink.id}: ledger and checkpoint agree on batch {last.id.batch}; topics are taken as they are"
        )
    if stateful or last.stateful:
        raise _needs_state(sink, last)
    return Adoption(f"{sink.id}: goes on with batch {last.id.batch} of query {last.id.query_id}", last)


def _is_behind(last: Plan, held: Held) -> bool:
    return held.last is not None and held.query_id == last.id.query_id and last.id.batch < held.last.batch


def _is_in_step(last: Plan, held: Held) -> bool:
    if held.damaged or held.query_id != last.id.query_id:
        return False
    if held.last is not None and last.id == held.last:
        return True
    after = held.last.batch + 1 if held.last else 0
    return last.id.batch == after and held.next_hash == last.id.offsets_hash


def _begin_anew(sink: LedgerSink, at: BatchId) -> None:
    """Mark every shard, so that no writer of the past can go on there."""
    shards = sink.ledger.shards(sink.admin)
    for shard in range(shards):
        with Transaction(sink.writer(shard, at.batch)) as transaction:
            transaction.last_marker()
            transaction.commit(Done(at, shard).to_json(), DONE)


def _needs_state(sink: LedgerSink, last: Plan) -> TidemarkError:
    what = f"sink {sink.id}: the query keeps state, which was in the checkpoint of query {last.id.query_id} alone"
    remedy = (
        f"restore that checkpoint up to batch {last.id.batch}, or publish into a topic and from a job of another name"
    )
    return TidemarkError("ADOPT_NEEDS_STATE", what, remedy)
