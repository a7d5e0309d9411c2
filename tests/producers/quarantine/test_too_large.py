"""Rejected records that are too large for where they are to go: named, and no hindrance to any other."""

from random import Random

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from conf.errors import TidemarkError
from jobs.connectors.kafka.refusals import record_bytes
from local.processes import wait_for
from producers.quarantine.records import Rejected
from producers.quarantine.work_queue import queue_topic
from producers.quarantine.worker import Resolution, Worker
from tests.kafka_commands import follow
from tests.producers.quarantine.ward import Ward

LARGE = Random(5).randbytes(3_000_000)


def rejected(ward: Ward) -> None:
    """Five records, the third of them of three megabytes."""
    ward.reject(*({"offset": offset, "value": LARGE if offset == 2 else b"v"} for offset in range(5)))


def create(ward: Ward, topic: str, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": ward.servers, "log_level": 0})
    admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result()
    wait_for(lambda: topic in admin.list_topics(timeout=10).topics, 30, TimeoutError)


@pytest.mark.slow
def test_a_record_of_three_megabytes_is_queued_with_the_others_and_handed_out(ward: Ward) -> None:
    rejected(ward)
    assert ward.run("queue", "fill", "--all") == 0
    seen: dict[int, int] = {}

    def resolve(row: Rejected, delivery: int) -> Resolution:
        seen[row.at.offset] = len(row.value or b"")
        return Resolution("accept")

    Worker(ward.settings, "worker", resolve, most=5, show=lambda line: None).work()
    assert seen == {0: 1, 1: 1, 2: 3_000_000, 3: 1, 4: 1}


def test_a_queue_made_earlier_takes_all_but_the_large_one_and_that_one_once_the_remedy_is_followed(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    create(ward, queue_topic(ward.settings))
    rejected(ward)
    with pytest.raises(TidemarkError, match=rf"RECORD_TOO_LARGE: .*{ward.topic}/0/2 is 4,000,.*others were") as stop:
        ward.run("queue", "fill", "--all")
    assert "queued 4, left out 0" in capsys.readouterr().out
    assert follow(str(stop.value))
    assert ward.run("queue", "fill", "--all") == 0
    assert "queued 1, left out 4" in capsys.readouterr().out


def test_a_record_that_its_own_topic_takes_no_more_is_named_and_the_others_are_redriven(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, limit = f"{ward.topic}-limited", 2_000
    create(ward, topic, **{"max.message.bytes": str(limit)})
    value = b"x" * (limit - record_bytes(b"k", b"") - 8)
    assert record_bytes(b"k", value) <= limit, "it fits, but not with the headers of a redrive"
    ward.reject(*({"topic": topic, "offset": offset, "value": value if offset == 0 else b"v"} for offset in range(3)))
    with pytest.raises(TidemarkError, match=rf"RECORD_TOO_LARGE: .*{topic}/0/0 is 2,.*takes 2,000") as stop:
        ward.run("redrive", "--all")
    assert "redriven 2 events" in capsys.readouterr().out
    assert follow(str(stop.value))
    assert ward.run("redrive", "--all") == 0
    assert "left out 2" in capsys.readouterr().out
    assert ward.values(topic) == [b"v", b"v", value]
