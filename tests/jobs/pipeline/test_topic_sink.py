"""Topics as outputs: once, in every layout, together with tables, and found again by `adopt`."""

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from jobs.pipeline import topic_sink
from jobs.pipeline.run import Run
from tests.faults.oracle import read_all
from tests.jobs.scratch import Scratch
from tests.kinds import of_a_kind

ROWS = [(f"r{number}", number) for number in range(12)]


def as_records(readings: DataFrame) -> DataFrame:
    return readings.select(F.col("id").alias("key"), F.col("level").cast("string").alias("value"))


def published(scratch: Scratch, topic: str) -> list[str]:
    """The values that a `read_committed` reader finds, sorted by number."""
    records, stuck = read_all(scratch.settings().kafka.bootstrap_servers, topic, committed=True)
    assert not stuck
    return sorted((value.decode() for _, value, _ in records), key=int)


@pytest.fixture
def source(scratch: Scratch) -> str:
    topic = scratch.topic(partitions=2)
    scratch.send(topic, *(scratch.reading(topic, id, level, partition=level % 2) for id, level in ROWS))
    return topic


def run_of(scratch: Scratch, source: str, target: str, *settings: str, how: Callable[[DataFrame], DataFrame]) -> Run:
    run = scratch.run("source.max_offsets_per_trigger=4", *settings)
    run.publish(how(run.read(source)), target)
    return run


ALL = [str(level) for _, level in ROWS]
IN_SHARDS, WHOLE = "ledger.small_batch_records=0", "ledger.small_batch_records=5000"


HOWS = [
    as_records,
    lambda readings: as_records(readings).repartition(3, "key"),
    lambda readings: as_records(readings).withColumn("partition", F.lit(0)),
    lambda readings: as_records(readings).withColumn(
        "headers", F.array(F.struct(F.lit("k").alias("key"), F.lit(b"v").alias("value")))
    ),
    lambda readings: as_records(readings).select("value"),
]


@pytest.mark.parametrize("how", of_a_kind(HOWS, HOWS[:1]))
def test_every_record_is_published_once_over_batches_and_runs(
    how: Callable[[DataFrame], DataFrame], scratch: Scratch, source: str
) -> None:
    target = scratch.topic(partitions=2)
    scratch.catch_up(run_of(scratch, source, target, IN_SHARDS, how=how))
    assert published(scratch, target) == ALL
    scratch.send(source, scratch.reading(source, "new", 99))
    for _ in range(2):
        scratch.catch_up(run_of(scratch, source, target, how=how))
    assert published(scratch, target) == [*ALL, "99"]


def once_each(readings: DataFrame) -> DataFrame:
    """A plan with state."""
    return as_records(readings.dropDuplicates(["level"]))


CHANGES = [(IN_SHARDS, WHOLE, as_records), (WHOLE, IN_SHARDS, as_records), (IN_SHARDS, IN_SHARDS, once_each)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "how"),
    of_a_kind(list(product([IN_SHARDS, WHOLE], [IN_SHARDS, WHOLE], [as_records, once_each])), CHANGES),
)
def test_the_commit_log_lost_after_the_last_batch_changes_nothing(
    before: str, after: str, how: Callable[[DataFrame], DataFrame], scratch: Scratch, source: str
) -> None:
    target = scratch.topic()
    scratch.catch_up(run_of(scratch, source, target, before, how=how))
    commits = scratch.folder / "checkpoints" / "probe" / target / "commits"
    last = max(int(path.name) for path in commits.iterdir() if path.name.isdecimal())
    for path in (commits / str(last), commits / f".{last}.crc"):
        path.unlink()
    scratch.catch_up(run_of(scratch, source, target, after, how=how))
    assert published(scratch, target) == ALL


@pytest.mark.slow
def test_a_deleted_checkpoint_stops_by_name_and_adopt_goes_on_where_the_ledger_ends(
    scratch: Scratch, source: str
) -> None:
    target = scratch.topic()
    scratch.catch_up(run_of(scratch, source, target, how=as_records))
    shutil.rmtree(scratch.folder / "checkpoints")
    with pytest.raises(TidemarkError, match=r"CHECKPOINT_REPLACED.*--adopt"):
        scratch.catch_up(run_of(scratch, source, target, how=as_records))
    scratch.send(source, scratch.reading(source, "new", 99))
    run = run_of(scratch, source, target, how=as_records)
    lines = run.adopt()
    assert "goes on with batch" in lines[0]
    assert Path(lines[1].split("kept as ")[1].removeprefix("file:")).is_dir()
    scratch.catch_up(run)
    assert published(scratch, target) == [*ALL, "99"]


@pytest.mark.slow
def test_a_ledger_that_is_new_in_an_old_query_begins_where_the_query_is(scratch: Scratch, source: str) -> None:
    target = scratch.topic()
    scratch.catch_up(run_of(scratch, source, target, "sink.delivery=at-least-once", how=as_records))
    scratch.send(source, scratch.reading(source, "new", 99))
    with pytest.raises(TidemarkError, match="LEDGER_GAP"):
        scratch.catch_up(run_of(scratch, source, target, how=as_records))
    run = run_of(scratch, source, target, how=as_records)
    assert "the ledger begins after batch" in run.adopt()[0]
    scratch.catch_up(run)
    assert published(scratch, target) == [*ALL, "99"]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_ledger_and_a_checkpoint_that_agree_are_left_as_they_are(scratch: Scratch, source: str) -> None:
    target = scratch.topic()
    run = run_of(scratch, source, target, how=as_records)
    assert "nothing to adopt" in run.adopt()[0]
    scratch.catch_up(run)
    again = run_of(scratch, source, target, how=as_records)
    assert "agree on batch" in again.adopt()[0]
    scratch.catch_up(again)
    assert published(scratch, target) == ALL


def test_a_job_without_a_ledger_has_nothing_to_adopt(scratch: Scratch, source: str) -> None:
    run = scratch.run()
    run.append(run.read(source), "levels")
    assert "nothing to adopt" in run.adopt()[0]


@pytest.mark.slow
def test_a_plan_that_is_not_deterministic_is_refused_and_frozen_by_an_outbox(scratch: Scratch, source: str) -> None:
    target = scratch.topic()

    def shuffled(readings: DataFrame) -> DataFrame:
        return as_records(readings).withColumn("key", F.expr("uuid()"))

    run = scratch.run("source.max_offsets_per_trigger=4")
    with pytest.raises(TidemarkError, match=r"NOT_DETERMINISTIC.*uuid"):
        run.publish(shuffled(run.read(source)), target)
    run.publish(shuffled(run.read(source)), target, mode="outbox")
    scratch.catch_up(run)
    assert published(scratch, target) == ALL


@pytest.mark.slow
def test_a_table_and_a_topic_end_with_both_after_a_crash_between_them(
    scratch: Scratch, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = scratch.topic()

    def declare() -> Run:
        run = scratch.run()
        run.write_and_publish(run.read(source), "levels", target, as_records)
        return run

    def crash(point: str, sink: str, **where: object) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(topic_sink, "fail_point", crash)
        with pytest.raises(TidemarkError, match="power cut"):
            scratch.catch_up(declare())
    assert len(scratch.rows("levels")) == len(ROWS)
    assert published(scratch, target) == []
    scratch.catch_up(declare())
    assert len(scratch.rows("levels")) == len(ROWS)
    assert published(scratch, target) == ALL


@pytest.mark.slow
@pytest.mark.parametrize("delivery", of_a_kind(["at-least-once", "at-most-once"], ["at-most-once"]))
def test_without_a_fault_every_delivery_publishes_each_record_once(
    delivery: str, scratch: Scratch, source: str
) -> None:
    target = scratch.topic()
    scratch.catch_up(run_of(scratch, source, target, f"jobs.probe.delivery={delivery}", how=as_records))
    assert published(scratch, target) == ALL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "layout", "how"),
    [
        (IN_SHARDS, "source", as_records),
        (IN_SHARDS, "state", once_each),
        (IN_SHARDS, "key", lambda readings: once_each(readings).repartition(3, "key")),
        (WHOLE, "whole", as_records),
    ],
    ids=["source", "state", "key", "whole"],
)
def test_the_ledger_counts_what_was_published_and_names_query_and_code(
    setting: str, layout: str, how: Callable[[DataFrame], DataFrame], scratch: Scratch, source: str
) -> None:
    target = scratch.topic()
    run = run_of(scratch, source, target, setting, how=how)
    scratch.catch_up(run)
    ledger = f"__tidemark.probe.{target}.ledger"
    assert [output.topics for output in run.outputs] == [(target, ledger)]
    servers = scratch.settings().kafka.bootstrap_servers
    markers = [json.loads(value) for _, value, _ in read_all(servers, ledger, committed=True)[0]]
    done = [marker for marker in markers if marker["kind"] == "done"]
    plans = [marker for marker in markers if marker["kind"] == "plan"]
    metadata = json.loads((scratch.folder / "checkpoints" / "probe" / target / "metadata").read_text())
    assert sum(marker["n"] for marker in done) == len(ROWS)
    assert {plan["id"]["query_id"] for plan in plans} == {metadata["id"]}
    assert [plan["id"]["batch"] for plan in plans] == list(range(len(plans)))
    assert {plan["layout"] for plan in plans} == {layout}
    assert all(plan["code"] and "offsets/0" in plans[0]["checkpoint"] for plan in plans)
    config = AdminClient({"bootstrap.servers": servers, "log_level": 0}).list_topics(timeout=10).topics
    assert ledger in config
