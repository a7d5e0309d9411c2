"""Lets a query go on whose ledger and checkpoint no longer agree: the ledger restores the checkpoint or begins anew."""

from dataclasses import dataclass, replace

from conf.errors import TidemarkError
from jobs.connectors.exactly_once.ledger import (
    DONE,
    PLAN,
    BatchId,
    Done,
    Plan,
    Progress,
    checkpoint_replaced,
    is_same_batch,
)
from jobs.connectors.exactly_once.sink import LedgerSink
from jobs.connectors.exactly_once.transaction import Transaction
from jobs.connectors.kafka.offsets import topic_ids


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
    they are now, and so are the published shards of a batch that was begun, whose records may have changed since.

    Raises:
        TidemarkError: ADOPT_NEEDS_STATE, where the ledger cannot give back the state that the query keeps.
    """
    with Transaction(sink.writer(None, -1)) as transaction:
        marker = transaction.last_marker()
        last = marker if isinstance(marker, Plan) else None
        if last is None or (held.last and held.query_id == last.id.query_id and last.id.batch < held.last.batch):
            if held.last is None:
                return Adoption(f"{sink.id}: ledger and checkpoint are both new, there is nothing to adopt")
            ids = topic_ids(sink.admin, sink.topics, sink.kafka.client_config())
            _begin_anew(sink, transaction, held.last, ids)
            return Adoption(f"{sink.id}: the ledger begins after batch {held.last.batch} of query {held.query_id}")
        ids = topic_ids(sink.admin, {*sink.topics, *last.topics}, sink.kafka.client_config())
        accepted = replace(last, topics=ids, accepted=True)
        if accepted != last:
            transaction.commit(accepted.to_json(), PLAN)
    if _is_in_step(last, held):
        return Adoption(f"{sink.id}: ledger and checkpoint agree on batch {last.id.batch}; {_taken(last, held)}")
    if stateful or last.stateful:
        what = f"sink {sink.id}: the query keeps state, which was in the checkpoint of query {last.id.query_id} alone"
        other = "publish into a topic and from a job of another name"
        remedy = f"restore that checkpoint up to batch {last.id.batch}, or {other}"
        raise TidemarkError("ADOPT_NEEDS_STATE", what, remedy)
    return Adoption(f"{sink.id}: goes on with batch {last.id.batch} of query {last.id.query_id}", last)


def _taken(last: Plan, held: Held) -> str:
    """Return what is taken as it is, and what that may cost."""
    if last.id == held.last:
        return "topics are taken as they are"
    text = "what of it is published stays, the rest is written as the job gives it now"
    if last.layout == "key":
        text += "; a record whose key has changed since may lack, or be there twice"
    return text


def _is_in_step(last: Plan, held: Held) -> bool:
    if held.damaged or held.query_id != last.id.query_id:
        return False
    if held.last is not None and last.id == held.last:
        return True
    after = held.last.batch + 1 if held.last else 0
    return last.id.batch == after and held.next_hash == last.id.offsets_hash


def progress(sink: LedgerSink, at: BatchId) -> Progress:
    """Return how much of batch `at`, which the checkpoint has begun, is in the topics; this fences a run of the query.

    Raises:
        TidemarkError: CHECKPOINT_REPLACED, CHECKPOINT_ROLLED_BACK, BATCH_CHANGED.
    """
    with Transaction(sink.writer(None, at.batch)) as transaction:
        last = transaction.last_marker()
    if not isinstance(last, Plan) or not is_same_batch(last.id, at, sink.id):
        return "none"
    if last.layout == "whole":
        return "all"
    for shard in range(last.shards):
        with Transaction(sink.writer(shard, at.batch)) as transaction:
            done = transaction.last_marker()
        if not isinstance(done, Done) or done.id != at:
            return "some"
    return "all"


def begin_after(sink: LedgerSink, at: BatchId) -> None:
    """Let the ledger go on behind batch `at`, with the output topics that it knows; this fences a run of the query.

    Raises:
        TidemarkError: CHECKPOINT_REPLACED, where the ledger is of another query.
    """
    with Transaction(sink.writer(None, at.batch)) as transaction:
        last = transaction.last_marker()
        if isinstance(last, Plan) and last.id.query_id != at.query_id:
            raise checkpoint_replaced(sink.id, last.id.query_id, last.id.batch, at.query_id)
        ids = topic_ids(sink.admin, sink.topics, sink.kafka.client_config())
        _begin_anew(sink, transaction, at, ids | (last.topics if isinstance(last, Plan) else {}))


def _begin_anew(sink: LedgerSink, transaction: Transaction, at: BatchId, topics: dict[str, str]) -> None:
    """Commit that batch `at` is done; and mark every shard, so that no writer of the past can go on there."""
    shards = sink.ledger.shards(sink.admin)
    for shard in range(shards):
        with Transaction(sink.writer(shard, at.batch)) as shard_transaction:
            shard_transaction.last_marker()
            shard_transaction.commit(Done(at, shard).to_json(), DONE)
    transaction.commit(Plan(at, "key", 0, topics=topics).to_json(), PLAN)
