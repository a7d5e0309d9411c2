"""Replays from end to end: a real topic, real tables, run beside them."""

import pytest

from conf.errors import TidemarkError
from jobs import ingest
from jobs.failures import await_all
from jobs.replay.record import Replays
from jobs.run import Run
from tests.jobs.replay.past import TABLE, Past

# Partition 1 is a day behind partition 0 when the two are read offset by offset.
UNEQUAL = [("a", n, 0, 30 * n) for n in range(48)] + [("b", n, 1, 120 * n) for n in range(12)]


def closed(past: Past) -> None:
    """An event two days later: all windows before are closed."""
    past.send(("z", 0, 0, 3 * 24 * 60), ("z", 0, 1, 3 * 24 * 60))


def test_a_replay_gives_the_live_rows_and_changes_nothing(past: Past) -> None:
    past.send(*UNEQUAL)
    closed(past)
    past.live()
    rows = past.rows()
    replay = past.replayed(0, 24 * 60)
    assert len(replay.slices) > 5
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
    assert replay.findings["tables"][TABLE]["unlike_live"] == 2
    past.steps().cut_over(replay, accept=True)
    truth = past.truth([*UNEQUAL, *late])
    assert [row for row in past.rows() if row[1] != "z"] == truth
    with pytest.raises(TidemarkError, match="REPLAY_FINISHED"):
        past.steps().run(Replays(past.settings()).require(replay.id))
    undone = past.steps().undo(Replays(past.settings()).require(replay.id))
    assert (undone.state, past.rows()) == ("undone", without)


@pytest.mark.slow
def test_what_retention_took_comes_from_bronze_and_the_hand_over_is_exact(past: Past) -> None:
    past.send(*UNEQUAL)
    closed(past)
    past.live()
    rows = past.rows()
    kept = Run(past.scratch.spark, past.settings(f"ingest.topics={past.topic}"), "ingest")
    kept.topics |= past.scratch.declared
    ingest.build(kept)
    await_all(past.scratch.spark, kept.start(continuous=False))
    past.scratch.delete_records(past.topic, {0: 17, 1: 3})
    planned = past.plan(0, 24 * 60)
    assert (planned.starts[past.topic][0], planned.starts[past.topic][1]) == (0, 0)
    seen = 0

    def retention_goes_on() -> None:
        nonlocal seen
        seen += 1
        if seen == 6:
            past.scratch.delete_records(past.topic, {0: 40, 1: 9})

    steps = past.steps(retention_goes_on)
    _, (one,) = steps.verify(steps.run(planned))
    assert seen > 6
    assert (one.unlike_check, one.unlike_live, one.rows) == (0, 0, len([row for row in rows if row[1] != "z"]))


@pytest.mark.slow
def test_a_replay_that_was_cut_short_goes_on_with_the_slice_that_was_cut(past: Past) -> None:
    past.send(*UNEQUAL)
    closed(past)
    past.live()
    planned, seen = past.plan(0, 24 * 60), 0

    def lost() -> None:
        nonlocal seen
        seen += 1
        if seen == 4:
            raise TidemarkError("LEASE_LOST", "silent", "look")

    with pytest.raises(TidemarkError, match="LEASE_LOST"):
        past.steps(lost).run(planned)
    before = len(past.shown)
    _, (found,) = past.steps().verify(past.steps().run(planned))
    assert (found.unlike_check, found.unlike_live) == (0, 0)
    assert f"slice {before + 1} of" in past.shown[before]


@pytest.mark.slow
def test_a_live_query_that_writes_during_the_cutover_loses_nothing(past: Past) -> None:
    past.send(*UNEQUAL)
    closed(past)
    past.live()
    past.send(("c", 7, 1, 70))
    past.live()
    replay = past.replayed(60, 120)
    commits = 0

    def live_commits() -> None:
        nonlocal commits
        if commits < 3:
            commits += 1
            past.send(("y", commits, 0, 3 * 24 * 60 + commits))
            past.live()

    past.steps(live_commits).cut_over(replay, accept=True)
    rows = past.rows()
    assert commits == 3
    assert [row[2:] for row in rows if row[1] == "y"] == [(3, 6)]
    assert [row for row in rows if row[1] not in "yz"] == past.truth([*UNEQUAL, ("c", 7, 1, 70)])


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
    past.scratch.delete_records(past.topic, {0: 2})
    with pytest.raises(TidemarkError, match=r"RANGE_GONE: .* partition 0: records before offset 2 are gone"):
        past.plan("earliest", 60)
