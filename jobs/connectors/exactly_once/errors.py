"""Makes the errors by which the ledger sink stops a query, by name, with what to do about each."""

from datetime import UTC, datetime, timedelta

from conf.errors import TidemarkError
from jobs.connectors.kafka.refusals import AHEAD_LIMIT, alter_topic

DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ADOPT = "start the job once with --adopt"
AGAIN = "then start the same again"
OTHERS_STAY = "all other records of its batch must stay as they are, some may be published"


def checkpoint_replaced(sink: str, theirs: str, batch: int, ours: str) -> TidemarkError:
    what = f"sink {sink} was written by query {theirs} up to batch {batch}, this checkpoint is of query {ours}"
    remedy = f"restore the old checkpoint, or {ADOPT}: it goes on exactly where the ledger ends"
    return TidemarkError("CHECKPOINT_REPLACED", what, remedy)


def checkpoint_rolled_back(sink: str, recorded: int, batch: int) -> TidemarkError:
    what = f"sink {sink} holds batch {recorded} of this query, and batch {batch} asks to be written"
    return TidemarkError("CHECKPOINT_ROLLED_BACK", what, f"restore the newest checkpoint, or {ADOPT}")


def other_offsets(sink: str, batch: int) -> TidemarkError:
    what = f"batch {batch} of sink {sink} was begun before with other source offsets; a part of it may be in the topic"
    remedy = f"restore the checkpoint that began it, or {ADOPT}: it goes on with the offsets that the ledger has"
    return TidemarkError("BATCH_CHANGED", what, remedy)


def other_records(sink: str, batch: int, shard: int) -> TidemarkError:
    what = f"shard {shard} of batch {batch} of sink {sink} is published, and the job gives other records for it now"
    first = "run the code and settings that began the batch once more, until it has caught up"
    second = f"or {ADOPT}: what is published stays, the rest of the batch is written as the job gives it now"
    third = 'if nothing was changed, the job computes something else each time: publish with mode="outbox" from then on'
    return TidemarkError("BATCH_CHANGED", what, f"{first}; {second}; {third}")


def layout_changed(sink: str, batch: int, how: str) -> TidemarkError:
    what = f"batch {batch} of sink {sink} was begun with {how}"
    remedy = "run the code and settings that began it once more, until it has caught up, then change them"
    return TidemarkError("LAYOUT_CHANGED", what, remedy)


def ledger_gap(sink: str, recorded: int | None, batch: int) -> TidemarkError:
    ends = "is empty" if recorded is None else f"ends with batch {recorded}"
    what = f"the ledger of sink {sink} {ends}, and batch {batch} asks to be written"
    remedy = f"restore the ledger topic; for a sink that is new in an old query {ADOPT}: it begins with this batch"
    return TidemarkError("LEDGER_GAP", what, remedy)


def topic_recreated(sink: str, topic: str) -> TidemarkError:
    what = f"topic {topic} of sink {sink} was deleted and created again: what was written before is gone"
    return TidemarkError("TOPIC_RECREATED", what, f"restore it; to go on with the new topic, {ADOPT}")


def timeout_above_cap(timeout_ms: int, cap_ms: int) -> TidemarkError:
    what = f"ledger.transaction_timeout_ms is {timeout_ms:,}, the brokers allow {cap_ms:,} (transaction.max.timeout.ms)"
    return TidemarkError("TRANSACTION_TIMEOUT_ABOVE_CAP", what, "lower the setting, or raise the brokers' limit")


def transaction_timed_out(writer: str, seconds: float, timeout_ms: int) -> TidemarkError:
    what = (
        f"writer {writer} took {seconds:.0f} s for one transaction, the brokers end it after {timeout_ms / 1000:.0f} s"
    )
    remedy = (
        "raise ledger.transaction_timeout_ms (up to the brokers' transaction.max.timeout.ms, 15 minutes by default), "
        f"{AGAIN}: a batch that was begun keeps its records; source.max_offsets_per_trigger makes later ones smaller"
    )
    return TidemarkError("TRANSACTION_TIMED_OUT", what, remedy)


def too_many_shards(sink: str, shards: int, most: int) -> TidemarkError:
    what = f"sink {sink} is to have {shards} shards, ledger.max_shards is {most}"
    return TidemarkError("TOO_MANY_SHARDS", what, "lower ledger.shards, or raise the limit")


def not_deterministic(query: str, found: str) -> TidemarkError:
    what = f"query {query} computes something else each time it runs ({found}): a batch run again would differ"
    remedy = 'take it out, publish with mode="outbox" (each batch is frozen in a table first), or at-least-once'
    return TidemarkError("NOT_DETERMINISTIC", what, remedy)


def fenced(writer: str) -> TidemarkError:
    what = f"another writer has taken over as {writer}: two runs of one query, or a task that was thought dead"
    return TidemarkError("FENCED", what, "see that the query runs once only, then start the job again")


def ledger_name_too_long(ledger: str, most: int) -> TidemarkError:
    what = f"the ledger's name {ledger} would have {len(ledger)} characters, Kafka takes {most}"
    remedy = "shorten ledger.application or the topic's name, or deliver at-least-once, which keeps no ledger"
    return TidemarkError("NAME_TOO_LONG", what, remedy)


def no_key(what: str, topic: str, servers: str) -> TidemarkError:
    what = f"{what} cannot be sent: topic {topic} is compacted, and takes no record without a key"
    remedy = f"leave it out, or let the topic take it: {alter_topic(topic, 'cleanup.policy', 'delete', servers)}"
    return TidemarkError("RECORD_REFUSED", what, f"{remedy}; {OTHERS_STAY}, {AGAIN}")


def no_partition(what: str, topic: str, partition: int, partitions: int, servers: str) -> TidemarkError:
    what = f"{what} names partition {partition}, topic {topic} has {partitions}, from 0"
    raised = f"`kafka-topics.sh --bootstrap-server {servers or 'HOST:PORT'} --alter --topic {topic} --partitions"
    remedy = f"leave it out, mend its `partition`, or give the topic more: {raised} {partition + 1}`"
    return TidemarkError("RECORD_REFUSED", what, f"{remedy}; {OTHERS_STAY}, {AGAIN}")


def batch_too_large(writer: str) -> TidemarkError:
    what = f"writer {writer}: a batch of records, or a marker, is larger than its topic takes (max.message.bytes)"
    remedy = "raise the limit of the output topic and of the ledger to sink.batch_bytes at least, then start again"
    return TidemarkError("RECORD_TOO_LARGE", what, remedy)


def timestamp_ahead(
    what: str, timestamp_ms: int, now_ms: int, topic: str, ahead_ms: int, servers: str
) -> TidemarkError:
    try:
        at = (EPOCH + timedelta(milliseconds=timestamp_ms)).isoformat()
    except OverflowError:
        at = f"{timestamp_ms:,} ms after 1970"
    what = f"{what} has the timestamp {at}, topic {topic} takes none more than {ahead_ms:,} ms ahead of the clock"
    enough = -(-(timestamp_ms - now_ms) // DAY_MS) * DAY_MS
    raised = alter_topic(topic, AHEAD_LIMIT, enough, servers)
    remedy = f"mend the event time, wait until it has come, or raise the limit: {raised}; then start again"
    return TidemarkError("TIMESTAMP_AHEAD", what, remedy)


def input_changed(name: str, changed: list[str], read: int) -> TidemarkError:
    what = f"{name} was begun with other {', '.join(changed)}, and {read:,} rows or events of that are published"
    return TidemarkError(
        "INPUT_CHANGED", what, "restore the input and its options, or take another --exactly-once NAME"
    )


def published_topic_recreated(name: str, topic: str) -> TidemarkError:
    what = f"topic {topic} was deleted and created again: what {name} published before is gone"
    return TidemarkError("TOPIC_RECREATED", what, "to publish all of it anew, take another --exactly-once NAME")


def publisher_fenced(name: str) -> TidemarkError:
    what = f"another publisher has taken over as {name}, and goes on where this one ends"
    return TidemarkError("FENCED", what, "run one at a time, or give each its own --exactly-once NAME")
