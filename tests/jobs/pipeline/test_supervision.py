"""Queries of a run, supervised: how many run at a time, what is decided about one that fails, and what then happens."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from conf.sections import OnFailure
from conf.settings import Running, load
from jobs.connectors.causes import Cause
from jobs.pipeline import supervision
from jobs.pipeline.errors import NAMED, WORKER_LATE, known_error
from jobs.pipeline.guards import SCHEMA_ADDED
from jobs.pipeline.supervision import (
    LIMIT_SECONDS,
    LOGIN_PAUSE,
    LOGIN_SECONDS,
    LOGIN_STOPS,
    LOGINS,
    MOST_RETRIES,
    PASSING,
    RETRY_SECONDS,
    Decision,
    Failures,
    decide,
    supervise,
)
from jobs.pipeline.termination import QUERY_FAILED


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


NOW = 10_000.0
POLICIES: tuple[OnFailure, ...] = ("stop-all", "isolate", "restart")
RESTART = Decision("restart")


def running(on_failure: OnFailure, limit: int = 3, first: str = "5 seconds", most: str = "12 seconds") -> Running:
    return Running(
        on_failure=on_failure,
        restart_limit=limit,
        restart_after=first,
        restart_after_most=most,
        stop_within="25 seconds",
    )


def stop(code: str) -> TidemarkError:
    return TidemarkError(code, "it broke", "mend it")


def test_a_failure_stops_all_unless_it_is_set_otherwise() -> None:
    assert decide(load().run, "DISK_FULL", [], NOW) == Decision("stop-all")


@pytest.mark.parametrize("on_failure", POLICIES)
def test_a_new_schema_always_starts_again_and_a_late_worker_a_few_times_within_a_while(on_failure: OnFailure) -> None:
    settings = running(on_failure)
    assert decide(settings, SCHEMA_ADDED, [NOW] * 99, NOW) == RESTART
    past = [NOW - each for each in range(MOST_RETRIES)]
    assert decide(settings, WORKER_LATE, past[1:], NOW) == RESTART
    assert decide(settings, WORKER_LATE, past, NOW) != RESTART
    assert decide(settings, WORKER_LATE, past, NOW + RETRY_SECONDS + 1) == RESTART


@pytest.mark.parametrize("on_failure", ["stop-all", "isolate"])
@pytest.mark.parametrize("code", [QUERY_FAILED, "DATA_LOST", "DISK_FULL"])
def test_without_restart_every_other_stop_is_final(on_failure: OnFailure, code: str) -> None:
    assert decide(running(on_failure), code, [], NOW) == Decision(on_failure)


@pytest.mark.parametrize("code", sorted(PASSING))
def test_what_may_pass_starts_again_later_each_time_until_the_budget_of_an_hour_is_used_up(code: str) -> None:
    settings, past, waits = running("restart", limit=6, first="1 second"), list[float](), list[float]()
    for _ in range(6):
        decision = decide(settings, code, past, NOW)
        assert decision.action == "restart"
        waits.append(decision.seconds)
        past.append(NOW - RETRY_SECONDS - 1)  # past what is anyway forgiven to a late worker
    used_up = decide(settings, code, past, NOW)
    assert waits[-6:] == [0 if code == WORKER_LATE else 1, *waits[1:6]]
    assert waits == sorted(waits) and waits[-1] == (0 if code == WORKER_LATE else 12)
    if code != WORKER_LATE:
        assert waits == [1, 2, 4, 8, 12, 12]
        assert (used_up.action, "restarted 6 times" in used_up.reason) == ("isolate", True)
        assert decide(settings, code, past, NOW + LIMIT_SECONDS) == Decision("restart", 1)


@pytest.mark.parametrize(
    "code",
    sorted(
        {named.code for named in NAMED} - PASSING
        | {"CHECKPOINT_DAMAGED", "STATE_DAMAGED", "TABLE_BEHIND", "BATCH_CHANGED", "TOPIC_RECREATED", "TYPE_CHANGED"}
        | {"REJECT_LIMIT", "RECORD_TOO_LARGE", "FENCED", "NOT_AUTHORIZED", "KEY_REPEATED", "LEDGER_GAP"}
    ),
)
def test_what_would_fail_the_same_way_is_isolated_at_once(code: str) -> None:
    decision = decide(running("restart"), code, [], NOW)
    assert (decision.action, code in decision.reason) == ("isolate", True)


def test_each_query_has_a_budget_of_its_own_and_an_hour_gives_it_back() -> None:
    failures = Failures(running("restart", limit=2))
    at = [failures.decide("a", stop("DISK_FULL"), NOW + each).action for each in range(3)]
    assert at == ["restart", "restart", "isolate"]
    assert failures.decide("b", stop("DISK_FULL"), NOW).action == "restart"
    assert failures.decide("b", stop("DISK_FULL"), NOW + LIMIT_SECONDS + 1) == Decision("restart", 5)


def test_new_schemas_use_up_nothing() -> None:
    failures = Failures(running("restart", limit=1))
    assert all(failures.decide("a", stop(SCHEMA_ADDED), NOW) == RESTART for _ in range(9))
    assert failures.decide("a", stop("DISK_FULL"), NOW) == Decision("restart", 5)


def test_a_run_with_isolated_queries_names_them_at_its_end() -> None:
    failures = Failures(running("isolate"))
    assert failures.error() is None
    failures.decide("a", stop("DATA_LOST"), NOW)
    assert str(failures.error()) == "QUERY_FAILED: query a stopped: DATA_LOST: it broke; mend it"
    failures.decide("b", stop("DISK_FULL"), NOW)
    assert "2 queries stopped: a (DATA_LOST), b (DISK_FULL); " in str(failures.error())


def test_those_that_take_turns_go_on_where_one_fails_but_not_without_what_all_need() -> None:
    failures = Failures(running("stop-all"))
    failures.taking_turns = ["a", "b"]
    assert failures.decide("a", stop("RULE_STOPPED"), NOW) == Decision("isolate")
    assert list(failures.isolated) == ["a"]
    for query, code in (("b", "BROKER_UNREACHABLE"), ("b", "DISK_FULL"), ("c", "RULE_STOPPED")):
        assert failures.decide(query, stop(code), NOW) == Decision("stop-all")
    assert list(failures.isolated) == ["a"]


def test_a_worker_that_did_not_connect_in_time_has_a_name() -> None:
    frames = ("java.nio.channels.ServerSocketChannel", "org.apache.spark.api.python.PythonWorkerFactory")
    outer = Cause("org.apache.spark.SparkException", "Python worker failed to connect back.")
    late = Cause("java.net.SocketTimeoutException", "Timed out while waiting", frames=frames)
    stop = known_error((outer, late))
    assert stop is not None
    assert (stop.code, stop.message) == (WORKER_LATE, "a Python worker did not start in time")
    missing = Cause("java.io.IOException", 'Cannot run program "python"', frames=frames)
    assert known_error((outer, missing)) is None


@pytest.mark.parametrize("on_failure", POLICIES)
def test_a_login_that_has_changed_starts_again_at_once_and_one_that_may_is_waited_for(on_failure: OnFailure) -> None:
    settings = running(on_failure)
    for code in LOGIN_STOPS:
        assert decide(settings, code, [NOW] * 99, NOW, "changed") == RESTART
    past = [NOW - each for each in range(LOGINS)]
    assert decide(settings, "BROKER_REFUSES", past[1:], NOW, "same") == Decision("restart", LOGIN_PAUSE)
    for login, restarted, now in (("same", past, NOW), ("fixed", [], NOW)):
        assert decide(settings, "BROKER_REFUSES", restarted, now, login).action != "restart"  # type: ignore[arg-type]
    assert decide(settings, "BROKER_REFUSES", past, NOW + LOGIN_SECONDS + 1, "same").action == "restart"
    assert decide(settings, "DATA_LOST", [], NOW, "changed").action != "restart"


def test_each_query_is_started_again_once_for_a_secret_that_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "password"
    secret.write_text("old")
    monkeypatch.setenv("TIDEMARK_KAFKA__SASL_PASSWORD_FILE", str(secret))
    access = ("security_protocol=SASL_SSL", "sasl_mechanism=PLAIN", "sasl_username=ann")
    failures = Failures(running("stop-all"), load("local", [f"kafka.{each}" for each in access]).kafka)
    waits = Decision("restart", LOGIN_PAUSE)
    assert failures.decide("a", stop("BROKER_REFUSES"), NOW) == waits
    secret.write_text("new")
    for query in ("a", "b"):
        assert failures.decide(query, stop("BROKER_REFUSES"), NOW) == RESTART
        assert failures.decide(query, stop("BROKER_REFUSES"), NOW) == waits
        assert failures.decide(query, stop("DATA_LOST"), NOW) == Decision("stop-all")
    monkeypatch.delenv("TIDEMARK_KAFKA__SASL_PASSWORD_FILE")
    assert Failures(running("stop-all"), load("local").kafka).decide("a", stop("BROKER_REFUSES"), NOW) != waits
