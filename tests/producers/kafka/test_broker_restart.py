"""A broker that goes away: for a while it costs nothing, for good it is a failure with counts."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from conf.errors import TidemarkError
from conf.settings import load
from local.broker import Cluster
from producers.kafka import publisher as kafka_publisher
from producers.kafka import transactional
from producers.kafka.publisher import Batch, Publisher
from producers.kafka.transactional import TransactionalPublisher, TransactionSender
from tests.faults.oracle import read_all

pytestmark = pytest.mark.faults
BATCHES, SIZE = 40, 500


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A broker that a test may stop, with an empty topic t."""
    with Cluster(tmp_path, tmp_path / "logs", attached=True) as started:
        admin = AdminClient({"bootstrap.servers": started.bootstrap_servers, "log_level": 0})
        admin.create_topics([NewTopic("t", 1, 1)])["t"].result()
        yield started


def publisher_to(cluster: Cluster) -> Publisher:
    settings = load("local", [f"kafka.bootstrap_servers={cluster.bootstrap_servers}"])
    return Publisher(settings.kafka, settings.producer, ["t"])


def batch(number: int) -> Batch:
    values = [b"%d" % (number * SIZE + each) for each in range(SIZE)]
    return Batch(["t"] * SIZE, values, ["key"] * SIZE, [0] * SIZE)


def test_a_restart_of_the_broker_loses_and_repeats_nothing(cluster: Cluster) -> None:
    publisher, servers = publisher_to(cluster), cluster.bootstrap_servers

    def events() -> Iterator[Batch]:
        for number in range(BATCHES):
            if number == BATCHES // 4:
                cluster.stop()
            if number == BATCHES // 2:
                cluster.start()
            yield batch(number)
            publisher.wait(0.02)

    report = publisher.publish(events())
    assert report.complete, report
    assert cluster.bootstrap_servers == servers
    assert read(servers, BATCHES * SIZE) == list(range(BATCHES * SIZE))


def test_a_restart_within_a_transaction_leaves_each_record_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactional, "MAX_RECORDS", 4 * SIZE)
    settings = load("local", [f"kafka.bootstrap_servers={cluster.bootstrap_servers}"])
    monkeypatch.setattr(transactional, "TransactionSender", sender_that_loses_the_broker(cluster))
    runs = 0
    while runs < 3:
        publisher = TransactionalPublisher(settings, "t", "name", ["t"])
        done = publisher.begin({}).read
        runs += 1
        if publisher.publish(batch(number) for number in range(done // SIZE, BATCHES)).complete:
            break
    assert read_all(cluster.bootstrap_servers, "t", committed=True) == (
        [(b"key", b"%d" % number, 0) for number in range(BATCHES * SIZE)],
        0,
    )


def sender_that_loses_the_broker(cluster: Cluster) -> type[TransactionSender]:
    """Once, in the middle of a transaction, the broker goes, and records wait for it to come back."""
    gone = threading.Event()

    class LosingSender(TransactionSender):
        def send(self, producer: Producer, batches: Sequence[Batch]) -> None:
            if not gone.is_set():
                gone.set()
                self._produce(producer, batches[0])
                producer.flush(5)
                cluster.stop()
                self._produce(producer, batches[1])
                cluster.start()
                batches = batches[2:]
            super().send(producer, batches)

    return LosingSender


@pytest.mark.exhaustive
def test_an_interrupt_within_a_transaction_whose_broker_is_away_aborts_it_after_a_while(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppingSender(TransactionSender):
        def send(self, producer: Producer, batches: Sequence[Batch]) -> None:
            self._produce(producer, batches[0])
            producer.flush(5)
            cluster.stop()
            super().send(producer, batches[1:])

    monkeypatch.setattr(transactional, "INTERRUPT_FLUSH_SECONDS", 0.5)
    monkeypatch.setattr(transactional, "TransactionSender", StoppingSender)
    settings = load("local", [f"kafka.bootstrap_servers={cluster.bootstrap_servers}"])
    publisher = TransactionalPublisher(settings, "t", "name", ["t"])
    publisher.begin({})
    interrupts = iter([False])
    report = publisher.publish([batch(0), batch(1)], lambda: next(interrupts, True))
    assert (report.interrupted, report.delivered) == (True, {})
    cluster.start()
    assert publisher.begin({}).read == 0
    assert read_all(cluster.bootstrap_servers, "t", committed=True) == ([], 0)


@pytest.mark.exhaustive
def test_a_broker_that_stays_away_is_a_failure_with_counts(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_publisher, "MESSAGE_TIMEOUT_MS", 2_000)
    publisher = publisher_to(cluster)

    def endless() -> Iterator[Batch]:
        yield batch(0)
        assert publisher._producer.flush(30) == 0
        cluster.stop()
        number = 0
        while number := number + 1:
            yield batch(number)
            publisher.wait(0.05)

    report = publisher.publish(endless())
    lost = sum(report.failed.values()) + sum(report.undelivered.values())
    assert report.delivered == {"t": SIZE}
    assert report.failed["t", "_MSG_TIMED_OUT"] > 0
    assert lost % SIZE == 0
    with pytest.raises(TidemarkError, match=r"DELIVERY_FAILED: .* to t \(_MSG_TIMED_OUT\).*the broker was away"):
        report.require_complete()


@pytest.mark.exhaustive
def test_an_interrupt_while_the_broker_is_away_gives_up_after_a_while_with_counts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_publisher, "INTERRUPT_FLUSH_SECONDS", 0.5)
    publisher = publisher_to(cluster)
    cluster.stop()
    report = publisher.publish([batch(0)], lambda: True)
    assert report.interrupted
    assert (report.delivered, report.undelivered) == ({"t": 0}, {"t": SIZE})
    assert f"undelivered: {SIZE} to t" in str(report)


def read(servers: str, count: int) -> list[int]:
    """All values of topic t, in order."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "test"})
    consumer.assign([TopicPartition("t", 0, 0)])
    values = [int(record.value() or b"-1") for record in consumer.consume(count, timeout=30)]
    _, high = consumer.get_watermark_offsets(TopicPartition("t", 0), timeout=30)
    consumer.close()
    assert high == count
    return values
