"""Reports in one line what stopped a query or keeps it from starting, and which queries a run goes on without.

Only a query that ran before, and turned bad since, is left out; what never ran is refused before anything starts.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from jobs.connectors.causes import cause_line, causes
from jobs.connectors.spark_internals import query_exception
from jobs.pipeline.errors import known_error

QUERY_FAILED = "QUERY_FAILED"
BATCH_FAILED = "BATCH_FAILED"
# For an unforeseen cause, it is not known whether a new run would go on.
UNFORESEEN = "the checkpoint is kept: mend the cause, then start the job again"
# These are about what every topic needs: to go on with the next topic would only take longer.
OUTAGES = (
    *("BROKER_UNREACHABLE", "BROKER_REFUSES", "KAFKA_FAILED", "DISK_FULL"),
    *("REGISTRY_UNAVAILABLE", "REGISTRY_REFUSED", "REGISTRY_DAMAGED", "NOT_A_REGISTRY"),
)
TOPICS_REFUSED = "TOPICS_REFUSED"

Tell = Callable[[TidemarkError], TidemarkError]

# What callbacks of queries raised, by the query's run: Spark passes on no more than its text.
_raised: dict[str, TidemarkError] = {}
_tell: dict[str, Tell] = {}


def stopped_by(query: StreamingQuery) -> TidemarkError | None:
    """Return the error that stopped a query; None for one that has ended well.

    It is the very error that the query's callback raised (see `batch_errors`), or that it was stopped by (`stop_by`),
    else what Java's exceptions tell by name, else QUERY_FAILED with the innermost cause.
    """
    run = str(query.runId)
    raised, add_to = _raised.pop(run, None), _tell.pop(run, None)
    ended = query_exception(query)
    if ended is None and raised is None:
        return None
    chain = [] if ended is None else causes(ended)
    stop = raised or known_error(chain)
    if stop is None:
        return TidemarkError(QUERY_FAILED, cause_line(chain), f"see the log; {UNFORESEEN}")
    return add_to(stop) if add_to else stop


def stop_by(query: StreamingQuery, stop: TidemarkError) -> None:
    """Stop a query that runs; `stop` is what `stopped_by` gives."""
    _raised[str(query.runId)] = stop
    query.stop()


@contextmanager
def batch_errors(session: SparkSession) -> Iterator[str]:
    """Do `single_line_errors` for a micro-batch in its session, and give the id of the query's run; `stopped_by`
    returns the very error."""
    # The jobs of a query's run are a group of that name.
    run = str(session.sparkContext.getLocalProperty("spark.jobGroup.id"))
    try:
        with single_line_errors():
            yield run
    except TidemarkError as stop:
        _raised[run] = stop
        raise


def query_failed(name: str, stop: TidemarkError) -> TidemarkError:
    """Return QUERY_FAILED with the query's name and what stopped it."""
    what = stop.message if stop.code == QUERY_FAILED else f"{stop.code}: {stop.message}"
    return TidemarkError(QUERY_FAILED, f"query {name} stopped: {what}", stop.remedy)


def explain(query: StreamingQuery, tell: Tell) -> None:
    """Let `tell` add to the stop of `query` what is known of it."""
    _tell[str(query.runId)] = tell


@contextmanager
def single_line_errors(tell: Tell = lambda stop: stop) -> Iterator[None]:
    """Turn what the block raises into a TidemarkError of one line, to which `tell` adds; the whole goes to the log.

    Spark takes the text of a failure apart with a regular expression that overflows the stack on a long one.

    Raises:
        TidemarkError: as it was raised, else by name, else BATCH_FAILED.
    """
    try:
        yield
    except TidemarkError:
        raise
    except Exception as exc:
        logging.getLogger(__name__).exception("a micro-batch failed")
        chain = causes(exc)
        remedy = f"the cause is in the log, whole; {UNFORESEEN}"
        raise tell(known_error(chain) or TidemarkError(BATCH_FAILED, cause_line(chain), remedy)) from None


class LeftOut:
    """The queries that one run goes on without, and why.

    Attributes:
        is_allowed: whether it may go on without anything.
        on_left_out: is called with the name of each query that is left out, and why.
    """

    def __init__(self, is_allowed: bool = False) -> None:
        self.is_allowed = is_allowed
        self.on_left_out: Callable[[str, TidemarkError], None] = lambda query, stop: None
        self._stops: dict[str, TidemarkError] = {}

    def add(self, query: str, stop: TidemarkError) -> None:
        self._stops[query] = stop

    def report(self, query: str = "") -> None:
        """Say that a query is left out; without a name all that are so far."""
        for name in [query] if query else list(self._stops):
            print(f"query {name} is left out: {self._stops[name]}; the others go on", file=sys.stderr, flush=True)
            self.on_left_out(name, self._stops[name])

    def require_included(self, query: str) -> None:
        """Raise why that query is left out, if it is."""
        if query in self._stops:
            raise self._stops[query]

    def error(self) -> TidemarkError | None:
        """Return QUERY_FAILED, with each query that is left out and why; None where none is."""
        if not self._stops:
            return None
        stops = self._stops.items()
        listed = "; ".join(f"query {query} was left out: {stop.code}: {stop.message}" for query, stop in stops)
        remedies = "; ".join(dict.fromkeys(stop.remedy for stop in self._stops.values()))
        return TidemarkError(QUERY_FAILED, listed, f"{remedies}; all others went on")


def topics_refused(failures: Mapping[str, TidemarkError], topics: Iterable[str], setting: str) -> TidemarkError:
    """Make one error of all that keeps `topics` from being read; where others can be, with how to read those alone.

    `failures`: at least one, by topic; `setting`: the one that lists the topics.
    """
    others = [topic for topic in topics if topic not in failures]
    alone = f"; or read the others alone: --set {setting}={','.join(others)}" if others else ""
    if len(failures) == 1:
        (stop,) = failures.values()
        return TidemarkError(stop.code, stop.message, f"{stop.remedy}{alone}")
    listed = "; ".join(f"({n}) {stop}" for n, stop in enumerate(failures.values(), start=1))
    return TidemarkError(TOPICS_REFUSED, f"{len(failures)} topics cannot be read: {listed}", f"mend each{alone}")
