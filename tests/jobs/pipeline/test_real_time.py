"""Delivery "real-time": what it refuses by name, and what counts as done."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from conf.settings import load
from jobs.pipeline import checkpoint, progress
from jobs.pipeline import query as streaming_query
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.monitoring.monitor import Monitor
from jobs.pipeline.paths import CHECKED_FILE, WRITTEN_FILE
from jobs.pipeline.pii import Protection, hash_key
from jobs.pipeline.run import Run
from jobs.pipeline.termination import stopped_by
from local.processes import wait_for
from schemas.pii_marks import PiiFields
from tests.faults.oracle import read_all
from tests.jobs.scratch import Scratch
from tests.sent import Record

REAL_TIME = "sink.delivery=real-time"


def as_records(readings: DataFrame) -> DataFrame:
    return readings.select(F.col("id").alias("key"), F.col("level").cast("string").alias("value"))


REFUSED: dict[str, Callable[[DataFrame], DataFrame]] = {
    "keeps state": lambda rows: rows.groupBy("id").agg(F.max("level").alias("level")),
    "a shuffle": lambda rows: rows.repartition(2),
    "a Python function": lambda rows: rows.withColumn("id", F.udf(str, "string")("id")),
    "hashed personal data": lambda rows: Protection(PiiFields({"id": "hash"}), hash_key(rows.sparkSession, "k" * 16))(
        rows
    ),
    "which is no topic": lambda rows: (
        rows.sparkSession.readStream.format("rate").load().selectExpr("cast(value as string) as id", "value as level")
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_plan_that_cannot_be_delivered_in_real_time_is_refused_when_it_is_declared(
    why: str, scratch: Scratch
) -> None:
    source = scratch.topic()
    run = scratch.run(REAL_TIME)
    with pytest.raises(TidemarkError, match=rf"NOT_REAL_TIME: probe .*topic out .*{why}.*jobs\.probe\.delivery"):
        run.publish(as_records(REFUSED[why](run.read(source))), "out")
    assert run.outputs == []


def test_a_table_or_an_outbox_beside_the_topic_is_refused(scratch: Scratch) -> None:
    source = scratch.topic()
    run = scratch.run(REAL_TIME)
    with pytest.raises(TidemarkError, match=r"NOT_REAL_TIME: .*table levels.*a job of its own"):
        run.write_and_publish(run.read(source), "levels", "out", as_records)
    with pytest.raises(TidemarkError, match=r"NOT_REAL_TIME: .*outbox"):
        run.publish(as_records(run.read(source)), "out", mode="outbox")


def test_fewer_slots_than_partitions_are_refused_before_anything_starts(scratch: Scratch) -> None:
    source, target = scratch.topic(partitions=3), scratch.topic()
    run = scratch.run(REAL_TIME)
    run.publish(as_records(run.read(source)), target)
    with pytest.raises(TidemarkError, match=rf"NOT_REAL_TIME: .*3 task slots.*{source} has 3.*local\[3,4\]"):
        run.starts(continuous=True)
    assert not (scratch.folder / "checkpoints").exists()


def test_a_cluster_is_given_more_cores_not_another_master() -> None:
    output = cast(Any, SimpleNamespace(job="probe", topic="out", name="out"))
    stop = streaming_query.too_few_slots(output, {"in": 3, "more": 2}, 5, 4, "spark://host:7077")
    assert "5 task slots" in stop.message and "in has 3, more has 2" in stop.message
    assert stop.remedy.startswith("give it more cores, or ")


@pytest.mark.parametrize("where", ["sink", "jobs.flights.overdue"])
def test_a_batch_lasts_as_long_as_spark_wants_or_longer(where: str) -> None:
    with pytest.raises(TidemarkError, match="5 seconds or longer"):
        load("local", [f"{where}.real_time_batch=4 seconds"])
    settings = load("local", [f"{where}.real_time_batch=7 seconds"])
    assert settings.real_time_batch("flights.overdue") == "7 seconds"
    assert settings.real_time_batch("flights.disruptions") == ("7 seconds" if where == "sink" else "1 minute")


def written(spark: SparkSession, folder: Path, batches: range) -> None:
    for log in ("offsets", "commits"):
        for batch in batches:
            checkpoint.write(spark, f"{folder}/{log}/{batch}", "v1")


def numbers(folder: Path, log: str) -> list[str]:
    return sorted(path.name for path in (folder / log).glob("[0-9]*"))


@pytest.mark.parametrize(
    ("checked", "left"),
    [('{"batch": 4}', "01234"), ('{"batch": 2}', "012"), ('{"bat', "0123"), (None, "01234"), ('{"batch": -1}', "")],
)
def test_the_next_run_begins_behind_the_last_batch_that_was_checked(
    checked: str | None, left: str, spark: SparkSession, tmp_path: Path
) -> None:
    written(spark, tmp_path, range(5))
    if checked is not None:
        checkpoint.write(spark, f"{tmp_path}/{CHECKED_FILE}", checked)
    streaming_query.take_back_unchecked(spark, str(tmp_path))
    assert numbers(tmp_path, "offsets") == numbers(tmp_path, "commits") == list(left)


def test_entries_that_spark_has_purged_are_not_gone_back_to(spark: SparkSession, tmp_path: Path) -> None:
    written(spark, tmp_path, range(3, 6))
    streaming_query.remember_checked(spark, str(tmp_path), 1)
    streaming_query.take_back_unchecked(spark, str(tmp_path))
    assert numbers(tmp_path, "offsets") == numbers(tmp_path, "commits") == ["3"]


def test_micro_batches_that_follow_are_not_taken_back(spark: SparkSession, tmp_path: Path) -> None:
    streaming_query.remember_checked(spark, str(tmp_path), 1)
    assert json.loads((tmp_path / CHECKED_FILE).read_text()) == {"batch": 1}
    streaming_query.remember_checked(spark, str(tmp_path), None)
    assert not (tmp_path / CHECKED_FILE).exists()


@dataclass
class Query:
    """One batch after the other, each seen once, until it is stopped."""

    name: str = "probe"
    runId: str = "run"  # noqa: N815
    seen: list[int] = field(default_factory=list)
    isActive: bool = True  # noqa: N815

    @property
    def lastProgress(self) -> Any:  # noqa: N802
        self.seen.append(len(self.seen))
        return SimpleNamespace(batchId=self.seen[-1])

    def stop(self) -> None:
        self.isActive = False


def test_a_batch_is_done_once_it_was_checked_after_its_end_and_a_check_stops_the_query_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stops: list[TidemarkError] = []
    monkeypatch.setattr(streaming_query, "LOOK_SECONDS", 0)
    query, done, added = Query(), list[int](), threading.Event()

    def stopping(query: Query, stop: TidemarkError) -> None:
        stops.append(stop)
        query.stop()

    monkeypatch.setattr(streaming_query, "stop_by", stopping)

    def check() -> None:
        if added.is_set():
            raise TidemarkError("SCHEMA_ADDED", "a version was added", "start the job again")

    def checked(batch: int) -> None:
        done.append(batch)
        if batch == 2:
            added.set()

    streaming_query.watch_real_time(cast(StreamingQuery, query), check, checked).join(10)
    assert done == [0, 1, 2]
    assert query.seen[-1] == 3
    assert [stop.code for stop in stops] == ["SCHEMA_ADDED"]


def test_what_goes_wrong_with_the_checks_stops_the_query_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stops: list[TidemarkError] = []
    monkeypatch.setattr(streaming_query, "stop_by", lambda query, stop: stops.append(stop))
    streaming_query.watch_real_time(cast(StreamingQuery, Query()), lambda: 1 / 0, lambda batch: None).join(10)  # type: ignore[arg-type]
    assert stops[0].code == "CHECK_FAILED" and "ZeroDivisionError" in stops[0].message


def source_progress(end: int, latest: int) -> Any:
    offsets = {"endOffset": json.dumps({"t": {"0": end}}), "latestOffset": json.dumps({"t": {"0": latest}})}
    return SimpleNamespace(sources=[SimpleNamespace(**offsets)])


def test_a_batch_that_has_gone_past_the_ends_it_began_with_does_not_say_how_far_behind_it_is() -> None:
    assert progress.lag(source_progress(5, 3)) is None
    assert progress.lag(source_progress(3, 3)) == 0
    assert progress.lag(source_progress(3, 5)) == 2


def published(scratch: Scratch, topic: str) -> list[int]:
    records, _ = read_all(scratch.settings().kafka.bootstrap_servers, topic, committed=True)
    return [int(value) for _, value, _ in records]


def declared(scratch: Scratch, source: str, target: str, delivery: str = REAL_TIME) -> Run:
    run = scratch.run(delivery, "sink.real_time_batch=5 seconds")
    run.publish(as_records(run.read(source)), target)
    return run


def until(told: Callable[[], bool], what: object) -> None:
    wait_for(told, 60, lambda: AssertionError(what))


@pytest.mark.slow
def test_a_batch_in_real_time_is_told_of_after_its_end_a_new_schema_stops_it_and_other_deliveries_go_on(
    scratch: Scratch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = scratch.topic(), scratch.topic()
    folder = scratch.folder / "checkpoints" / "probe" / target
    scratch.send(source, scratch.reading(source, "a", 1), Record(b"bad"))
    run = declared(scratch, source, target)
    with Monitor(run) as monitor:
        try:
            (query,) = run.start(continuous=True)
            until(lambda: published(scratch, target) == [1], "the record does not come")
            until((folder / WRITTEN_FILE).exists, "no batch is checked")
            until(lambda: not (query.lastProgress is None or query.lastProgress.batchId < 1), "no second batch")
            scratch.register(source, {"name": "unit", "type": ["null", "string"], "default": None})
            scratch.send(source, scratch.reading(source, "b", 2, unit="m"))
            until(lambda: not query.isActive, "the new version does not stop it")
            stop = stopped_by(query)
        finally:
            run.spark.streams.removeListener(monitor)
    assert stop is not None and stop.code == "SCHEMA_ADDED"
    said = capsys.readouterr().err
    assert "delivers in real time, at least once: what came within 5 seconds before" in said
    assert "real-time, at least once  lag 0  rejected 1" in said
    first = micro_batch_table.micro_batches(run.settings).to_pylist(maps_as_pydicts="strict")[0]
    assert (first["batch"], first["rows_in"], first["rejected_by_code"]) == (0, 2, {"BAD_FRAMING": 1})
    assert first["rows_out"] == {target: 1}
    assert first["offsets"] == [{"topic": source, "partition": 0, "start": 0, "end": 2}]

    # Exactly once goes on with that checkpoint, where nothing is lost, and in real time with what that leaves.
    exactly_once = "sink.delivery=exactly-once"
    with pytest.raises(TidemarkError, match=r"LEDGER_GAP.*--adopt"):
        scratch.catch_up(declared(scratch, source, target, exactly_once))
    adopted = declared(scratch, source, target, exactly_once)
    adopted.adopt()
    scratch.catch_up(adopted)
    assert set(published(scratch, target)) == {1, 2}
    scratch.send(source, scratch.reading(source, "c", 3, unit="m"))
    (query,) = declared(scratch, source, target).start(continuous=True)
    until(lambda: 3 in published(scratch, target), "the third record does not come")
    query.stop()
    assert stopped_by(query) is None
    scratch.catch_up(declared(scratch, source, target))
    assert "does not deliver in real time: a run that ends when it is caught up" in capsys.readouterr().err
    assert sorted(published(scratch, target)) == [1, 2, 3, 3]
