"""Rejecting ends where it is no longer an exception: the job stops, and what it has done by then stands."""

import pytest
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.rules import Range
from jobs.ingest import job, quarantine
from schemas.codec import frame
from tests.jobs.ingest.test_job import coordinates
from tests.jobs.scratch import Row, Scratch
from tests.sent import Record

pytestmark = pytest.mark.slow

RATIO = ("quarantine.min_records=3", "quarantine.max_ratio=0.5", "quarantine.max_consecutive=0")
IN_A_ROW = ("quarantine.max_consecutive=3", "source.max_offsets_per_trigger=2")


def runs(spark: SparkSession, *records: tuple[int, int, bool, bool]) -> list[Row]:
    frame = spark.createDataFrame(records, "partition int, offset long, rejected boolean, in_batch boolean")
    return [tuple(row) for row in quarantine.longest_run(frame).collect()]


def test_a_run_goes_on_over_gaps_in_offsets_and_ends_at_an_accepted_record(spark: SparkSession) -> None:
    first = [(0, 0, True, True), (0, 5, True, True), (0, 6, False, True), (0, 9, True, True)]
    assert runs(spark, *first, (1, 7, True, True)) == [(0, 2, 0, 5)]
    assert runs(spark, *first, (1, 7, True, False), (1, 8, True, False), (1, 9, True, True)) == [(1, 3, 7, 9)]


@pytest.mark.exhaustive
def test_a_run_that_ended_before_the_batch_is_over(spark: SparkSession) -> None:
    before = [(0, 0, True, False), (0, 1, True, False)]
    assert runs(spark, *before, (0, 2, False, True)) == []
    assert runs(spark, *before, (0, 2, False, True), (0, 3, True, True)) == [(0, 1, 3, 3)]


def stop(scratch: Scratch, topic: str, *overrides: str) -> str:
    with pytest.raises(TidemarkError, match="REJECT_LIMIT") as stopped:
        scratch.ingest(topic, overrides=overrides)
    return str(stopped.value)


def test_past_the_ratio_the_job_stops_once_the_batch_is_written_and_again_until_the_limit_is_raised(
    scratch: Scratch,
) -> None:
    topic = scratch.topic()
    sent = scratch.send(topic, scratch.reading(topic, "a", 1), Record(b"bad"), Record(frame(9, b"x")), Record(b"bad"))
    text = stop(scratch, topic, *RATIO)
    assert f"topic {topic}: 3 of the 4 records of a batch were rejected, more than quarantine.max_ratio = 0.5" in text
    assert "2 of the batch for BAD_FRAMING, as at partition 0, offset 1" in text
    assert "mend the producer, schema or rule and start again, or raise the limit, --set quarantine.max_ratio" in text
    more = scratch.send(topic, *(Record(b"bad") for _ in range(3)))
    assert stop(scratch, topic, *RATIO) == text
    assert coordinates(scratch, f"bronze/{topic}") == sent
    assert coordinates(scratch, f"silver/{topic}", "_") == sent[:1]
    assert coordinates(scratch, "quarantine") == sent[1:]
    scratch.ingest(topic, overrides=(*RATIO, "quarantine.max_ratio=1"))
    assert coordinates(scratch, "quarantine") == [*sent[1:], *more]


def test_a_job_that_was_stopped_goes_on_when_the_rule_is_mended_and_leaves_the_rejects_for_redrive(
    scratch: Scratch,
) -> None:
    topic = scratch.topic()
    scratch.declare(topic, Range(name="low", on_failure="quarantine", field="level", max=1))
    scratch.send(topic, *(scratch.reading(topic, f"{level}", level) for level in (1, 2, 3, 4)))
    assert "3 of the batch for RULE_FAILED (rule low), as at partition 0, offset 1" in stop(scratch, topic, *RATIO)
    scratch.declare(topic, Range(name="low", on_failure="quarantine", field="level", max=9))
    scratch.send(topic, scratch.reading(topic, "5", 5))
    scratch.ingest(topic, overrides=RATIO)
    assert scratch.rows(f"silver/{topic}", "level") == [(1,), (5,)]
    assert coordinates(scratch, "quarantine") == [(0, 1), (0, 2), (0, 3)]


@pytest.mark.exhaustive
def test_small_batches_are_not_judged_by_their_ratio(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.send(topic, Record(b"bad"), Record(b"bad"))
    scratch.ingest(topic, overrides=RATIO)
    assert len(coordinates(scratch, "quarantine")) == 2


@pytest.mark.exhaustive
def test_rejects_in_a_row_are_counted_over_batches_and_over_a_restart(scratch: Scratch) -> None:
    topic = scratch.topic()
    good, bad = scratch.reading(topic, "a", 1), Record(b"bad")
    sent = scratch.send(topic, good, bad, bad, good, bad, bad, bad)
    scratch.ingest(topic, overrides=IN_A_ROW)
    assert len(coordinates(scratch, "quarantine")) == 5
    sent += scratch.send(topic, bad, bad, good, bad)
    text = stop(scratch, topic, *IN_A_ROW)
    assert "5 records in a row were rejected (partition 0, offsets 4 to 8), more than quarantine.max_consec" in text
    assert "2 of the batch for BAD_FRAMING, as at partition 0, offset 7" in text
    assert stop(scratch, topic, *IN_A_ROW) == text
    assert coordinates(scratch, f"bronze/{topic}") == sent[:9]
    scratch.ingest(topic, overrides=(*IN_A_ROW, "quarantine.max_consecutive=5"))
    assert len(coordinates(scratch, f"bronze/{topic}")) == 11


@pytest.mark.exhaustive
def test_a_range_that_was_stopped_stops_again(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.send(topic, *(Record(b"bad") for _ in range(4)))
    for _ in range(2):
        run = scratch.run(f"ingest.topics={topic}", *RATIO, bounds=("earliest", "latest"), job="ingest")
        job.build(run)
        with pytest.raises(TidemarkError, match="REJECT_LIMIT"):
            run.write_range()
    assert len(scratch.rows(f"{run.tables_root.rsplit('/', 1)[1]}/quarantine")) == 4
