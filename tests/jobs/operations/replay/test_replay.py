"""Replays from end to end: a real topic, real tables, run beside them."""

import json

import pytest
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from jobs import arguments
from jobs.connectors.kafka import source_sink
from jobs.ingest import job
from jobs.operations.replay import cutover
from jobs.operations.replay.commands import Command, Steps
from jobs.operations.replay.plan import ReplayRequest, plan_range
from jobs.operations.replay.record import Replays
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from tests.jobs.operations.replay.past import BEGAN, JOB, TABLE, Past, hourly, text
from tests.sent import Record

# Partition 1 is a day behind partition 0 when the two are read offset by offset.
UNEQUAL = [("a", n, 0, 30 * n) for n in range(48)] + [("b", n, 1, 120 * n) for n in range(12)]


def closed(past: Past) -> None:
    """An event two days later: all windows before are closed."""
    past.send(("z", 0, 0, 3 * 24 * 60), ("z", 0, 1, 3 * 24 * 60))


@pytest.mark.slow
def test_a_replay_gives_the_live_rows_and_changes_nothing(past: Past) -> None:
    past.slice_records = 12
    past.send(*UNEQUAL)
    closed(past)
    past.live()
    rows = past.rows()
    replay = past.replayed(0, 24 * 60)
    assert len(replay.slices) > 3
    recorded = micro_batch_table.micro_batches(past.settings()).to_pylist()
    assert {(row["run"], row["outcome"]) for row in recorded} == {("replay", "done")}
    assert len(recorded) >= len(replay.slices)
    found = replay.findings["tables"][TABLE]
    assert (found["unlike_live"], found["unexplained"]) == (0, 0)
    assert found["rows"] == len([row for row in rows if row[1] != "z"])
    done = past.steps().cut_over(replay, accept=False)
    assert (done.state, past.rows()) == ("done", rows)
    assert past.plan(0, 24 * 60).state == "done"


@pytest.mark.slow
def test_rows_that_were_late_are_folded_in_and_taken_out_again(past: Past) -> None:
    past.send(*UNEQUAL)
    closed(past)
    past.live()
    late = [("a", 1000, 0, 65), ("c", 7, 1, 70)]
    past.send(*late)
    closed(past)
    past.live()
    without = past.rows()
    replay = past.replayed(60, 120)
    found = replay.findings["tables"][TABLE]
    assert (found["unlike_live"], found["unexplained"]) == (2, 0)
    past.steps().cut_over(replay, accept=False)
    truth = past.truth([*UNEQUAL, *late])
    assert [row for row in past.rows() if row[1] != "z"] == truth
    with pytest.raises(TidemarkError, match="REPLAY_FINISHED"):
        past.steps().run(Replays(past.settings()).require(replay.id))
    undone = past.steps().undo(Replays(past.settings()).require(replay.id))
    assert (undone.state, past.rows()) == ("undone", without)
    again = past.steps().cut_over(past.replayed(60, 120), accept=False)
    assert (again.id, again.state) == (f"{replay.id}-2", "done")
    assert [row for row in past.rows() if row[1] != "z"] == truth
    path = past.scratch.folder / "tables" / TABLE
    past.scratch.spark.sql(f"UPDATE delta.`{path}` SET level = 99 WHERE hour = TIMESTAMP '2013-01-01 01:00:00'")
    with pytest.raises(TidemarkError, match=r"LIVE_CHANGED.*--again"):
        past.steps().undo(again)


@pytest.mark.exhaustive
def test_catch_up_goes_on_behind_a_period_without_a_record(past: Past, capsys: pytest.CaptureFixture[str]) -> None:
    past.send(("a", 1, 0, 30), ("a", 2, 1, 40), ("a", 3, 0, 24 * 60 * 3 + 600), ("a", 4, 1, 24 * 60 * 5))
    past.live()
    words = ["catch-up", JOB, "--every", "1 day", "--since", text(0)]
    command = Command(past.settings(), arguments.parse_replay(words), past.steps())
    assert command.carry_out(None) == 0
    said = capsys.readouterr().out
    assert said.count("no record, nothing to replay") == 2
    done = [replay.request["from"] for replay in Replays(past.settings()).all() if replay.state == "done"]
    assert done == [text(0), text(3 * 24 * 60)]
    assert command.carry_out(None) == 0
    for since in ("earliest", '{"t": {"0": 1}}'):
        words[-1] = since
        with pytest.raises(TidemarkError, match=r"BAD_POSITION.*--since 2013"):
            Command(past.settings(), arguments.parse_replay(words), past.steps()).carry_out(None)


@pytest.mark.slow
def test_what_retention_took_comes_from_bronze_and_the_hand_over_is_exact(past: Past) -> None:
    past.slice_records = 12
    past.send(*UNEQUAL)
    closed(past)
    past.live()
    rows = past.rows()
    kept = Run(past.scratch.spark, past.settings(f"ingest.topics={past.topic}"), "ingest")
    kept.topics |= past.scratch.declared
    job.build(kept)
    await_all(past.scratch.spark, kept.start(continuous=False))
    past.scratch.delete_records(past.topic, {0: 17, 1: 3})
    planned = past.plan(0, 24 * 60)
    assert (planned.starts[past.topic][0], planned.starts[past.topic][1]) == (0, 0)
    seen = 0

    def retention_goes_on() -> None:
        nonlocal seen
        seen += 1
        if seen == 4:
            past.scratch.delete_records(past.topic, {0: 40, 1: 9})

    steps = past.steps(retention_goes_on)
    _, (one,) = steps.verify(steps.run(planned))
    assert seen > 4
    assert (one.unlike_check, one.unlike_live, one.rows) == (0, 0, len([row for row in rows if row[1] != "z"]))


@pytest.mark.slow
def test_a_replay_that_was_cut_short_goes_on_with_the_slice_that_was_cut(past: Past) -> None:
    past.slice_records = 12
    past.send(*UNEQUAL)
    closed(past)
    past.live()
    planned, seen = past.plan(0, 24 * 60), 0

    def lost() -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise TidemarkError("LEASE_LOST", "silent", "look")

    with pytest.raises(TidemarkError, match="LEASE_LOST"):
        past.steps(lost).run(planned)
    before = len(past.shown)
    _, (found,) = past.steps().verify(past.steps().run(planned))
    assert (found.unlike_check, found.unlike_live) == (0, 0)
    assert f"slice {before + 1} of" in past.shown[before]


@pytest.mark.slow
def test_a_live_query_that_writes_during_the_cutover_loses_nothing(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    past.send(*UNEQUAL)
    closed(past)
    past.live()
    past.send(("c", 7, 1, 70))
    past.live()
    replay = past.replayed(60, 120)
    commits = 0

    def live_commits(point: str, *_: object) -> None:
        nonlocal commits
        if point == "replay-before-swap" and commits < 3:
            commits += 1
            past.send(("y", commits, 0, 3 * 24 * 60 + commits))
            past.live()

    monkeypatch.setattr(cutover, "fail_point", live_commits)
    past.steps().cut_over(replay, accept=True)
    rows = past.rows()
    assert commits == 3
    assert [row[2:] for row in rows if row[1] == "y"] == [(3, 6)]
    assert [row for row in rows if row[1] not in "yz"] == past.truth([*UNEQUAL, ("c", 7, 1, 70)])


@pytest.mark.exhaustive
@pytest.mark.slow
def test_rows_that_changed_since_they_were_compared_are_not_replaced(past: Past) -> None:
    past.send(*UNEQUAL)
    closed(past)
    past.live()
    past.send(("c", 7, 1, 70))
    past.live()
    replay = past.replayed(60, 120)
    path = past.scratch.folder / "tables" / TABLE
    past.scratch.spark.sql(f"UPDATE delta.`{path}` SET level = 99 WHERE hour = TIMESTAMP '2013-01-01 01:00:00'")
    with pytest.raises(TidemarkError, match="LIVE_CHANGED"):
        past.steps().cut_over(replay, accept=True)
    replay, _ = past.steps().verify(replay)
    past.steps().cut_over(replay, accept=True)
    assert [row for row in past.rows() if row[1] != "z"] == past.truth([*UNEQUAL, ("c", 7, 1, 70)])


@pytest.mark.exhaustive
@pytest.mark.slow
def test_without_a_cause_a_difference_is_not_swapped_in(past: Past) -> None:
    past.send(*UNEQUAL[:6])
    closed(past)
    past.live()
    path = past.scratch.folder / "tables" / TABLE
    past.scratch.spark.sql(f"DELETE FROM delta.`{path}` WHERE hour = TIMESTAMP '2013-01-01 01:00:00'")
    replay = past.replayed(0, 24 * 60)
    assert replay.findings["tables"][TABLE]["unexplained"] == 1
    with pytest.raises(TidemarkError, match="UNEXPLAINED"):
        past.steps().cut_over(replay, accept=False)
    past.steps().cut_over(replay, accept=True)
    assert [row for row in past.rows() if row[1] != "z"] == past.truth(UNEQUAL[:6])


@pytest.mark.exhaustive
@pytest.mark.slow
def test_what_cannot_be_planned_says_why(past: Past) -> None:
    with pytest.raises(TidemarkError, match="UNKNOWN_JOB"):
        past.plan(0, 60)
    past.send(*UNEQUAL[:6])
    past.live()
    with pytest.raises(TidemarkError, match="WINDOWS_OPEN"):
        past.plan(120, 180)
    with pytest.raises(TidemarkError, match="NOTHING_TO_REPLAY"):
        past.plan(60, 0)
    with pytest.raises(TidemarkError, match="BAD_POSITION"):
        past.plan("yesterday")
    for named, named_wrong in (
        ({past.topic: {"7": 5}}, "no partition 7"),
        ({past.topic: {"0": 500}}, "ends at offset"),
    ):
        for edges in ((json.dumps(named), "latest"), ("earliest", json.dumps(named))):
            with pytest.raises(TidemarkError, match=f"BAD_POSITION.*{named_wrong}"):
                past.plan(*edges)
    with pytest.raises(TidemarkError, match=r"BAD_POSITION.*does not read absent"):
        past.plan(json.dumps({past.topic: {"0": 0}, "absent": {"0": 0}}))
    past.scratch.delete_records(past.topic, {0: 2})
    with pytest.raises(TidemarkError, match=r"RANGE_GONE: .* partition 0: records before offset 2 are gone"):
        past.plan("earliest", 60)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_replays_of_overlapping_ranges_end_in_the_same_table_whichever_comes_first(past: Past) -> None:
    past.send(*UNEQUAL)
    closed(past)
    past.live()
    late = [("a", 1000, 0, 65), ("c", 7, 1, 130), ("d", 8, 0, 190)]
    past.send(*late)
    past.live()
    first, second = past.replayed(60, 180), past.replayed(120, 240)
    past.steps().cut_over(first, accept=True)
    with pytest.raises(TidemarkError, match="LIVE_CHANGED"):
        past.steps().cut_over(second, accept=True)
    second, _ = past.steps().verify(second)
    past.steps().cut_over(second, accept=True)
    assert [row for row in past.rows() if row[1] != "z"] == past.truth([*UNEQUAL, *late])


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_new_job_is_begun_with_its_whole_history_and_goes_on_to_the_offset(past: Past) -> None:
    past.send(*UNEQUAL)
    kept = Run(past.scratch.spark, past.settings(f"ingest.topics={past.topic}"), "ingest")
    kept.topics |= past.scratch.declared
    job.build(kept)
    await_all(past.scratch.spark, kept.start(continuous=False))
    past.scratch.delete_records(past.topic, {0: 17, 1: 3})
    replays = Replays(past.settings())
    planned = replays.keep(past.steps().plan_backfill(ReplayRequest(JOB)))
    replay, (found,) = past.steps().verify(past.steps().run(planned))
    assert (found.unlike_check, found.rows) == (0, len(past.truth(UNEQUAL)))
    assert past.rows() == []
    past.steps().cut_over(replay, accept=False)
    assert past.rows() == past.truth(UNEQUAL)
    more = [("a", 5, 0, 24 * 60 + 1), ("b", 6, 1, 23 * 60)]
    past.send(*more)
    past.live()
    # State and watermark came along: an hour that was open goes on with what it had.
    assert past.rows() == past.truth([*UNEQUAL, *more])
    with pytest.raises(TidemarkError, match="ALREADY_RUNS"):
        past.steps().plan_backfill(ReplayRequest(JOB))


@pytest.mark.slow
def test_records_for_a_topic_are_sent_once_and_marked(past: Past) -> None:
    target = past.scratch.topic()

    def declare(run: Run) -> None:
        readings = run.read(past.topic)
        key, value = F.col("id").alias("key"), F.col("level").cast("string").alias("value")
        run.publish(readings.where("level >= 10").select(key, value), topic=target)

    past.declare = declare
    past.send(*UNEQUAL)
    past.live()
    replay = past.replayed(0, 12 * 60)
    done = past.steps().cut_over(replay, accept=False)
    past.steps().cut_over(replay, accept=False)
    records = source_sink.read_batch(
        past.scratch.spark, past.settings().kafka, past.settings().source, source_sink.Subscription((target,))
    ).collect()
    marked = [record for record in records if record.headers]
    assert done.state == "done"
    assert len(records) - len(marked) == len([reading for reading in UNEQUAL if reading[1] >= 10])
    expected = [(id, level) for id, level, _, minute in UNEQUAL if level >= 10 and minute < 12 * 60]
    assert sorted((record.key.decode(), int(record.value)) for record in marked) == sorted(expected)
    assert {tuple(map(tuple, record.headers)) for record in marked} == {(("tidemark-replay", replay.id.encode()),)}


@pytest.mark.slow
def test_windows_for_a_topic_are_those_of_the_range_and_closed(past: Past) -> None:
    target = past.scratch.topic()

    def declare(run: Run) -> None:
        hours = hourly(run.read(past.topic))
        key, value = F.col("id").alias("key"), F.col("readings").cast("string").alias("value")
        run.publish(hours.select(key, value, F.col("hour").alias("timestamp")), topic=target)
        run.append(hours, TABLE)

    def published() -> list[tuple[str, int, int, bool]]:
        subscription = source_sink.Subscription((target,))
        records = source_sink.read_batch(spark, past.settings().kafka, past.settings().source, subscription)
        rows = records.withColumn("hour", (F.unix_seconds("timestamp") - F.lit(BEGAN).cast("bigint")) / 3600).collect()
        return sorted((row.key.decode(), int(row.hour), int(row.value), bool(row.headers)) for row in rows)

    spark, past.declare = past.scratch.spark, declare
    past.send(*UNEQUAL)
    closed(past)
    past.live()
    live = published()
    assert len(live) == 24 + 12
    past.steps().cut_over(past.replayed(4 * 60, 8 * 60), accept=False)
    again = [record for record in published() if record[3]]
    # A window may begin an hour before an event that it holds.
    assert again == [(id, hour, count, True) for id, hour, count, _ in live if 3 <= hour < 8]
    # The event that closes the last windows lies days after all that is read for them.
    found = past.replayed().findings["tables"]
    assert (found[target]["rows"], found[TABLE]["rows"], found[TABLE]["unlike_live"]) == (len(live), len(live), 0)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_range_of_ingest_is_made_anew_to_the_record(past: Past) -> None:
    def build(run: Run) -> None:
        run.topics |= past.scratch.declared
        job.build(run)

    def live() -> None:
        run = Run(past.scratch.spark, settings, "ingest")
        build(run)
        await_all(past.scratch.spark, run.start(continuous=False))

    settings = past.settings(f"ingest.topics={past.topic}")
    past.send(*UNEQUAL)
    past.scratch.send(past.topic, Record(b"no Avro", b"k", 1))
    live()
    tables = [f"bronze/{past.topic}", f"silver/{past.topic}"]
    columns = ("_partition", "_offset", "id", "level", "at")
    before = [past.scratch.rows(tables[0], "partition", "offset", "value"), past.scratch.rows(tables[1], *columns)]
    for table, partition in zip(tables, ("partition", "_partition"), strict=True):
        path = past.scratch.folder / "tables" / table
        past.scratch.spark.sql(f"DELETE FROM delta.`{path}` WHERE {partition} = 0")
    spans = [json.dumps({past.topic: offsets}) for offsets in ({"0": 10, "1": 0}, {"0": 48, "1": 13})]
    planned = Replays(settings).keep(plan_range(settings, ReplayRequest("ingest", spans[0], spans[1])))
    assert planned.starts[past.topic] == {0: 10, 1: 0}
    steps = Steps(past.scratch.spark, settings, build, past.shown.append, lambda: None)
    replay, found = steps.verify(steps.run(planned))
    assert {each.table: (each.rows, each.unlike_check, each.unlike_live) for each in found} == {
        tables[0]: (51, 0, 38),
        tables[1]: (50, 0, 38),
        "quarantine": (1, 0, 0),
    }
    steps.cut_over(replay, accept=True)
    assert past.scratch.rows(tables[1], *columns) == [row for row in before[1] if row[0] == 1 or row[1] >= 10]
    assert past.scratch.rows(tables[0], "partition", "offset", "value") == [
        row for row in before[0] if row[0] == 1 or row[1] >= 10
    ]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_where_the_jobs_clock_is_another_one_the_watermark_is_held_and_nothing_is_late(past: Past) -> None:
    past.slice_records = 12

    def declare(run: Run) -> None:
        # The job counts the time backwards: what is cut by record times comes in the wrong order.
        back = F.timestamp_millis(F.lit(2 * 1_357_000_000_000) - F.unix_millis("at"))
        run.upsert(hourly(run.read(past.topic).withColumn("at", back)), TABLE, keys=("hour", "id"))

    past.declare = declare
    past.send(*UNEQUAL)
    kept = Run(past.scratch.spark, past.settings(f"ingest.topics={past.topic}"), "ingest")
    kept.topics |= past.scratch.declared
    job.build(kept)
    await_all(past.scratch.spark, kept.start(continuous=False))
    planned = Replays(past.settings()).keep(past.steps().plan_backfill(ReplayRequest(JOB)))
    assert planned.slices[1].watermark_slice == 1
    replay, (found,) = past.steps().verify(past.steps().run(planned))
    assert any("rows would be late" in line for line in past.shown)
    assert (replay.findings["held"], found.unlike_check) == (True, 0)
