"""A broker that goes away for a while costs nothing: no event lost, none twice, order kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from conf.settings import load
from local.broker import Cluster
from producers.publisher import Batch, Publisher

BATCHES, SIZE = 40, 500


@pytest.mark.faults
def test_a_restart_of_the_broker_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with Cluster(tmp_path, tmp_path / "logs", attached=True) as cluster:
        servers = cluster.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": servers})
        admin.create_topics([NewTopic("t", 1, 1)])["t"].result()
        settings = load("local", [f"kafka.bootstrap_servers={servers}"])
        publisher = Publisher(settings.kafka, settings.producer, ["t"])

        def events() -> Iterator[Batch]:
            for number in range(BATCHES):
                if number == BATCHES // 4:
                    cluster.stop()
                if number == BATCHES // 2:
                    cluster.start()
                values = [b"%d" % (number * SIZE + each) for each in range(SIZE)]
                yield Batch(["t"] * SIZE, values, ["key"] * SIZE, [0] * SIZE)
                publisher.wait(0.02)

        report = publisher.publish(events())
        assert report.complete, report
        assert cluster.bootstrap_servers == servers
        assert read(servers, BATCHES * SIZE) == list(range(BATCHES * SIZE))


def read(servers: str, count: int) -> list[int]:
    """All values of topic t, in order."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "test"})
    consumer.assign([TopicPartition("t", 0, 0)])
    values = [int(record.value() or b"-1") for record in consumer.consume(count, timeout=30)]
    _, high = consumer.get_watermark_offsets(TopicPartition("t", 0), timeout=30)
    consumer.close()
    assert high == count
    return values
