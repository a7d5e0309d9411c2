"""A source topic that is another one now, or has lost what was to be read, stops the query by name."""

import shutil
from typing import Any, cast

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.settings import load
from jobs.connectors.kafka import offsets
from jobs.pipeline import checkpoint
from jobs.pipeline.guards import SourceGuard, topics_of
from jobs.pipeline.run import Run
from local.processes import wait_for
from tests.faults.oracle import read_all
from tests.jobs.scratch import Scratch
from tests.kinds import of_a_kind


def declared(scratch: Scratch, topic: str) -> Run:
    run = scratch.run()
    run.append(run.read(topic), "levels")
    return run


def send(scratch: Scratch, topic: str, count: int) -> None:
    scratch.send(topic, *(scratch.reading(topic, f"r{number}", number) for number in range(count)))


def recreate(admin: AdminClient, topic: str) -> None:
    admin.delete_topics([topic])[topic].result()
    late = TimeoutError(f"{topic} did not go")
    wait_for(lambda: topic not in admin.list_topics(timeout=10).topics, 30, lambda: late)
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    wait_for(lambda: topic in admin.list_topics(timeout=10).topics, 30, lambda: late)


@pytest.mark.parametrize("count", of_a_kind([2, 9], [2]))
def test_a_topic_created_again_stops_the_query_whether_it_is_shorter_or_longer(scratch: Scratch, count: int) -> None:
    admin = AdminClient({**scratch.settings().kafka.client_config(), "log_level": 0})
    topic = scratch.topic()
    send(scratch, topic, 5)
    scratch.catch_up(declared(scratch, topic))
    recreate(admin, topic)
    send(scratch, topic, count)
    with pytest.raises(TidemarkError, match="TOPIC_RECREATED") as stopped:
        scratch.catch_up(declared(scratch, topic))
    assert topic in stopped.value.message
    assert len(scratch.rows("levels")) == 5


@pytest.mark.slow
def test_records_that_retention_took_before_they_were_read_stop_the_query(scratch: Scratch) -> None:
    admin = AdminClient({**scratch.settings().kafka.client_config(), "log_level": 0})
    topic = scratch.topic()
    send(scratch, topic, 5)
    scratch.catch_up(declared(scratch, topic))
    send(scratch, topic, 5)
    admin.delete_records([TopicPartition(topic, 0, 8)])[TopicPartition(topic, 0)].result(30)
    with pytest.raises(TidemarkError, match=r"DATA_LOST.*longer retention") as stopped:
        scratch.catch_up(declared(scratch, topic))
    assert stopped.value.code == "QUERY_FAILED"
    assert len(scratch.rows("levels")) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "checksum"),
    of_a_kind([(b"", True), (b"", False), (b'{"top', True), (b'{"top', False)], [(b'{"top', False)]),
)
def test_damaged_ids_of_topics_stop_the_query_instead_of_letting_any_topic_pass(
    scratch: Scratch, text: bytes, checksum: bool
) -> None:
    topic = scratch.topic()
    send(scratch, topic, 5)
    scratch.catch_up(declared(scratch, topic))
    file = scratch.folder / "checkpoints" / "probe" / "levels" / "tidemark" / "source-topics.json"
    file.write_bytes(text)
    if not checksum:
        (file.parent / f".{file.name}.crc").unlink()
    with pytest.raises(TidemarkError, match=r"CHECKPOINT_DAMAGED: .*source-topics\.json"):
        scratch.catch_up(declared(scratch, topic))


def test_a_topic_that_is_still_the_same_one_is_read_on(scratch: Scratch) -> None:
    topic = scratch.topic()
    for _ in range(2):
        send(scratch, topic, 5)
        scratch.catch_up(declared(scratch, topic))
    assert len(scratch.rows("levels")) == 10


def test_only_kafka_sources_have_topics() -> None:
    offsets = {"until": [{"a": {"0": 1}, "b": {"0": 2}}, {"logOffset": 3}, 7, None]}
    assert topics_of(offsets) == {"a", "b"}
    assert topics_of({"until": None}) == set()
    assert topics_of({}) == set()


def test_an_outage_that_the_guard_meets_is_named_as_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offsets, "FAILOVER_SECONDS", 0.1)
    monkeypatch.setattr(offsets, "ATTEMPT_SECONDS", 0.2)
    monkeypatch.setattr(checkpoint, "read", lambda spark, file: '{"departures": "id"}')
    kafka = load("local", ["kafka.bootstrap_servers=127.0.0.1:1"]).kafka
    with pytest.raises(TidemarkError, match="BROKER_UNREACHABLE: no Kafka broker answers"):
        SourceGuard(cast(Any, None), kafka, "/c", "go on").check(["departures"])


WAY_OUT = r"--until-caught-up --skip-lost"


def publishing_run(scratch: Scratch, source: str, target: str, kept: str, skips_lost: bool = False) -> Run:
    """A run that publishes the levels of `source`; `kept`: what the job has beside the topic."""
    run = scratch.run(f"ledger.small_batch_records={0 if kept == 'shards' else 5000}")
    run.skips_lost = skips_lost
    readings = run.read(source)
    if kept == "state":
        readings = readings.dropDuplicates(["level"])
    if kept == "table":
        run.write_and_publish(
            readings, f"of-{target}", target, lambda rows: rows.select(F.col("level").cast("string").alias("value"))
        )
        return run
    run.publish(readings.select(F.col("level").cast("string").alias("value")), target)
    return run


def send_levels(scratch: Scratch, topic: str, *levels: int) -> None:
    scratch.send(topic, *(scratch.reading(topic, f"r{level}", level) for level in levels))


def published(scratch: Scratch, topic: str) -> list[int]:
    records, stuck = read_all(scratch.settings().kafka.bootstrap_servers, topic, committed=True)
    assert not stuck
    return sorted(int(value) for _, value, _ in records)


def stop_and_follow_the_way_out(scratch: Scratch, source: str, target: str, kept: str, code: str) -> None:
    """Without state or tables, the checkpoint is lost as well, and adopted before."""
    with pytest.raises(TidemarkError, match=rf"{code}.*{WAY_OUT}"):
        scratch.catch_up(publishing_run(scratch, source, target, kept))
    if kept in ("shards", "nothing"):
        shutil.rmtree(scratch.folder / "checkpoints")
        publishing_run(scratch, source, target, kept).adopt()
    scratch.catch_up(publishing_run(scratch, source, target, kept, skips_lost=True))


@pytest.mark.slow
@pytest.mark.parametrize("kept", of_a_kind(["shards", "nothing", "state", "table"], ["shards"]))
def test_a_job_that_publishes_goes_on_behind_what_retention_took_with_or_without_its_checkpoint(
    kept: str, scratch: Scratch, capsys: Any
) -> None:
    source, target = scratch.topic(), scratch.topic()
    send_levels(scratch, source, 0, 1, 2)
    scratch.catch_up(publishing_run(scratch, source, target, kept))
    send_levels(scratch, source, 3, 4, 5)
    scratch.delete_records(source, {0: 5})
    stop_and_follow_the_way_out(scratch, source, target, kept, "DATA_LOST")

    assert published(scratch, target) == [0, 1, 2, 5]
    assert f"{source} partition 0: offsets 3 to 4 are gone" in capsys.readouterr().err
    send_levels(scratch, source, 6)
    scratch.catch_up(publishing_run(scratch, source, target, kept))
    assert published(scratch, target) == [0, 1, 2, 5, 6]


@pytest.mark.slow
@pytest.mark.parametrize("kept", of_a_kind(["shards", "nothing", "state", "table"], ["state"]))
def test_a_job_that_publishes_goes_on_with_a_topic_that_was_created_again(
    kept: str, scratch: Scratch, capsys: Any
) -> None:
    admin = AdminClient({**scratch.settings().kafka.client_config(), "log_level": 0})
    source, target = scratch.topic(), scratch.topic()
    send_levels(scratch, source, 0, 1, 2)
    scratch.catch_up(publishing_run(scratch, source, target, kept))
    recreate(admin, source)
    send_levels(scratch, source, 3, 4, 5, 6)
    stop_and_follow_the_way_out(scratch, source, target, kept, "TOPIC_RECREATED")

    assert published(scratch, target) == [0, 1, 2, 3, 4, 5, 6]
    assert f"topic {source} was created again" in capsys.readouterr().err
    send_levels(scratch, source, 7)
    scratch.catch_up(publishing_run(scratch, source, target, kept))
    assert published(scratch, target) == [0, 1, 2, 3, 4, 5, 6, 7]
