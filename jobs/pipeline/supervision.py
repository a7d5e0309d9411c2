"""Starts the queries of a run, waits until all have ended, and carries out what is decided about one that fails."""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import cast

from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from jobs.connectors.spark_internals import in_parallel
from jobs.pipeline.restarts import Decision
from jobs.pipeline.run import Run
from jobs.pipeline.termination import query_failed, stopped_by

Start = Callable[[], StreamingQuery | None]
Decide = Callable[[str, TidemarkError, float], Decision]
OnStop = Callable[[str, TidemarkError, StreamingQuery | None], None]


def stop_all(query: str, stop: TidemarkError, now: float) -> Decision:
    """Decide that the first failure stops all."""
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
    run = _Supervised(spark, starts, decide, again, on_stop, at_once)
    try:
        while run.goes_on():
            run.wait()
    finally:
        before_stop()
        run.stop()


def planned_anew(run: Run, build: Callable[[Run], None], continuous: bool) -> Callable[[str], StreamingQuery]:
    """Return a function that starts the query of a name once more: `build` plans the job of `run` anew."""

    def again(query: str) -> StreamingQuery:
        anew = run.fresh_copy()
        build(anew)
        (started,) = anew.start(continuous, only=query)
        return started

    return again


def await_all(
    spark: SparkSession, queries: Iterable[StreamingQuery], before_stop: Callable[[], object] = lambda: None
) -> None:
    """Wait until every query, which has been started, has ended; the first failure stops the others.

    Raises:
        TidemarkError: see `supervise`.
    """
    supervise(
        spark, {str(number): partial(_itself, query) for number, query in enumerate(queries)}, before_stop=before_stop
    )


def _itself(query: StreamingQuery) -> StreamingQuery:
    return query


class _Supervised:
    """The queries of a run: those to come, those that run, and those that wait for their restart."""

    def __init__(
        self,
        spark: SparkSession,
        starts: Mapping[str, Start],
        decide: Decide,
        again: Callable[[str], StreamingQuery | None] | None,
        on_stop: OnStop,
        at_once: int | None,
    ) -> None:
        self._spark, self._decide, self._again, self._on_stop = spark, decide, again, on_stop
        self._at_once = at_once
        self._to_come = deque(starts.items())
        self._running: list[StreamingQuery] = []
        self._waiting: dict[str, float] = {}

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
