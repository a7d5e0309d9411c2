"""The doctor's answers, and what Spark makes of the same change when the query is started all the same."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
from confluent_kafka.admin import AdminClient
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.stateful_processor import StatefulProcessor, StatefulProcessorHandle

from conf.errors import TidemarkError
from jobs.operations.checkpoint_doctor import commands
from jobs.operations.checkpoint_doctor.diagnosis import Diagnosis, Doctor
from jobs.pipeline import checkpoint
from jobs.pipeline.run import Run
from jobs.pipeline.state_store import PARTITIONS
from local.broker import Cluster
from tests.jobs.pipeline.test_guards import recreate
from tests.jobs.scratch import Row, Scratch
from tests.kinds import of_a_kind

AT = "at"
ROCKSDB = "spark.state_store=rocksdb"


def plain(readings: DataFrame) -> DataFrame:
    return readings


def minutes(number: int) -> int:
    return int(datetime(2026, 1, 31, 12, number, tzinfo=UTC).timestamp() * 1000)


@dataclass(frozen=True)
class Job:
    """A job that can be changed in one place: levels counted by window and id."""

    window: str = "10 minutes"
    lateness: str = "10 minutes"
    by: str = "id"
    key: str = "id"
    totals: tuple[tuple[str, str], ...] = (("n", "count(*)"),)
    first: Callable[[DataFrame], DataFrame] = plain
    output: str = "totals"
    mode: str = "update"
    more: str = ""
    plain_totals: bool = True

    def counted(self, readings: DataFrame) -> DataFrame:
        late = self.first(readings.withWatermark(AT, self.lateness))
        groups = late.groupBy(F.window(AT, self.window), F.expr(self.key).alias(self.by))
        totals = groups.agg(*(F.expr(text).alias(name) for name, text in self.totals))
        named = [name for name, _ in self.totals] if self.plain_totals else []
        return totals.selectExpr("window.start AS start", self.by, *named, *([self.more] if self.more else []))

    def build(self, run: Run, *topics: str) -> None:
        first, *more = (run.read(topic) for topic in topics)
        readings = first
        for other in more:
            readings = readings.unionByName(other)
        frame = self.counted(readings)
        if self.mode == "append":
            run.append(frame, self.output)
        else:
            run.upsert(frame, self.output, keys=("start", self.by))


def repeats(readings: DataFrame) -> DataFrame:
    return readings.dropDuplicatesWithinWatermark(["id", AT])


def send(scratch: Scratch, topic: str, *readings: tuple[str, int, int]) -> None:
    scratch.send(topic, *(scratch.reading(topic, id, level, at=minutes(at)) for id, level, at in readings))


def start(scratch: Scratch, job: Job, *topics: str, overrides: tuple[str, ...] = ()) -> None:
    run = scratch.run(*overrides)
    job.build(run, *topics)
    scratch.catch_up(run)


def ask(scratch: Scratch, job: Job, *topics: str, overrides: tuple[str, ...] = ()) -> Diagnosis:
    run = scratch.run(*overrides)
    job.build(run, *topics)
    (found,) = Doctor(scratch.spark, run.settings, run).diagnoses()
    return found


def totals(scratch: Scratch, table: str = "totals") -> list[Row]:
    return [tuple(row)[1:] for row in scratch.rows(table)]


@pytest.fixture
def topic(scratch: Scratch) -> str:
    return scratch.topic(event_time=AT)


@pytest.fixture(scope="module")
def made(
    spark: SparkSession, broker: Cluster, new_topic: Callable[[int], str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Scratch, str]:
    """A job that has counted `a` twice and `b`; one more `a`, and a `z` of much later, are still to be read."""
    scratch = Scratch(spark, broker, new_topic, tmp_path_factory.mktemp("ran"))
    topic = scratch.topic(event_time=AT)
    send(scratch, topic, ("a", 1, 0), ("a", 2, 1), ("b", 3, 2))
    start(scratch, Job(), topic)
    send(scratch, topic, ("a", 4, 3), ("z", 1, 50))
    return scratch, topic


@pytest.fixture
def ran(scratch: Scratch, made: tuple[Scratch, str]) -> str:
    """The topic of that job, of whose tables and checkpoint `scratch` has a copy."""
    before, topic = made
    shutil.copytree(before.folder, scratch.folder, dirs_exist_ok=True)
    scratch.declared |= before.declared
    return topic


@pytest.mark.slow
def test_what_has_not_changed_is_safe_and_what_is_not_there_new(scratch: Scratch, topic: str) -> None:
    assert ask(scratch, Job(), topic).answer == "new"
    send(scratch, topic, ("a", 1, 0), ("a", 2, 1))
    start(scratch, Job(), topic)
    found = ask(scratch, Job(), topic)
    assert (found.answer, found.reasons, found.notes, found.remedy) == ("safe", (), (), "")


SAFE = {
    "a column more after the aggregate": (replace(Job(), more="n * 2 AS twice"), ("gets column twice",)),
    "another name of a total": (replace(Job(), totals=(("readings", "count(*)"),)), ("gets column readings",)),
    "longer lateness": (replace(Job(), lateness="20 minutes"), ("lateness was", "20 minutes")),
    "a filter before": (replace(Job(), first=lambda rows: rows.where("level > 0")), ("what flows into the state",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", of_a_kind(SAFE, ["a column more after the aggregate"]))
def test_what_is_safe_runs_on_and_gives_what_a_new_start_gives(name: str, scratch: Scratch, ran: str) -> None:
    changed, told = SAFE[name]
    found = ask(scratch, changed, ran)
    assert found.answer == "safe", found
    assert all(any(text in note for note in found.notes) for text in told), found
    start(scratch, changed, ran)
    start(scratch, replace(changed, output="anew"), ran)
    anew = scratch.spark.read.format("delta").load(str(scratch.folder / "tables" / "anew"))
    expected = scratch.rows("anew", *anew.columns)
    # `b` was not counted again: it lacks the columns that are new.
    assert [row for row in scratch.rows("totals", *anew.columns) if row[1] == "a"] == [
        row for row in expected if row[1] == "a"
    ]


REFUSED = {
    "a total more": (replace(Job(), totals=(("n", "count(*)"), ("most", "max(level)"))), "state's value was"),
    "another type of key": (replace(Job(), by="level", key="level"), "state's key was"),
    "an operator more": (replace(Job(), first=repeats), "stateful operators were stateStoreSave and are"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", of_a_kind(REFUSED, ["a total more"]))
def test_what_spark_refuses_is_to_be_rebuilt(name: str, scratch: Scratch, ran: str) -> None:
    changed, told = REFUSED[name]
    found = ask(scratch, changed, ran)
    assert found.answer == "rebuild", found
    assert any(told in reason for reason in found.reasons), found
    with pytest.raises(TidemarkError, match="STATE_CHANGED") as stop:
        start(scratch, changed, ran)
    assert "checkpoint doctor" in str(stop.value)
    assert totals(scratch) == [("a", 2), ("b", 1)]


@pytest.mark.exhaustive
def test_a_field_that_got_wider_stops_its_totals_until_the_job_casts_it_back(scratch: Scratch, topic: str) -> None:
    most = Job(totals=(("most", "max(level)"),))

    def widened(rows: DataFrame) -> DataFrame:
        return rows.withColumn("level", F.col("level").cast("bigint"))

    send(scratch, topic, ("a", 1, 0), ("a", 2, 1))
    start(scratch, most, topic)
    send(scratch, topic, ("a", 7, 2))
    with pytest.raises(TidemarkError, match=r"STATE_CHANGED.*cast a field that got wider to the type it had"):
        start(scratch, replace(most, first=widened), topic)
    start(scratch, replace(most, first=lambda rows: widened(rows).withColumn("level", F.expr("int(level)"))), topic)
    assert [tuple(row) for row in scratch.rows("totals", "id", "most")] == [("a", 7)]


def other_names(readings: DataFrame) -> DataFrame:
    return readings.withColumn("other", F.concat("id", F.lit("x")))


SILENT = {
    "longer windows": (replace(Job(), window="20 minutes"), "windows were 600 s and are 1,200 s"),
    "another key of the same type": (replace(Job(), key="concat(id, 'x')"), "Aggregate was"),
    "another column as key": (replace(Job(), key="other", first=other_names), "compares types, not names"),
    "another total of the same type": (replace(Job(), totals=(("n", "count_if(level > 3)"),)), "Aggregate was"),
    "another output mode": (replace(Job(), mode="append"), "output mode was update and is append"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", of_a_kind(SILENT, ["longer windows", "another output mode"]))
def test_what_spark_takes_without_a_word_and_gets_wrong_is_to_be_rebuilt(name: str, scratch: Scratch, ran: str) -> None:
    changed, told = SILENT[name]
    found = ask(scratch, changed, ran)
    assert found.answer == "rebuild", found
    assert any(told in reason for reason in found.reasons), found
    start(scratch, changed, ran)
    start(scratch, replace(changed, output="anew"), ran)
    assert totals(scratch) != totals(scratch, "anew")


@pytest.mark.slow
def test_without_a_record_what_spark_does_not_keep_is_said_not_to_be_compared(scratch: Scratch, ran: str) -> None:
    (scratch.folder / "checkpoints" / "probe" / "totals" / "tidemark" / "plan.json").unlink()
    found = ask(scratch, replace(Job(), window="20 minutes"), ran)
    assert found.answer == "safe"
    assert "were not compared" in found.notes[0]


@pytest.mark.slow
def test_a_type_that_the_table_cannot_take_is_to_be_rebuilt(scratch: Scratch, ran: str) -> None:
    found = ask(scratch, replace(Job(), more="CAST(n AS STRING) AS n", plain_totals=False), ran)
    assert found.answer == "rebuild"
    assert "TYPE_CHANGED" in found.reasons[0]


@pytest.mark.slow
def test_a_table_that_is_gone_is_told_before_the_job_stops_by_it(scratch: Scratch, ran: str) -> None:
    shutil.rmtree(scratch.folder / "tables" / "totals")
    found = ask(scratch, Job(), ran)
    assert (found.answer, "TABLE_BEHIND" in found.reasons[0]) == ("rebuild", True)


@pytest.mark.slow
@pytest.mark.parametrize("publishes", [True, False])
def test_a_topic_created_again_and_a_damaged_checkpoint_have_the_remedy_that_the_job_would_say(
    publishes: bool, scratch: Scratch
) -> None:
    source, target = scratch.topic(), scratch.topic()

    def declared() -> Run:
        run = scratch.run()
        rows = run.read(source)
        if publishes:
            run.publish(rows.select(F.col("id").alias("value")), target)
        else:
            run.append(rows, target)
        return run

    def doctor() -> Diagnosis:
        run = declared()
        (found,) = Doctor(scratch.spark, run.settings, run).diagnoses()
        assert found.answer == "rebuild"
        return found

    scratch.send(source, scratch.reading(source, "a", 1))
    scratch.catch_up(declared())
    folder = scratch.folder / "checkpoints" / "probe" / target
    anew = f"to read the topics again, delete all of the query together: {folder}, {scratch.folder}/tables/{target}"
    entry = (folder / "offsets" / "0").read_text()
    (folder / "offsets" / "0").write_text("")
    (folder / "offsets" / ".0.crc").unlink()
    found = doctor()
    assert found.reasons == (f"CHECKPOINT_DAMAGED: {folder}/offsets/0 is empty or cut short",)
    by_ledger = "restore the checkpoint, or start the job once with --adopt: it is built anew from the ledger"
    assert found.remedy == (by_ledger if publishes else f"restore the checkpoint from a copy; {anew}")
    (folder / "offsets" / "0").write_text(entry)

    recreate(AdminClient({**scratch.settings().kafka.client_config(), "log_level": 0}), source)
    found = doctor()
    assert found.reasons[0].startswith(f"TOPIC_RECREATED: source topic {source} was deleted and created again")
    skip = "start the job once with --until-caught-up --skip-lost: it goes on at the beginning of the new one"
    way_on = f"{skip}, and what was published stays" if publishes else anew
    assert found.remedy == f"its offsets mean other records now: restore the topic; or {way_on}"


@pytest.mark.slow
def test_more_partitions_are_to_be_repartitioned_where_the_state_lies_in_rocksdb(scratch: Scratch, topic: str) -> None:
    send(scratch, topic, ("a", 1, 0), ("a", 2, 1), ("b", 3, 2))
    start(scratch, Job(), topic, overrides=(ROCKSDB,))
    send(scratch, topic, ("a", 4, 3))
    three = (ROCKSDB, "spark.shuffle_partitions=3")
    assert ask(scratch, Job(), topic, overrides=three).answer == "repartition"
    run = scratch.run(*three)
    Job().build(run, topic)
    assert commands.repartition(scratch.spark, run.settings, run, "totals") == [
        "probe.totals: the state had 2 partitions and has 3"
    ]
    assert commands.repartition(scratch.spark, run.settings, run, "totals")[0].endswith("has 3 partitions already")
    assert ask(scratch, Job(), topic, overrides=three).answer == "safe"
    start(scratch, Job(), topic, overrides=three)
    assert totals(scratch) == [("a", 3), ("b", 1)]
    folder = str(scratch.folder / "checkpoints" / "probe" / "totals")
    last = checkpoint.last_commit(scratch.spark, folder) or 0
    assert checkpoint.conf(scratch.spark, folder, last)[PARTITIONS] == "3"


@pytest.mark.slow
def test_state_on_the_heap_is_neither_repartitioned_nor_moved_to_rocksdb(scratch: Scratch, ran: str) -> None:
    three = ("spark.shuffle_partitions=3",)
    assert "repartitions no state on the heap" in ask(scratch, Job(), ran, overrides=three).reasons[0]
    run = scratch.run(*three)
    Job().build(run, ran)
    with pytest.raises(TidemarkError, match=r"CANNOT_REPARTITION: probe\.totals: its state lies on the heap"):
        commands.repartition(scratch.spark, run.settings, run, "totals")
    moved = ask(scratch, Job(), ran, overrides=(ROCKSDB,))
    assert (moved.answer, "goes on with the old store" in moved.reasons[0]) == ("rebuild", True)
    start(scratch, Job(), ran, overrides=(ROCKSDB, *three))
    assert totals(scratch) == [("a", 3), ("b", 1), ("z", 1)]
    assert ask(scratch, Job(), ran).answer == "safe"


@pytest.mark.slow
def test_an_output_of_another_name_goes_on_with_the_old_checkpoint_and_table(scratch: Scratch, ran: str) -> None:
    renamed = replace(Job(), output="sums")
    found = ask(scratch, renamed, ran)
    assert (found.answer, found.remedy) == ("rename", "local/tidemark checkpoint rename probe sums probe/totals")
    run = scratch.run()
    renamed.build(run, ran)
    assert len(commands.rename(scratch.spark, run.settings, run, "sums", "probe/totals")) == 2
    assert ask(scratch, renamed, ran).answer == "safe"
    start(scratch, renamed, ran)
    assert totals(scratch, "sums") == [("a", 3), ("b", 1), ("z", 1)]
    assert totals(scratch) == []
    with pytest.raises(TidemarkError, match="CANNOT_RENAME"):
        commands.rename(scratch.spark, run.settings, run, "sums", "probe/totals")


class Count(StatefulProcessor):
    """Counts the readings of an id, in a variable of type `kind`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def init(self, handle: StatefulProcessorHandle) -> None:
        self._count = handle.getValueState("count", f"n {self._kind}")

    def handleInputRows(self, key: Any, rows: Iterator[Any], timerValues: Any) -> Iterator[pd.DataFrame]:  # noqa: N802, N803
        before = self._count.get()
        count = (before[0] if before else 0) + sum(len(each) for each in rows)
        self._count.update((count,))
        yield pd.DataFrame({"id": [key[0]], "n": [count]})

    def close(self) -> None:
        pass


def start_or_ask(scratch: Scratch, topic: str, kind: str, is_asked: bool) -> Diagnosis | None:
    run = scratch.run(ROCKSDB)
    groups = run.read(topic).groupBy("id")
    counts = groups.transformWithStateInPandas(Count(kind), "id string, n long", "Update", "None")
    run.upsert(counts, "counts", keys=("id",))
    if is_asked:
        return next(Doctor(scratch.spark, run.settings, run).diagnoses())
    scratch.catch_up(run)
    return None


@pytest.mark.exhaustive
def test_the_variables_of_transform_with_state_are_compared(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.send(topic, scratch.reading(topic, "a", 1), scratch.reading(topic, "b", 1))
    start_or_ask(scratch, topic, "long", is_asked=False)
    same = start_or_ask(scratch, topic, "long", is_asked=True)
    assert same is not None
    assert (same.answer, same.reasons, same.notes) == ("safe", (), ())
    changed = start_or_ask(scratch, topic, "string", is_asked=True)
    assert changed is not None
    assert changed.answer == "rebuild"
    assert "struct<n:bigint> and is struct<n:string>" in changed.reasons[0]
    scratch.send(topic, scratch.reading(topic, "a", 2))
    with pytest.raises(TidemarkError, match="STATE_STORE_VALUE_SCHEMA"):
        start_or_ask(scratch, topic, "string", is_asked=False)
    start_or_ask(scratch, topic, "long", is_asked=False)
    assert scratch.rows("counts") == [("a", 2), ("b", 1)]


@pytest.mark.slow
def test_a_source_more_or_in_another_place_is_to_be_rebuilt(scratch: Scratch, ran: str) -> None:
    other = scratch.topic(event_time=AT)
    send(scratch, other, ("z", 1, 1))
    found = ask(scratch, Job(), ran, other)
    assert found.answer == "rebuild"
    assert "the offsets of " + ran + ", and the job reads " + ran + ", " + other in found.reasons[0]
    with pytest.raises(TidemarkError, match=r"\[1\] sources in the checkpoint offsets and now there are \[2\]"):
        start(scratch, Job(), ran, other)
    start(scratch, replace(Job(), output="both"), ran, other)
    swapped = ask(scratch, replace(Job(), output="both"), other, ran)
    assert swapped.answer == "rebuild"
    assert "in another order" in swapped.reasons[0]
    with pytest.raises(TidemarkError, match="DATA_LOST"):
        start(scratch, replace(Job(), output="both"), other, ran)
