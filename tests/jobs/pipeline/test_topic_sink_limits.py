"""Records at the edge of what topics take, by size and by time: published, or a stop that names them."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from jobs.connectors.exactly_once.shard_producer import HASH
from jobs.connectors.exactly_once.shards import cut_frame
from jobs.pipeline.run import Run
from local.processes import wait_for
from tests.jobs.scratch import Scratch
from tests.kafka_commands import follow
from tests.kinds import of_a_kind
from tests.sent import T0, Record, send

MEGABYTE = 1_000_000
# Five megabytes that no compression makes smaller.
LARGE = Random(3).randbytes(5 * MEGABYTE)


def topic_of(scratch: Scratch, partitions: int = 1, **config: str) -> str:
    """A topic with these settings, dots in their names written as underscores."""
    name = f"{scratch.topic()}-own"
    admin = AdminClient({**scratch.settings().kafka.client_config(), "log_level": 0})
    settings = {key.replace("_", "."): value for key, value in config.items()}
    admin.create_topics([NewTopic(name, partitions, 1, config=settings)])[name].result()
    wait_for(lambda: name in admin.list_topics(timeout=10).topics, 30, TimeoutError)
    return name


def records_of(scratch: Scratch, topic: str, count: int) -> list[Message]:
    """The committed records of partition 0, and that there are so many."""
    found = all_records(scratch, topic)
    assert len(found) == count
    return found


def sizes(scratch: Scratch, topic: str, count: int) -> list[int]:
    return sorted(len(message.value() or b"") for message in records_of(scratch, topic, count))


def key_and_value(records: DataFrame) -> DataFrame:
    return records.select("key", "value")


def with_headers(records: DataFrame) -> DataFrame:
    header = F.struct(F.lit("h").alias("key"), F.lit(b"v").alias("value"))
    return records.select("key", "value", F.array(header).alias("headers"))


@pytest.fixture
def source(scratch: Scratch) -> str:
    """A topic with a small record, one of five megabytes, and a small one."""
    topic = topic_of(scratch, max_message_bytes="10485760")
    for value in (b"first", LARGE, b"last"):
        send(scratch._broker, topic, Record(value, b"k%d" % (len(value) % 7)))
    return topic


@pytest.mark.slow
def test_a_record_of_five_megabytes_is_published_by_every_delivery_to_topics_that_take_it(
    scratch: Scratch, source: str
) -> None:
    topics = [topic_of(scratch, max_message_bytes="10485760") for _ in range(5)]
    exact, headed, least, most, box = topics
    run = scratch.run()
    records = run.records(source)
    run.publish(key_and_value(records), exact)
    run.publish(with_headers(records), headed)
    run.publish(key_and_value(records), least, delivery="at-least-once")
    run.publish(key_and_value(records), most, delivery="at-most-once")
    run.publish(key_and_value(records), box, mode="outbox")
    scratch.catch_up(run)
    assert {topic: sizes(scratch, topic, 3) for topic in topics} == {topic: [4, 5, 5 * MEGABYTE] for topic in topics}


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    of_a_kind(["exactly-once", "at-least-once", "headers", "table"], ["exactly-once"]),
)
def test_a_record_larger_than_its_topic_takes_stops_by_name_and_goes_on_once_the_remedy_is_followed(
    how: str, scratch: Scratch, source: str
) -> None:
    target = topic_of(scratch)

    def declared() -> Run:
        run = scratch.run()
        records = run.records(source)
        if how == "table":
            run.write_and_publish(key_and_value(records), "rows", target, key_and_value)
        elif how == "headers":
            run.publish(with_headers(records), target)
        else:
            run.publish(key_and_value(records), target, delivery="at-least-once" if how == "at-least-once" else None)
        return run

    with pytest.raises(TidemarkError, match="RECORD_TOO_LARGE") as stopped:
        scratch.catch_up(declared())
    text = str(stopped.value)
    assert f"topic {target} takes 1,048,588" in text
    assert "key 'k" in text
    assert "5,000,0" in text
    if how != "at-least-once":
        assert f"made of {source}-0 from offset 0 to before 3, row 2" in text
    assert follow(text)
    scratch.catch_up(declared())
    committed = sizes(scratch, target, 3) if how != "at-least-once" else None
    assert committed in (None, [4, 5, 5 * MEGABYTE])
    if how == "at-least-once":  # what came before the large one may be there twice
        assert 5 * MEGABYTE in {len(each.value() or b"") for each in all_records(scratch, target)}


def all_records(scratch: Scratch, topic: str) -> list[Message]:
    """The committed records of partition 0."""
    own = {"group.id": topic, "isolation.level": "read_committed", "enable.partition.eof": True, "log_level": 0}
    consumer = Consumer({**scratch.settings().kafka.client_config(), **own})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = []
    while (message := consumer.poll(30)) is not None and message.error() is None:
        found.append(message)
    consumer.close()
    return found


@pytest.mark.slow
def test_at_most_once_leaves_out_what_the_topic_does_not_take_names_it_and_goes_on(
    scratch: Scratch, source: str
) -> None:
    target = topic_of(scratch)

    def declared() -> Run:
        run = scratch.run()
        run.publish(key_and_value(run.records(source)), target, delivery="at-most-once")
        return run

    with pytest.raises(TidemarkError, match=r"RECORD_TOO_LARGE.*5,000,0"):
        scratch.catch_up(declared())
    send(scratch._broker, source, Record(b"later", b"k"))
    scratch.catch_up(declared())
    assert sizes(scratch, target, 3) == [4, 5, 5]


def timed(records: DataFrame) -> DataFrame:
    """Records whose timestamp is the text of their value, and null for `none`."""
    at = F.when(F.col("value").cast("string") != "none", F.col("value").cast("string").cast("timestamp"))
    return records.select("key", "value", at.alias("timestamp"))


def times(scratch: Scratch, topic: str, count: int) -> dict[str, int]:
    return {(each.value() or b"").decode(): each.timestamp()[1] for each in records_of(scratch, topic, count)}


def test_an_event_time_is_the_records_timestamp_and_stays_so_when_a_batch_is_run_again(scratch: Scratch) -> None:
    source, target = topic_of(scratch), scratch.topic(event_time="at")
    before = int(datetime.now(UTC).timestamp() * 1000)
    for text in ("2013-01-01T06:00:00.123999Z", "1969-07-20T20:17:40Z", "1970-01-01T00:00:00Z", "none"):
        send(scratch._broker, source, Record(text.encode(), b"k"))

    def declared() -> Run:
        run = scratch.run()
        run.publish(timed(run.records(source)), target)
        return run

    scratch.catch_up(declared())
    commits = scratch.folder / "checkpoints" / "probe" / target / "commits"
    for path in (commits / "0", commits / ".0.crc"):
        path.unlink()
    scratch.catch_up(declared())
    found = times(scratch, target, 4)
    assert found["2013-01-01T06:00:00.123999Z"] == T0 + 123
    assert found["1969-07-20T20:17:40Z"] == found["1970-01-01T00:00:00Z"] == 1
    assert found["none"] >= before


def test_an_event_time_that_the_frame_does_not_give_is_read_out_of_the_values(scratch: Scratch) -> None:
    source, target, copied = (scratch.topic(event_time="at") for _ in range(3))
    before = int(datetime.now(UTC).timestamp() * 1000)
    first, second = scratch.reading(target, "a", 1, at=T0 + 123), scratch.reading(target, "b", 2, at=None)
    scratch.send(source, first, second, Record(b"no event", b"c"))
    run = scratch.run()
    run.publish(key_and_value(run.records(source)), target)
    rows = run.records(source).select("key", "value", F.col("offset").alias("id"))
    run.write_and_publish(rows, "copies", copied, key_and_value)
    scratch.catch_up(run)
    for topic in (target, copied):
        found = {message.key(): message.timestamp()[1] for message in records_of(scratch, topic, 3)}
        assert found[b"a"] == T0 + 123
        assert min(found[b"b"], found[b"c"]) >= before


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_timestamp_ahead_of_what_the_topic_takes_stops_by_name_and_goes_on_with_another_limit(
    scratch: Scratch,
) -> None:
    source, target = topic_of(scratch), topic_of(scratch)
    ahead = (datetime.now(UTC) + timedelta(days=3)).isoformat(timespec="seconds")
    for text in ("2013-01-01T06:00:00+00:00", ahead):
        send(scratch._broker, source, Record(text.encode(), b"k"))

    def declared() -> Run:
        run = scratch.run()
        run.publish(timed(run.records(source)), target)
        return run

    with pytest.raises(TidemarkError, match=r"TIMESTAMP_AHEAD: .*key 'k'.*row 2") as stopped:
        scratch.catch_up(declared())
    assert ahead in str(stopped.value)
    assert follow(str(stopped.value))
    scratch.catch_up(declared())
    assert times(scratch, target, 2)[ahead] == int(datetime.fromisoformat(ahead).timestamp() * 1000)


def test_ledgers_of_older_code_go_on_a_timestamp_is_no_part_of_what_is_compared(spark: SparkSession) -> None:
    rows = spark.createDataFrame([(b"k", b"v")], "key binary, value binary")
    plain = cut_frame(rows, "source", 1).select(HASH).collect()
    timed_rows = rows.select("key", F.lit("2013-01-01").cast("timestamp").alias("timestamp"), "value")
    assert cut_frame(timed_rows, "source", 1).select(HASH).collect() == plain


@pytest.mark.slow
def test_a_record_that_its_topic_never_takes_is_named_and_the_job_goes_on_as_its_stop_says(scratch: Scratch) -> None:
    source = topic_of(scratch, partitions=2)
    compacted, narrow = topic_of(scratch, cleanup_policy="compact"), topic_of(scratch)
    for number, key in enumerate((b"a", None)):
        send(scratch._broker, source, Record(b"v", key, number))

    def forward(topic: str, column: str) -> None:
        run = scratch.run()
        run.publish(run.records(source).select("value", column), topic)
        scratch.catch_up(run)

    for topic, column, what in (
        (compacted, "key", rf"the record with no key \(batch 0, made of {source}-1 from offset 0 .*is compacted"),
        (narrow, "partition", f"names partition 1, topic {narrow} has 1"),
    ):
        with pytest.raises(TidemarkError, match=f"RECORD_REFUSED: .*{what}") as refused:
            forward(topic, column)
        assert follow(refused.value.remedy)
        forward(topic, column)
        assert len(all_records(scratch, topic)) == (2 if topic == compacted else 1)  # of partition 0
