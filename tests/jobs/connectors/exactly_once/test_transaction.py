"""Transactions against a real broker: fenced, read behind a barrier, all or nothing."""

import uuid
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from jobs.connectors.exactly_once.ledger import DONE, BatchId, Done, Ledger, require_timeout_below_cap
from jobs.connectors.exactly_once.transaction import Transaction, Writer, _explained
from jobs.connectors.kafka.offsets import topic_ids
from local.broker import Cluster

NewTopicOf = Callable[[int], str]


@pytest.fixture
def admin(broker: Cluster) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})


@pytest.fixture
def writer(broker: Cluster, admin: AdminClient) -> Writer:
    ledger = Ledger(f"__ledger-{uuid.uuid4().hex[:8]}", 1)
    ledger.require_shards(admin, 1)
    connection = {"bootstrap.servers": broker.bootstrap_servers}
    return Writer(f"{ledger.name}.0", ledger.name, ledger.partition_of(0), connection, 10_000)


def done(batch: int) -> Done:
    return Done(BatchId("query", batch, "hash"), 0, n=batch)


def committed(broker: Cluster, topic: str) -> list[bytes | None]:
    """What a `read_committed` reader finds in partition 0."""
    own = {"group.id": topic, "isolation.level": "read_committed", "enable.partition.eof": True}
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, **own})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes | None] = []
    while True:
        message = consumer.poll(30)
        assert message is not None, "the end of the partition was not reached"
        error = message.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF
            consumer.close()
            return values
        values.append(message.value())


def test_each_transaction_finds_the_marker_of_the_one_before(writer: Writer) -> None:
    for batch in range(3):
        with Transaction(writer) as transaction:
            assert transaction.last_marker() == (done(batch - 1) if batch else None)
            transaction.commit(done(batch).to_json(), DONE)


def test_records_and_marker_are_there_together_or_not_at_all(
    broker: Cluster, writer: Writer, new_topic: NewTopicOf
) -> None:
    topic = new_topic(1)
    with Transaction(writer) as transaction:
        transaction.last_marker()
        transaction.producer.produce(topic, b"given up")
    with Transaction(writer) as transaction:
        assert transaction.last_marker() is None
        transaction.producer.produce(topic, b"kept")
        transaction.commit(done(0).to_json(), DONE)
    assert committed(broker, topic) == [b"kept"]


def test_an_earlier_writer_can_no_longer_commit_once_another_has_begun(
    broker: Cluster, writer: Writer, new_topic: NewTopicOf
) -> None:
    topic = new_topic(1)
    with pytest.raises(TidemarkError, match="FENCED"), Transaction(writer) as zombie:
        zombie.last_marker()
        zombie.producer.produce(topic, b"zombie")
        with Transaction(writer) as living:
            assert living.last_marker() is None
            living.producer.produce(topic, b"living")
            living.commit(done(0).to_json(), DONE)
        zombie.commit(done(0).to_json(), DONE)
    assert committed(broker, topic) == [b"living"]


def test_the_last_marker_is_found_behind_many_attempts_that_were_given_up(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.connectors.exactly_once.transaction.TAIL_OFFSETS", 2)
    with Transaction(writer) as transaction:
        transaction.last_marker()
        transaction.commit(done(0).to_json(), DONE)
    for _ in range(4):
        with Transaction(writer) as transaction:
            assert transaction.last_marker() == done(0)


def test_a_ledger_grows_and_never_shrinks(admin: AdminClient) -> None:
    ledger = Ledger(f"__ledger-{uuid.uuid4().hex[:8]}", 1)
    for wanted, there in ((2, 2), (5, 5), (1, 5)):
        ledger.require_shards(admin, wanted)
        assert ledger.shards(admin) == there


def test_a_topic_created_again_has_another_id_and_a_missing_one_has_none(
    admin: AdminClient, new_topic: NewTopicOf
) -> None:
    first, second = new_topic(1), new_topic(1)
    ids = topic_ids(admin, [first, second, "no-such-topic"], {})
    assert ids.keys() == {first, second}
    assert ids[first] != ids[second]
    assert topic_ids(admin, [], {}) == {}


def test_a_timeout_above_the_brokers_cap_is_refused(admin: AdminClient) -> None:
    require_timeout_below_cap(admin, 900_000)
    with pytest.raises(TidemarkError, match=r"TRANSACTION_TIMEOUT_ABOVE_CAP.*900,001.*900,000"):
        require_timeout_below_cap(admin, 900_001)


def test_a_broker_that_is_not_there_is_told_in_one_line(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.connectors.exactly_once.transaction.FENCE_SECONDS", 0.1)
    monkeypatch.setattr("jobs.connectors.exactly_once.transaction.METADATA_SECONDS", 0.2)
    away = Writer(writer.transactional_id, writer.ledger, 1, {"bootstrap.servers": "127.0.0.1:1"}, 10_000)
    with pytest.raises(TidemarkError, match="BROKER_UNREACHABLE: writer "):
        Transaction(away)


@pytest.mark.parametrize(
    ("error", "seconds", "heard", "code"),
    [
        (KafkaError._ALL_BROKERS_DOWN, 61, (), "BROKER_UNREACHABLE"),
        (KafkaError._ALL_BROKERS_DOWN, 5, (), "KAFKA_FAILED"),  # another attempt may get past it
        (KafkaError._TRANSPORT, None, (), "BROKER_UNREACHABLE"),  # it was waited for before it began
        (KafkaError.NOT_ENOUGH_REPLICAS, 61, (), "BROKER_UNREACHABLE"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, 61, (), "TOPIC_MISSING"),
        (KafkaError.INVALID_RECORD, 61, (), "RECORD_REFUSED"),
        (KafkaError._FENCED, 5, (), "FENCED"),
        (KafkaError._FENCED, 61, (), "TRANSACTION_TIMED_OUT"),
        (KafkaError._MSG_TIMED_OUT, 61, (), "TRANSACTION_TIMED_OUT"),
        (KafkaError._MSG_TIMED_OUT, 61, (KafkaError._TRANSPORT,), "BROKER_UNREACHABLE"),
        (KafkaError._FENCED, 61, (KafkaError._ALL_BROKERS_DOWN,), "BROKER_UNREACHABLE"),
        (None, 61, (), "TRANSACTION_TIMED_OUT"),
    ],
)
def test_a_transaction_is_named_by_its_cause_and_by_its_time_only_where_nothing_else_is_known(
    error: int | None, seconds: float | None, heard: tuple[int, ...], code: str
) -> None:
    writer = Writer("t.q.0", "__l", 1, {"bootstrap.servers": "127.0.0.1:1"}, 60_000)
    told = None if error is None else KafkaError(error)
    stop = _explained(writer, told, KafkaException("x"), seconds, [KafkaError(each) for each in heard])
    assert stop.code == code
    if code == "TRANSACTION_TIMED_OUT":
        assert stop.remedy.startswith("raise ledger.transaction_timeout_ms")  # a begun batch can be made no smaller


def test_a_name_that_is_too_long_for_a_ledger_is_refused_before_anything_is_created() -> None:
    admin = AdminClient({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    with pytest.raises(TidemarkError, match=r"NAME_TOO_LONG: .* 250 characters, Kafka takes 249; shorten"):
        Ledger("_" * 250, 1).require_shards(admin, 1)
