"""Which periods are due."""

from datetime import UTC, datetime, timedelta

from jobs.manifest import Manifest
from jobs.reach import Reach
from jobs.replay.live import Live
from jobs.replay.record import Replay, Slice, State
from jobs.replay.schedule import due

DAY = timedelta(days=1)


def day(number: int, hour: int = 0) -> datetime:
    return datetime(2013, 1, number, hour, tzinfo=UTC)


def live(watermark: datetime | None, back: timedelta = timedelta(0)) -> Live:
    reach = Reach(back, timedelta(0), back)
    return Live(Manifest("j", "j", "j", "append", ("t",), (), None, reach, ""), {}, watermark)


def replayed(start: datetime | str, end: datetime, state: State = "done") -> Replay:
    asked = {"from": start if isinstance(start, str) else start.isoformat(), "to": end.isoformat()}
    return Replay("id", "j", "range", asked, {}, (Slice({}),), (), "", end, state=state)


def test_the_first_time_only_the_last_closed_period_is_due() -> None:
    assert due([live(day(5, 13))], [], DAY, None) == [(day(4), day(5))]


def test_a_period_is_closed_once_the_watermark_has_passed_its_last_window() -> None:
    assert due([live(day(5, 0), timedelta(hours=1))], [], DAY, None) == [(day(3), day(4))]
    assert due([live(day(9)), live(day(5))], [], DAY, None) == [(day(4), day(5))]


def test_what_schedules_missed_is_caught_up_from_the_last_replay_on() -> None:
    done = [replayed(day(1), day(2))]
    assert due([live(day(5))], done, DAY, None) == [(day(2), day(3)), (day(3), day(4)), (day(4), day(5))]


def test_holes_before_the_last_replay_are_found_where_a_beginning_is_given() -> None:
    done = [replayed(day(1), day(2)), replayed(day(3), day(4)), replayed(day(2), day(3), "ran")]
    assert due([live(day(5))], done, DAY, day(1)) == [(day(2), day(3)), (day(4), day(5))]


def test_a_period_is_covered_by_several_replays_together() -> None:
    done = [replayed("earliest", day(2, 12)), replayed(day(2, 12), day(3))]
    assert due([live(day(3))], done, DAY, day(1)) == []


def test_a_job_without_a_watermark_has_no_closed_period() -> None:
    assert due([live(None)], [], DAY, day(1)) == []
