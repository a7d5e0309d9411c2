"""Which periods are due."""

from datetime import UTC, datetime, timedelta

import pytest

from jobs.operations.replay.live_job import LiveQuery, due_periods
from jobs.operations.replay.record import WITHDRAWN, Replay, Slice, State
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


def test_a_job_without_a_watermark_has_no_closed_period() -> None:
    assert not due_periods([live(None)], [], DAY, day(1)).periods
