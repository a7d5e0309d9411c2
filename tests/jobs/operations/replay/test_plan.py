"""Which periods are due, and the record of a replay."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conf.settings import load
from jobs.operations.replay.live_job import LiveQuery
from jobs.operations.replay.plan import due_periods
from jobs.operations.replay.record import WITHDRAWN, Part, Replacement, Replay, Replays, Slice, State
from jobs.pipeline.outputs import RowSelector
from jobs.pipeline.plan_analysis import EventTimeSpan
from jobs.pipeline.query_description import QueryDescription

DAY = timedelta(days=1)


def day(number: int, hour: int = 0) -> datetime:
    return datetime(2013, 1, number, hour, tzinfo=UTC)


def live(watermark: datetime | None, back: timedelta = timedelta(0)) -> LiveQuery:
    reach = EventTimeSpan(back, timedelta(0), back)
    return LiveQuery(QueryDescription("append", "", "j", "j", "j", ("t",), reach=reach), {}, watermark)


def replayed(start: datetime | str, end: datetime, state: State = "done") -> Replay:
    request = {"from": start if isinstance(start, str) else start.isoformat(), "to": end.isoformat()}
    return Replay("id", "j", "range", request, {}, (Slice({}),), (), "", end, state=state)


def test_the_first_time_only_the_last_closed_period_is_due() -> None:
    assert due_periods([live(day(5, 13))], [], DAY, None).periods == [(day(4), day(5))]


def test_a_period_is_closed_once_the_watermark_has_passed_its_last_window() -> None:
    assert due_periods([live(day(5, 0), timedelta(hours=1))], [], DAY, None).periods == [(day(3), day(4))]
    assert due_periods([live(day(9)), live(day(5))], [], DAY, None).periods == [(day(4), day(5))]


def test_what_schedules_missed_is_caught_up_from_the_last_replay_on() -> None:
    done = [replayed(day(1), day(2))]
    assert due_periods([live(day(5))], done, DAY, None).periods == [
        (day(2), day(3)),
        (day(3), day(4)),
        (day(4), day(5)),
    ]


def test_holes_before_the_last_replay_are_found_where_a_beginning_is_given() -> None:
    done = [replayed(day(1), day(2)), replayed(day(3), day(4)), replayed(day(2), day(3), "ran")]
    assert due_periods([live(day(5))], done, DAY, day(1)).periods == [(day(2), day(3)), (day(4), day(5))]


def test_periods_of_a_thousand_years_begin_before_a_time_that_is_the_first_of_all() -> None:
    every = timedelta(days=365_000)
    due = due_periods([live(day(5))], [], every, datetime.min.replace(tzinfo=UTC))
    assert [start.year for start, _ in due.periods] == [970]


def test_a_period_is_covered_by_several_replays_together() -> None:
    done = [replayed("earliest", day(2, 12)), replayed(day(2, 12), day(3))]
    assert due_periods([live(day(3))], done, DAY, day(1)).periods == []


@pytest.mark.parametrize("state", WITHDRAWN)
def test_a_period_whose_replay_was_taken_back_is_left_out_until_a_further_attempt_is_done(state: State) -> None:
    replays = [replayed(day(1), day(2)), replayed(day(2), day(3), state)]
    due = due_periods([live(day(4))], replays, DAY, None)
    assert (due.periods, due.withdrawn) == ([(day(3), day(4))], [((day(2), day(3)), replays[1])])
    due = due_periods([live(day(4))], [*replays, replayed(day(2), day(3))], DAY, None)
    assert (due.periods, due.withdrawn) == ([(day(3), day(4))], [])


def test_what_was_taken_back_or_given_up_is_planned_as_a_further_attempt(tmp_path: Path) -> None:
    replays = Replays(load("local", [f"paths.tables={tmp_path}"]))
    planned = replayed(day(1), day(2), "planned")
    assert [replays.begin(planned), replays.begin(planned)] == [planned, planned]
    for number, state in enumerate(WITHDRAWN, 2):
        replays.keep(replays.begin(planned), state=state)
        assert replays.begin(planned) == replace(planned, id=f"id-{number}")
    done = replays.keep(replays.begin(planned), state="done")
    assert replays.begin(planned) == done
    assert done.command.endswith("--from 2013-01-01T00:00:00+00:00 --to 2013-01-02T00:00:00+00:00 --again")
    assert replays.begin(planned, again=True).id == "id-4"
    assert [replay.id for replay in replays.all()] == ["id", "id-2", "id-3", "id-4"]


def test_a_job_without_a_watermark_has_no_closed_period() -> None:
    assert not due_periods([live(None)], [], DAY, day(1)).periods


def test_a_record_has_the_names_that_it_had_before_and_reads_back_the_same() -> None:
    table = Replacement(RowSelector("t", ("k",), "at"), day(1), None, version=3)
    part = Part("j.t", "t", ("topic",), (table,), back_s=60.0, sends_since=day(1))
    slices = (Slice({"topic": {0: 5}}, -1, "2013"), Slice({"topic": {0: 9}}, 1))
    request = {"from": "2013-01-01", "to": "latest"}
    replay = Replay("id", "j", "range", request, {"topic": {0: 1}}, slices, (part,), "code", day(5), findings={"a": 1})
    text = replay.to_json()
    fields = json.loads(text)
    assert set(fields) == {
        *("id", "job", "kind", "asked", "starts", "slices", "parts", "code", "planned_at", "records", "bytes", "state"),
        *("findings", "tables"),
    }
    assert fields["slices"][0] == {"until": {"topic": {"0": 5}}, "trusted": -1, "ends_at": "2013"}
    assert (fields["asked"], fields["tables"]) == (request, {"t": {"version": 3}})
    assert Replay.from_json(text) == replay


def test_a_record_of_before_records_for_topics_had_a_range_sends_them_all() -> None:
    replay = Replay("id", "j", "range", {}, {}, (Slice({}),), (Part("j.t", "t", (), (), "out"),), "code", day(5))
    fields = json.loads(replay.to_json())
    for name in ("sends_since", "sends_until"):
        del fields["parts"][0][name]
    assert Replay.from_json(json.dumps(fields)) == replay
