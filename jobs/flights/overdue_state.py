"""The state behind the job `overdue`: what each destination still waits for."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pandas as pd
from pyspark.sql.streaming.stateful_processor import (
    ExpiredTimerInfo,
    StatefulProcessor,
    StatefulProcessorHandle,
    TimerValues,
)


class Report(NamedTuple):
    """The report that a flight left, or that it arrived.

    Times are milliseconds since 1970: a datetime in a Python worker would be in that machine's own zone. A departure
    waits for its arrival until the deadline. An arrival waits for its departure until the watermark passes the arrival:
    from then on the departure, which was before, would be too late to be read.
    """

    flight_id: str
    carrier: str
    flight: int
    tail_number: str | None
    origin: str
    destination: str
    is_departure: bool
    happened_ms: int
    waits_until_ms: int


KINDS = {"flight": "int", "is_departure": "boolean", "happened_ms": "long", "waits_until_ms": "long"}
SCHEMA = ", ".join(f"{name} {KINDS.get(name, 'string')}" for name in Report._fields)


class ArrivalsBoard(StatefulProcessor):
    """Takes Reports, keyed by destination; gives the departures that are overdue, each as its Report.

    A departure is overdue when its arrival was after the deadline, or when the watermark passes the deadline first.
    Every report leaves the state with its counterpart or at its timer, whichever comes first.

    The key is the destination, not the flight: every key costs Python several calls to the state store and an Arrow
    batch, and a flight both of whose reports come in one micro-batch needs neither.
    """

    def init(self, handle: StatefulProcessorHandle) -> None:
        """Declare the state: the waiting reports by flight_id."""
        self._handle = handle
        self._waiting = handle.getMapState("waiting", "flight_id string", SCHEMA)

    def handleInputRows(  # noqa: N802
        self,
        key: Any,
        rows: Iterator[Any],
        timerValues: TimerValues,  # noqa: N803
    ) -> Iterator[pd.DataFrame]:
        """Pair the new reports with each other and with the waiting ones."""
        before = self._load()
        waiting, overdue = dict(before), []
        for report in _reports(rows):
            other = waiting.setdefault(report.flight_id, report)
            if other.is_departure != report.is_departure:
                del waiting[report.flight_id]
                departure, arrival = (report, other) if report.is_departure else (other, report)
                if arrival.happened_ms > departure.waits_until_ms:
                    overdue.append(departure)
        # A repeated arrival may wait under the id of the departure that the first one has met.
        for flight_id, report in before.items():
            if waiting.get(flight_id) is not report:
                self._waiting.removeKey((flight_id,))
        new = [report for flight_id, report in waiting.items() if report is not before.get(flight_id)]
        overdue += self._keep(new, timerValues.getCurrentWatermarkInMs())
        yield from _frames(overdue)

    def handleExpiredTimer(  # noqa: N802
        self,
        key: Any,
        timerValues: TimerValues,  # noqa: N803
        expiredTimerInfo: ExpiredTimerInfo,  # noqa: N803
    ) -> Iterator[pd.DataFrame]:
        """Let go of the reports that waited until this timer."""
        now = expiredTimerInfo.getExpiryTimeInMs()
        expired = [report for report in self._load().values() if report.waits_until_ms <= now]
        for report in expired:
            self._waiting.removeKey((report.flight_id,))
        yield from _frames(report for report in expired if report.is_departure)

    def close(self) -> None:
        """Nothing is held outside the state store."""

    def _load(self) -> dict[str, Report]:
        return {flight_id: Report(*report) for (flight_id,), report in self._waiting.iterator()}

    def _keep(self, reports: Iterable[Report], watermark_ms: int) -> Iterator[Report]:
        """Remember what has still to wait; give the departures that have not."""
        for report in reports:
            if report.waits_until_ms > watermark_ms:
                self._waiting.updateValue((report.flight_id,), report)
                self._handle.registerTimer(report.waits_until_ms)
            elif report.is_departure:
                yield report


def _reports(rows: Iterator[pd.DataFrame]) -> Iterator[Report]:
    for frame in rows:
        columns = (frame[name].tolist() for name in Report._fields)
        yield from map(Report, *columns)


def _frames(reports: Iterable[Report]) -> Iterator[pd.DataFrame]:
    rows = list(reports)
    if rows:
        yield pd.DataFrame(rows, columns=list(Report._fields))
