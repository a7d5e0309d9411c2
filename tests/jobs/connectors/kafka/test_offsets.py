"""Where a range begins and ends, in words and in offsets."""

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from conf.errors import TidemarkError
from conf.settings import Kafka, load
from jobs.connectors.kafka.offsets import Position, list_offsets, milliseconds, parse_position, resolve_offsets
from local.broker import Cluster
from tests.sent import T0, Record, send

LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("2013-01-31", datetime(2013, 1, 31, tzinfo=UTC)),
        ("2013-01-31T05:00:00", datetime(2013, 1, 31, 5, tzinfo=UTC)),
        ("2013-01-31T00:00:00-05:00", datetime(2013, 1, 31, 5, tzinfo=UTC)),
        ('{"t": {"0": 42, "1": 7}}', {"t": {0: 42, 1: 7}}),
    ],
)
@pytest.mark.usefixtures("far_from_greenwich")
def test_a_position_is_an_edge_a_time_or_offsets(text: str, expected: Position) -> None:
    assert parse_position(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("yesterday", "", "{", '{"t": 5}', '{"t": {"zero": 1}}', '{"t": {"0": null}}', "[]"),
        *('{"t": {"0": 1e400}}', '{"t": {"0": 1.5}}', '{"t": {"0": true}}', '{"t": {"0": 9223372036854775808}}'),
        *('{"t": {"-1": 1}}', '{"t": {"0": -3}}', '{"t": {"0": NaN}}', '{"t": {"0": 1%s}}' % ("0" * 5000)),
        *('{"t": ' + '{"t": ' * 50_000, "0001-01-01T00:00+14:00", "9999-12-31T23:00-14:00"),
    ],
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(TidemarkError, match=r"BAD_POSITION.*write earliest, latest, 2013"):
        parse_position(text)


def test_a_time_between_milliseconds_is_after_the_earlier_one() -> None:
    moment = datetime(2013, 1, 1, 6, 0, 0, 123000, tzinfo=UTC)
    assert milliseconds(moment) == T0 + 123
    assert milliseconds(moment.replace(microsecond=123001)) == T0 + 124


@pytest.fixture
def kafka(broker: Cluster) -> Kafka:
    return load("local", [f"kafka.bootstrap_servers={broker.bootstrap_servers}"]).kafka


@pytest.fixture
def topic(broker: Cluster, new_topic: Callable[[int], str], kafka: Kafka) -> str:
    """Three partitions: 0 holds offsets 2 to 4 (older ones are deleted), 1 holds one record, 2 is empty."""
    topic = new_topic(3)
    send(broker, topic, *(Record(b"x", timestamp=T0 + 1000 * n) for n in range(5)), Record(b"y", partition=1))
    deleted, admin = TopicPartition(topic, 0, 2), AdminClient({**kafka.client_config(), "log_level": 0})
    admin.delete_records([deleted])[deleted].result(30)
    return topic


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("earliest", {0: 2, 1: 0, 2: 0}),
        ("latest", {0: 5, 1: 1, 2: 0}),
        (datetime.fromtimestamp(T0 / 1000 + 3, UTC), {0: 3, 1: 1, 2: 0}),
        (datetime.fromtimestamp(T0 / 1000 + 2.0005, UTC), {0: 3, 1: 1, 2: 0}),
        (datetime(1999, 1, 1, tzinfo=UTC), {0: 2, 1: 0, 2: 0}),
        (datetime(2099, 1, 1, tzinfo=UTC), {0: 5, 1: 1, 2: 0}),
        ({"TOPIC": {0: 4, 1: -2, 2: -1}}, {0: 4, 1: 0, 2: 0}),
        ({"TOPIC": {0: 4}}, {0: 4, 1: 1, 2: 0}),
        ({"another": {0: 4}}, {0: 5, 1: 1, 2: 0}),
    ],
)
def test_a_position_comes_to_one_offset_a_partition(
    position: Position, expected: dict[int, int], kafka: Kafka, topic: str
) -> None:
    if isinstance(position, dict):
        position = {name.replace("TOPIC", topic): offsets for name, offsets in position.items()}
    assert resolve_offsets(kafka, topic, position) == {topic: expected}


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ({0: 1}, "partition 0 of topic TOPIC holds offsets 2 to 5, not 1"),
        ({1: 2}, "partition 1 of topic TOPIC ends at offset 1, before 2"),
        ({7: 0}, "topic TOPIC has no partition 7"),
    ],
)
def test_offsets_that_are_not_there_are_refused(
    offsets: dict[int, int], expected: str, kafka: Kafka, topic: str
) -> None:
    with pytest.raises(TidemarkError, match="BAD_POSITION") as refused:
        resolve_offsets(kafka, topic, {topic: offsets})
    assert expected.replace("TOPIC", topic) in str(refused.value)


class Moving:
    """An admin client of a cluster whose partition has no leader for the first `times` questions."""

    def __init__(self, times: int, code: int = KafkaError.NOT_LEADER_FOR_PARTITION) -> None:
        self.times, self.code, self.refreshed = times, code, 0

    def list_offsets(
        self, specs: dict[TopicPartition, OffsetSpec], **_: object
    ) -> dict[TopicPartition, Future[object]]:
        future: Future[object] = Future()
        if self.times > 0:
            future.set_exception(KafkaException(KafkaError(self.code)))
        else:
            future.set_result(SimpleNamespace(offset=7))
        self.times -= 1
        return dict.fromkeys(specs, future)

    def list_topics(self, timeout: float) -> None:
        self.refreshed += 1


def test_a_partition_between_leaders_is_asked_for_again_with_fresh_metadata() -> None:
    admin = Moving(times=2)
    assert list_offsets(cast(AdminClient, admin), [("t", 0)], LATEST) == {("t", 0): 7}
    assert admin.refreshed == 2


@pytest.mark.parametrize(
    ("code", "seconds"), [(KafkaError.TOPIC_AUTHORIZATION_FAILED, 30), (KafkaError.NOT_LEADER_FOR_PARTITION, 0)]
)
def test_an_answer_that_stays_is_raised(code: int, seconds: float) -> None:
    with pytest.raises(KafkaException):
        list_offsets(cast(AdminClient, Moving(times=1000, code=code)), [("t", 0)], LATEST, seconds=seconds)


def test_a_new_topic_has_offsets_at_once(broker: Cluster) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    names = [f"new-{uuid.uuid4().hex[:12]}" for _ in range(20)]
    for name, made in admin.create_topics([NewTopic(name, 6, 1) for name in names]).items():
        made.result(30)
        places = [(name, partition) for partition in range(6)]
        assert list_offsets(admin, places, LATEST) == dict.fromkeys(places, 0)
