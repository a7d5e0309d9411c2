"""Says what an error of a Kafka client means, librdkafka's or Java's: the stop's code, and what to do about it.

The code also says whether it may pass by itself: see `jobs.pipeline.supervision.PASSING`.
"""

from typing import NamedTuple


class Refusal(NamedTuple):
    """One meaning of several errors.

    Args:
        errors: their names in librdkafka.
        java: the classes of Java's exceptions, without `org.apache.kafka.common.errors`.
    """

    code: str
    remedy: str
    errors: tuple[str, ...]
    java: tuple[str, ...] = ()


UNREACHABLE = "BROKER_UNREACHABLE"
TOPIC_MISSING = "TOPIC_MISSING"
REFUSALS = (
    Refusal(
        "RECORD_TOO_LARGE",
        "raise max.message.bytes of the topic, or publish smaller values",
        ("MSG_SIZE_TOO_LARGE",),
        ("RecordTooLargeException",),
    ),
    Refusal(
        "TIMESTAMP_AHEAD",
        "the broker refuses event times that lie ahead of its clock: mend the event times, or raise the topic's "
        "message.timestamp.after.max.ms",
        ("INVALID_TIMESTAMP",),
        ("InvalidTimestampException",),
    ),
    Refusal(
        "RECORD_REFUSED",
        "a compacted topic takes no record without a key: name a key field, or give every record a key",
        ("INVALID_RECORD",),
        ("InvalidRecordException",),
    ),
    Refusal(
        "RECORD_REFUSED",
        "mend the column `partition`, or give the topic more partitions",
        ("_UNKNOWN_PARTITION",),
    ),
    Refusal(
        TOPIC_MISSING,
        "create it with `local/tidemark topics apply`, or see kafka.bootstrap_servers",
        ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"),
        ("UnknownTopicOrPartitionException",),
    ),
    Refusal(
        "TOPIC_NOT_CREATED",
        "see kafka.replication_factor (not more than there are brokers), and what the brokers' policy allows",
        ("INVALID_REPLICATION_FACTOR", "POLICY_VIOLATION", "TOPIC_EXCEPTION"),
    ),
    Refusal(
        "TRANSACTION_TIMEOUT_ABOVE_CAP",
        "lower ledger.transaction_timeout_ms, or raise the brokers' transaction.max.timeout.ms",
        ("INVALID_TRANSACTION_TIMEOUT",),
        ("InvalidTxnTimeoutException",),
    ),
    Refusal(
        UNREACHABLE,
        "too few brokers have the partition: see that all of them run",
        ("NOT_ENOUGH_REPLICAS", "NOT_ENOUGH_REPLICAS_AFTER_APPEND"),
        ("NotEnoughReplicasException", "NotEnoughReplicasAfterAppendException"),
    ),
    Refusal(
        UNREACHABLE,
        "the broker was away for too long: see that the brokers run",
        ("_ALL_BROKERS_DOWN", "_TRANSPORT", "_RESOLVE", "_TIMED_OUT", "_MSG_TIMED_OUT", "REQUEST_TIMED_OUT"),
        ("TimeoutException", "DisconnectException"),
    ),
)
BY_ERROR = {name: refusal for refusal in REFUSALS for name in refusal.errors}
