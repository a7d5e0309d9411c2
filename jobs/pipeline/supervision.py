"""Starts the queries of a run, waits until all have ended, and decides what becomes of one that fails.

The decision is made by settings, error code and past restarts alone.
"""

import logging
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, cast

from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from conf.setting_types import milliseconds
from conf.settings import Kafka, Running
from jobs.connectors.hadoop_files import FILE_UNREADABLE
from jobs.connectors.spark_internals import in_parallel
from jobs.pipeline.errors import WORKER_DIED, WORKER_LATE
from jobs.pipeline.guards import SCHEMA_ADDED
from jobs.pipeline.run import Run
from jobs.pipeline.termination import BATCH_FAILED, OUTAGES, QUERY_FAILED, query_failed, stopped_by

# Whatever `on_failure` says, WORKER_LATE is retried at most 3 times in 600 s: a machine busy longer needs its owner.
MOST_RETRIES, RETRY_SECONDS = 3, 600.0
LIMIT_SECONDS = 3600.0  # that `run.restart_limit` is counted in
# Refused logins are retried, too, whatever it says: a changed secret reaches a mounted file a minute or two after the
# brokers have it.
LOGINS, LOGIN_SECONDS, LOGIN_PAUSE = 8, 300.0, 15.0
BROKER_REFUSES = "BROKER_REFUSES"
# These codes may stop a query whose password, key or certificate has changed.
LOGIN_STOPS = frozenset({BROKER_REFUSES, "BROKER_UNREACHABLE", "KAFKA_FAILED"})
# fixed: the login cannot change while the job runs; same: it can, and has not since the query was planned; changed: it
# has.
Login = Literal["fixed", "same", "changed"]
# These stops may pass by themselves: of brokers, registry, disk and machine, and unforeseen ones. Stops by data,
# schemas, tables, checkpoints, rights and settings would come again with the same batch.
PASSING = frozenset(
    {
        *(QUERY_FAILED, BATCH_FAILED, WORKER_LATE, WORKER_DIED, "DISK_FULL", FILE_UNREADABLE),
        *("BROKER_UNREACHABLE", "KAFKA_FAILED", "TRANSACTION_TIMED_OUT", "REGISTRY_UNAVAILABLE"),
    }
)


@dataclass(frozen=True)
class Decision:
    """The answer to a query that has failed.

    Args:
        seconds: until the restart.
        reason: why a query that might start again does not; empty for others.
    """

    action: Literal["restart", "isolate", "stop-all"]
    seconds: float = 0.0
    reason: str = ""


Start = Callable[[], StreamingQuery | None]
Decide = Callable[[str, TidemarkError, float], Decision]
OnStop = Callable[[str, TidemarkError, StreamingQuery | None], None]


def stop_all(query: str, stop: TidemarkError, now: float) -> Decision:
    return Decision("stop-all")


def supervise(
    spark: SparkSession,
    starts: Mapping[str, Start],
    decide: Decide = stop_all,
    again: Callable[[str], StreamingQuery | None] | None = None,
    before_stop: Callable[[], object] = lambda: None,
    at_once: int | None = None,
    on_stop: OnStop = lambda name, stop, query: None,
) -> None:
    """Start every query and wait until all have ended, or were isolated.

    Args:
        starts: what starts each query, by its name; None for one that is left out.
        decide: decides about a query, by its name, that was stopped, at a time in seconds.
        again: starts the query of a name once more.
        before_stop: ends what batches wait for, which a stop would wait for too.
        at_once: how many run at a time; all of them by default.
        on_stop: is called with the name of a query, what stopped it and, where it had started, the query itself.

    Raises:
        TidemarkError: QUERY_FAILED, with the query's name and the cause in one line, raised from the query's own stop;
            of a query that does not start, as it is. Only where it is decided that all stop.
    """
    # The session remembers how queries ended, those of an earlier run too.
    spark.streams.resetTerminated()
    run = _Supervised(spark, decide, again, on_stop, at_once, deque(starts.items()))
    try:
        while run.goes_on():
            run.wait()
    finally:
        before_stop()
        run.stop()


def make_restart(run: Run, build: Callable[[Run], None], continuous: bool) -> Callable[[str], StreamingQuery]:
    """Return a function that starts the query of a name once more: `build` plans the job of `run` anew."""

    def again(query: str) -> StreamingQuery:
        anew = run.fresh_copy()
        build(anew)
        (started,) = anew.start(continuous, only=query)
        return started

    return again


def await_all(spark: SparkSession, queries: Iterable[StreamingQuery]) -> None:
    """Wait until every query, which has been started, has ended; the first failure stops the others. Raises
    what `supervise` does."""
    supervise(spark, {str(number): partial(_itself, query) for number, query in enumerate(queries)})


def _itself(query: StreamingQuery) -> StreamingQuery:
    return query


@dataclass
class _Supervised:
    """The queries of a run: those to come, those that run, and those that wait for their restart, until when."""

    _spark: SparkSession
    _decide: Decide
    _again: Callable[[str], StreamingQuery | None] | None
    _on_stop: OnStop
    _at_once: int | None
    _to_come: deque[tuple[str, Start]]
    _running: list[StreamingQuery] = field(default_factory=list)
    _waiting: dict[str, float] = field(default_factory=dict)

    def goes_on(self) -> bool:
        """Look after queries that have ended, and start those whose time has come; return whether any is left."""
        for query in [query for query in self._running if not query.isActive]:
            self._running.remove(query)
            # Only the query itself says how it ended.
            if stop := stopped_by(query):
                self._failed(query.name, stop, query)
        now = time.monotonic()
        for name in [name for name, due in self._waiting.items() if due <= now]:
            del self._waiting[name]
            assert self._again is not None
            self._to_come.appendleft((name, partial(self._again, name)))
        while self._to_come and (self._at_once is None or len(self._running) < self._at_once):
            self._start(*self._to_come.popleft())
        return bool(self._running or self._waiting or self._to_come)

    def wait(self) -> None:
        """Wait until a query ends, or a restart is due."""
        if any(not query.isActive for query in self._running):
            return
        pause = max(0.0, min(self._waiting.values()) - time.monotonic()) if self._waiting else None
        if not self._running:
            time.sleep(pause or 0.0)
            return
        with suppress(StreamingQueryException):
            # It takes fractions of a second, though its types say int, but no 0.
            self._spark.streams.awaitAnyTermination(None if pause is None else cast(int, pause + 0.001))
        self._spark.streams.resetTerminated()

    def stop(self) -> None:
        """Stop those that run."""
        # Stopped one after the other, the last would go on until all before it have ended.
        in_parallel(self._spark, *(partial(_stop, query) for query in self._running))

    def _start(self, name: str, start: Start) -> None:
        try:
            query = start()
        except TidemarkError as stop:
            self._failed(name, stop, None)
        else:
            self._running += [query] if query is not None else []

    def _failed(self, name: str, stop: TidemarkError, query: StreamingQuery | None) -> None:
        self._on_stop(name, stop, query)
        now = time.monotonic()
        decision = self._decide(name, stop, now)
        if decision.action == "stop-all":
            if query is None:
                raise stop
            raise query_failed(name, stop) from stop
        if decision.action == "restart":
            self._waiting[name] = now + decision.seconds
            when = f" in {decision.seconds:g} s" if decision.seconds else ""
            said = f"query {name} starts again{when}: {stop.message}"
        else:
            why = f"; not started again: {decision.reason}" if decision.reason else ""
            said = f"error: {query_failed(name, stop)}{why}; the other queries go on"
        print(said, file=sys.stderr, flush=True)


def _stop(query: StreamingQuery) -> None:
    try:
        query.stop()
    except Exception:  # one that takes too long to stop must not hide why all were to stop
        logging.getLogger(__name__).exception("query %s did not stop", query.name)


def decide(settings: Running, code: str, restarted: Sequence[float], now: float, login: Login = "fixed") -> Decision:
    """Decide about a query that was stopped by `code`.

    Args:
        restarted: when the query was restarted, in seconds of the clock of `now`, SCHEMA_ADDED aside.
        login: whether the login to the brokers has changed.
    """
    if code == SCHEMA_ADDED:
        return Decision("restart")
    if login == "changed" and code in LOGIN_STOPS:
        return Decision("restart")
    if login == "same" and code == BROKER_REFUSES and _since(restarted, now - LOGIN_SECONDS) < LOGINS:
        return Decision("restart", LOGIN_PAUSE)
    if code == WORKER_LATE and _since(restarted, now - RETRY_SECONDS) < MOST_RETRIES:
        return Decision("restart")
    if settings.on_failure != "restart":
        return Decision(settings.on_failure)
    if code not in PASSING:
        return Decision("isolate", reason=f"{code} does not pass by itself")
    count = _since(restarted, now - LIMIT_SECONDS)
    if count >= settings.restart_limit:
        return Decision("isolate", reason=f"it was restarted {count} times within an hour (run.restart_limit)")
    first, most = (milliseconds(each) / 1000 for each in (settings.restart_after, settings.restart_after_most))
    return Decision("restart", float(min(first * 2**count, most)))


def _since(times: Sequence[float], start: float) -> int:
    return sum(at > start for at in times)


class Failures:
    """The failures of a run's queries.

    Args:
        kafka: the connection to the brokers, whose secrets may change while the run lasts.

    Attributes:
        isolated: what stopped each query that is not started again, by its name.
        taking_turns: names of independent queries that run one after another; without this, one failure would keep the
            others from running.
    """

    def __init__(self, settings: Running, kafka: Kafka | None = None) -> None:
        self._settings, self._kafka = settings, kafka if kafka is not None and kafka.rotates else None
        self._first = self._kafka.credentials() if self._kafka else ""
        self._planned_with: dict[str, str] = {}
        self._restarted: dict[str, list[float]] = defaultdict(list)
        self.isolated: dict[str, TidemarkError] = {}
        self.taking_turns: Collection[str] = ()

    def decide(self, query: str, stop: TidemarkError, now: float) -> Decision:
        """Decide about a failure, and remember it; see `decide` of this module."""
        restarted = [at for at in self._restarted[query] if at > now - LIMIT_SECONDS]
        decision = decide(self._settings, stop.code, restarted, now, self._login(query))
        if decision.action == "stop-all" and query in self.taking_turns and stop.code not in OUTAGES:
            decision = Decision("isolate")
        if decision.action == "restart" and stop.code != SCHEMA_ADDED:
            restarted.append(now)
        if decision.action == "isolate":
            self.isolated[query] = stop
        self._restarted[query] = restarted
        return decision

    def _login(self, query: str) -> Login:
        """Say whether the login has changed since `query` was planned, and note that it is planned with it now."""
        if self._kafka is None:
            return "fixed"
        before, now = self._planned_with.get(query, self._first), self._kafka.credentials()
        self._planned_with[query] = now
        return "same" if now == before else "changed"

    def error(self) -> TidemarkError | None:
        """Return the error that a run with isolated queries ends with, though others ended well; None without any."""
        if not self.isolated:
            return None
        if len(self.isolated) == 1:
            ((name, stop),) = self.isolated.items()
            return query_failed(name, stop)
        stops = ", ".join(f"{name} ({stop.code})" for name, stop in self.isolated.items())
        remedy = "each has its line above, with what to do; `local/tidemark history --failed` has them too"
        return TidemarkError(QUERY_FAILED, f"{len(self.isolated)} queries stopped: {stops}", remedy)
