"""A record that names its own topic is named where that topic is none, is not there, or refuses it."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from conf.errors import TidemarkError
from jobs.connectors.exactly_once.ledger import BatchId, Done
from jobs.connectors.exactly_once.shard_producer import HASH, ShardProducer
from jobs.connectors.exactly_once.transaction import PRODUCER
from jobs.connectors.kafka.refusals import SizeLimits
from local.broker import Cluster
from local.processes import wait_for

ORIGIN = "made of source-3 from offset 40 to before 43"
GOOD = b"good"


@pytest.fixture
def compacted(broker: Cluster, new_topic: Callable[[int], str]) -> str:
    name = f"{new_topic(1)}-compacted"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic(name, 1, 1, config={"cleanup.policy": "compact"})])[name].result()
    wait_for(lambda: name in admin.list_topics(timeout=10).topics, 30, TimeoutError)
    return name


def refusal(broker: Cluster, rows: list[dict[str, Any]], fast: bool = True, large: int = 1_000_000) -> TidemarkError:
    """The stop of a shard with these rows (key, topic, perhaps partition and timestamp)."""
    sent = ShardProducer(Done(BatchId("query", 7, "hash"), 0), "sink", SizeLimits({}, otherwise=large), ORIGIN, fast)
    known = {"bootstrap.servers": broker.bootstrap_servers, "topic.metadata.propagation.max.ms": 0}
    producer = Producer({**PRODUCER, **known})
    kinds = {"key": pa.binary(), "topic": pa.string(), "partition": pa.int32(), "timestamp": pa.int64()}
    columns = {name: pa.array([row[name] for row in rows], kinds[name]) for name in rows[0]}
    columns |= {"value": pa.array([b"v"] * len(rows)), HASH: pa.array(range(len(rows)), pa.int64())}
    try:
        sent.produce(producer, [pa.RecordBatch.from_pydict(columns)], None, 30)
    except TidemarkError as stop:
        return sent.refusal or stop
    assert producer.flush(30) == 0
    assert sent.refusal is not None, sent.failed
    return sent.refusal


def named(stop: TidemarkError) -> str:
    assert f"the record with key 'bad' (batch 7, {ORIGIN}, row 2)" in stop.message
    assert "\n" not in str(stop)
    return str(stop)


def test_a_record_without_a_topic_is_named(broker: Cluster, new_topic: Callable[[int], str]) -> None:
    stop = refusal(broker, [{"key": GOOD, "topic": new_topic(1)}, {"key": b"bad", "topic": None}])
    assert named(stop).startswith("BAD_SINK_COLUMNS: ")
    assert "has a null in column `topic`; name the topic of every row" in str(stop)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("large", [1_000_000, 1])  # records that may be too large are watched anyway
@pytest.mark.parametrize(
    ("topic", "code"),
    [("nobody-has-made-it", "TOPIC_MISSING"), ("no topic!", "RECORD_REFUSED"), ("", "RECORD_REFUSED")],
)
def test_a_record_for_a_topic_that_is_not_there_or_is_none_is_named(
    topic: str, code: str, large: int, fast: bool, broker: Cluster, new_topic: Callable[[int], str]
) -> None:
    rows = [{"key": GOOD, "topic": new_topic(1)}, {"key": b"bad", "topic": topic}]
    assert f", for topic {topic}: " in named(stop := refusal(broker, rows, fast, large))
    assert stop.code == code


def test_a_record_without_a_key_for_a_compacted_topic_is_named(broker: Cluster, compacted: str) -> None:
    stop = refusal(broker, [{"key": GOOD, "topic": compacted}, {"key": None, "topic": compacted}])
    assert stop.code == "RECORD_REFUSED"
    assert f"the record with no key (batch 7, {ORIGIN}, row 2), for topic {compacted}: " in stop.message
    assert "give every record a key" in stop.remedy


def test_a_record_for_a_partition_that_its_topic_lacks_is_named(
    broker: Cluster, new_topic: Callable[[int], str]
) -> None:
    topic = new_topic(1)
    rows = [{"key": GOOD, "topic": topic, "partition": 0}, {"key": b"bad", "topic": topic, "partition": 1}]
    assert named(stop := refusal(broker, rows)).startswith("RECORD_REFUSED: ")
    assert "mend the column `partition`" in stop.remedy


def test_a_record_whose_time_its_topic_does_not_take_is_named(broker: Cluster, new_topic: Callable[[int], str]) -> None:
    topic = new_topic(1)
    rows = [
        {"key": GOOD, "topic": topic, "timestamp": 1_700_000_000_000},
        {"key": b"bad", "topic": topic, "timestamp": 2**52},
    ]
    assert named(refusal(broker, rows)).startswith("TIMESTAMP_AHEAD: ")
