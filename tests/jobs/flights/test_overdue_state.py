"""The arrivals board: what it tells does not depend on the cut into micro-batches, and it forgets all reports."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import pytest
from pyspark.sql.streaming.tws_tester import TwsTester

from jobs.flights.overdue_state import ArrivalsBoard, Report

HOUR = 3_600_000
LEFT, DEADLINE, FAR_AHEAD = 10 * HOUR, 12 * HOUR, 1_000 * HOUR
DESTINATION = "IAH"


def departure(flight_id: str = "a", at: int = LEFT, deadline: int = DEADLINE) -> Report:
    return Report(flight_id, "UA", 1545, None, "EWR", DESTINATION, True, at, deadline)


def arrival(flight_id: str = "a", at: int = DEADLINE) -> Report:
    return Report(flight_id, "UA", 1545, None, "EWR", DESTINATION, False, at, at)


class Board:
    """One destination's board, outside Spark."""

    def __init__(self) -> None:
        self._tester = TwsTester(ArrivalsBoard(), timeMode="EventTime", eventTimeExtractor=lambda row: row.happened_ms)
        self.overdue: list[str] = []

    def take(self, *reports: Report) -> None:
        """One micro-batch of reports."""
        if reports:
            rows = pd.DataFrame(reports, columns=list(Report._fields))
            self._note(self._tester.testInPandas(DESTINATION, rows))

    def pass_to(self, watermark: int) -> None:
        """The watermark moves on, and timers fire."""
        self._note(self._tester.setWatermark(watermark))

    @property
    def waiting(self) -> list[str]:
        return sorted(flight_id for (flight_id,) in self._tester.peekMapState("waiting", DESTINATION))

    def _note(self, told: Any) -> None:
        self.overdue += told["flight_id"].tolist() if len(told) else []


def test_a_flight_that_arrives_by_its_deadline_is_not_overdue() -> None:
    board = Board()
    board.take(departure(), arrival(at=DEADLINE))
    board.pass_to(FAR_AHEAD)
    assert board.overdue == []


def test_a_flight_that_arrives_after_its_deadline_is_told_with_its_arrival() -> None:
    board = Board()
    board.take(departure(), arrival(at=DEADLINE + 1))
    assert board.overdue == ["a"]
    board.pass_to(FAR_AHEAD)
    assert board.overdue == ["a"]


def test_a_flight_that_never_arrives_is_told_when_the_watermark_reaches_the_deadline() -> None:
    board = Board()
    board.take(departure())
    board.pass_to(DEADLINE - 1)
    assert board.overdue == []
    board.pass_to(DEADLINE)
    assert board.overdue == ["a"]


def test_an_arrival_may_be_read_before_its_departure() -> None:
    board = Board()
    board.take(arrival("late", at=DEADLINE + 1), arrival("punctual", at=DEADLINE))
    board.take(departure("late"), departure("punctual"))
    assert board.overdue == ["late"]
    assert board.waiting == []


def test_an_arrival_that_is_read_after_the_timer_tells_nothing_again() -> None:
    board = Board()
    board.take(departure())
    board.pass_to(DEADLINE)
    board.take(arrival(at=DEADLINE + HOUR))
    board.pass_to(FAR_AHEAD)
    assert board.overdue == ["a"]


def test_a_late_arrival_read_before_the_timer_tells_once() -> None:
    board = Board()
    board.take(departure())
    board.take(arrival(at=DEADLINE + HOUR))
    board.pass_to(FAR_AHEAD)
    assert board.overdue == ["a"]


def test_a_flight_that_leaves_after_its_deadline_is_overdue() -> None:
    board = Board()
    board.take(departure(at=DEADLINE + HOUR))
    board.pass_to(DEADLINE)
    assert board.overdue == ["a"]


def test_a_deadline_behind_the_watermark_is_told_at_once() -> None:
    board = Board()
    board.pass_to(DEADLINE)
    board.take(departure(at=DEADLINE + HOUR))
    assert board.overdue == ["a"]
    assert board.waiting == []


def test_an_arrival_without_a_departure_is_forgotten_when_the_watermark_has_passed_it() -> None:
    board = Board()
    board.take(arrival(at=DEADLINE))
    assert board.waiting == ["a"]
    board.pass_to(DEADLINE)
    assert board.waiting == []
    assert board.overdue == []


@pytest.mark.parametrize("seed", range(20))
def test_the_cut_into_micro_batches_changes_nothing(seed: int) -> None:
    chance = random.Random(seed)
    flights = [_flight(chance, f"flight-{number}") for number in range(60)]
    expected = sorted(name for flight in flights for name in _overdue(flight))
    lateness = 2 * HOUR
    reports = _disordered(chance, [report for flight in flights for report in flight], lateness)
    board, seen = Board(), 0
    while reports:
        cut = chance.randint(1, 30)
        board.take(*reports[:cut])
        newest = max(seen, *(report.happened_ms for report in reports[:cut]))
        reports = reports[cut:]
        if newest > max(seen, lateness):
            board.pass_to(newest - lateness)
        seen = newest
    board.pass_to(FAR_AHEAD)
    assert sorted(board.overdue) == expected
    assert board.waiting == []


def _flight(chance: random.Random, flight_id: str) -> list[Report]:
    left = chance.randint(10 * HOUR, 40 * HOUR)
    left_report = departure(flight_id, left, deadline=left + chance.randint(-HOUR, 8 * HOUR))
    arrived_report = arrival(flight_id, left + chance.randint(1, 10 * HOUR))
    return chance.choice(
        [[left_report, arrived_report], [left_report, arrived_report], [left_report], [arrived_report]]
    )


def _overdue(flight: Sequence[Report]) -> Iterable[str]:
    departures = [report for report in flight if report.is_departure]
    arrivals = [report for report in flight if not report.is_departure]
    return [left.flight_id for left in departures if not arrivals or arrivals[0].happened_ms > left.waits_until_ms]


def _disordered(chance: random.Random, reports: list[Report], lateness: int) -> list[Report]:
    """By event time, each up to `lateness` behind its place: so none is late by the watermark."""
    return sorted(reports, key=lambda report: report.happened_ms + chance.randint(0, lateness - 1))
