"""Queries that are awaited: how many run at a time, and what a failure of one means for it and for the others."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import cast

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from jobs.pipeline import supervision
from jobs.pipeline.restarts import Decision
from jobs.pipeline.supervision import supervise


class Query:
    """One that ends, well or by `error`, when `Session` says so."""

    def __init__(self, name: str, error: str | None = None) -> None:
        self.name, self.error = name, error
        self.isActive = True

    def stop(self) -> None:
        self.isActive, self.error = False, None


class Session:
    """A session whose queries end in the order of their starts, one each time that an end is awaited.

    Its clock goes on only where a restart is waited for.
    """

    def __init__(self, queries: list[Query], *anew: Query) -> None:
        self._queries, self._anew, self.started = queries, list(anew), list[Query]()
        self.running_at_most = 0
        self.now = 100.0
        self.streams = SimpleNamespace(resetTerminated=lambda: None, awaitAnyTermination=self._end_one)
        self.stops: list[tuple[str, str, bool]] = []

    def starts(self) -> dict[str, Callable[[], StreamingQuery | None]]:
        return {query.name: partial(self.start, query) for query in self._queries}

    def start(self, query: Query) -> StreamingQuery | None:
        if query.error == "it is left out":
            return None
        if query.error == "it does not start":
            raise TidemarkError("TOPIC_RECREATED", query.error, "-")
        self.started.append(query)
        return cast(StreamingQuery, query)

    def again(self, name: str) -> StreamingQuery | None:
        query = next(query for query in self._anew if query.name == name)
        self._anew.remove(query)
        return self.start(query)

    def stopped(self, name: str, stop: TidemarkError, query: StreamingQuery | None) -> None:
        self.stops.append((name, stop.code, query is not None))

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def _end_one(self, timeout: float | None) -> None:
        running = [query for query in self.started if query.isActive]
        self.running_at_most = max(self.running_at_most, len(running))
        running[0].isActive = False


@pytest.fixture(autouse=True)
def without_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "in_parallel", lambda spark, *actions: [action() for action in actions])
    monkeypatch.setattr(
        supervision, "stopped_by", lambda query: query.error and TidemarkError("FAILED", query.error, "-")
    )


def wait(session: Session, at_once: int | None = None, *decisions: Decision) -> None:
    """Supervise the queries of `session`; `decisions` are made of its failures in turn, then all stop."""
    to_make = list(decisions)

    def decide(query: str, stop: TidemarkError, now: float) -> Decision:
        return to_make.pop(0) if to_make else Decision("stop-all")

    monkey = pytest.MonkeyPatch()
    clock = SimpleNamespace(monotonic=lambda: session.now, sleep=session.sleep)
    with monkey.context() as patch:
        patch.setattr(supervision, "time", clock)
        spark = cast(SparkSession, session)
        supervise(spark, session.starts(), decide, session.again, at_once=at_once, on_stop=session.stopped)


@pytest.mark.parametrize(("at_once", "expected"), [(1, 1), (2, 2), (9, 5), (None, 5)])
def test_all_run_so_many_at_a_time_in_their_order(at_once: int | None, expected: int) -> None:
    queries = [Query(name) for name in "abcde"]
    session = Session(queries)
    wait(session, at_once)
    assert session.started == queries
    assert not any(query.isActive for query in queries)
    assert session.running_at_most == expected


def test_a_failure_stops_those_that_run_and_no_other_is_started() -> None:
    queries = [Query("a"), Query("b", "it broke"), Query("c"), Query("d"), Query("e")]
    session = Session(queries)
    with pytest.raises(TidemarkError, match="query b stopped: FAILED: it broke"):
        wait(session, 2)
    assert session.started == queries[:3]
    assert not any(query.isActive for query in session.started)


def test_one_that_does_not_stop_hides_not_why_all_were_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = [Query("a", "it broke"), Query("b"), Query("c")]

    def takes_too_long() -> None:
        raise TimeoutError("failed to stop within 120000 milliseconds")

    monkeypatch.setattr(queries[1], "stop", takes_too_long)
    with pytest.raises(TidemarkError, match="query a stopped: FAILED: it broke"):
        wait(Session(queries))
    assert not queries[2].isActive


@pytest.mark.parametrize("at_once", [2, None])
def test_one_that_is_isolated_is_told_and_the_others_go_on_to_their_end(
    at_once: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = [Query("a"), Query("b", "it broke"), Query("c"), Query("d", "it does not start"), Query("e")]
    session = Session(queries)
    wait(session, at_once, Decision("isolate"), Decision("isolate", reason="it is final"))
    assert [query.name for query in session.started] == ["a", "b", "c", "e"]
    assert sorted(session.stops) == [("b", "FAILED", True), ("d", "TOPIC_RECREATED", False)]
    told = capsys.readouterr().err
    assert "error: QUERY_FAILED: query b stopped: FAILED: it broke; -" in told
    assert told.count("the other queries go on") == 2 and "not started again: it is final" in told


def test_one_that_starts_again_at_once_keeps_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    queries, anew = [Query("a"), Query("b", "a new schema"), Query("c")], Query("b")
    session = Session(queries, anew)
    wait(session, 2, Decision("restart"))
    assert session.started == [queries[0], queries[1], queries[2], anew]
    assert not anew.isActive and session.running_at_most == 2
    assert session.now == 100.0
    assert "query b starts again: it broke" not in capsys.readouterr().err


def test_a_restart_is_waited_for_while_the_others_go_on() -> None:
    queries, anew = [Query("a", "it broke"), Query("b"), Query("c")], [Query("a", "again"), Query("a")]
    session = Session(queries, *anew)
    wait(session, 1, Decision("restart", 30.0), Decision("restart", 60.0))
    assert session.started == [*queries, *anew]
    assert session.now == pytest.approx(190.0)


def test_one_whose_restart_fails_is_decided_about_again() -> None:
    session = Session([Query("a", "it broke"), Query("b")], Query("a", "it does not start"))
    wait(session, None, Decision("restart", 5.0), Decision("isolate"))
    assert session.stops == [("a", "FAILED", True), ("a", "TOPIC_RECREATED", False)]


def test_one_that_does_not_start_is_told_as_it_is_where_all_stop() -> None:
    queries = [Query("a"), Query("b", "it does not start"), Query("c")]
    session = Session(queries)
    with pytest.raises(TidemarkError, match="TOPIC_RECREATED: it does not start"):
        wait(session)
    assert session.started == queries[:1] and not queries[0].isActive


def test_one_that_is_left_out_is_not_waited_for() -> None:
    queries = [Query("a", "it is left out"), Query("b")]
    session = Session(queries)
    wait(session, 1)
    assert session.started == queries[1:] and session.stops == []


def test_nothing_to_wait_for_is_no_wait() -> None:
    wait(Session([]), 2)
