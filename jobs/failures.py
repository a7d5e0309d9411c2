"""How queries end: awaited together, and what stopped one said in one line."""

import logging
import re
import sys
from collections.abc import Callable
from contextlib import suppress

from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from jobs.parallel import in_parallel
from jobs.schema_guard import SCHEMA_ADDED

OWN_ERROR = "conf.errors.TidemarkError:"
# The line below a Python traceback, and Java's exceptions: py4j writes the outermost after a colon.
PYTHON_CAUSE = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t].*\n)*(\S.*)")
JAVA_CAUSE = re.compile(r"^(?:Caused by)?: (.*)", re.MULTILINE)
# What a Column raises, which says it in our words.
RAISED = re.compile(r"\[USER_RAISED_EXCEPTION\] ([A-Z_]+: .*?; .*?)(?: SQLSTATE: \w+)?$", re.MULTILINE)
# What Spark and Kafka say of troubles that have a remedy.
NAMED_STOPS = (
    (
        "DATA_LOST",
        r"data may have been (?:lost|missed)|OffsetOutOfRangeException",
        "records that were still to be read are gone: retention passed them, or the topic was created again; "
        "begin with new checkpoints and tables, and give the topic a longer retention",
    ),
    (
        "CHECKPOINT_DAMAGED",
        r"Incomplete log file|Failed to read log file|Unexpected end-of-input|ChecksumException|MALFORMED_LOG_FILE",
        "restore the checkpoint; one whose query publishes and keeps no state is built anew by --adopt",
    ),
    (
        "TWO_DRIVERS",
        r"CONCURRENT_STREAM_LOG_UPDATE|CONCURRENT_QUERY|[Mm]ultiple streaming queries are concurrently using",
        "two runs use one checkpoint: let one of them go on alone",
    ),
    ("DISK_FULL", r"No space left on device", "free some space, then start the job again: it goes on where it was"),
)


Again = Callable[[str], StreamingQuery | None]


def await_all(
    spark: SparkSession,
    queries: list[StreamingQuery],
    again: Again = lambda name: None,
    before_stop: Callable[[], object] = lambda: None,
) -> None:
    """Wait until every query has ended; the first failure stops the others.

    Args:
        again: starts the query of a name, that stopped by SCHEMA_ADDED, with a new plan; None where it cannot.
        before_stop: ends what batches wait for, which a stop would wait for too.

    Raises:
        TidemarkError: QUERY_FAILED, with the query's name and the cause in one line.
    """
    # The session remembers how queries ended, those of an earlier run too.
    spark.streams.resetTerminated()
    try:
        while True:
            is_any_active = any(query.isActive for query in queries)
            going_on = [_going_on(query, again) for query in queries]
            if not is_any_active and going_on == queries:
                return
            queries = going_on
            # How it ended is asked of the query itself.
            with suppress(StreamingQueryException):
                spark.streams.awaitAnyTermination()
            spark.streams.resetTerminated()
    finally:
        before_stop()
        # One after the other, the last would go on for as long as all before it take to end.
        in_parallel(spark, *(query.stop for query in queries))


def _going_on(query: StreamingQuery, again: Again) -> StreamingQuery:
    """The query, or the one that goes on in its place."""
    error = None if query.isActive else query.exception()
    if error is None:
        return query
    stop = named_stop(str(error))
    started = again(query.name) if stop and stop.code == SCHEMA_ADDED else None
    if started is None or stop is None:
        raise _failed(query.name, str(error))
    print(f"query {query.name} starts again: {stop.message}", file=sys.stderr, flush=True)
    return started


def _failed(name: str, text: str) -> TidemarkError:
    stop = named_stop(text)
    if stop is None:
        remedy = "see the log; the checkpoint is kept, a new run goes on"
        return TidemarkError("QUERY_FAILED", f"query {name} stopped: {cause_line(text)}", remedy)
    return TidemarkError("QUERY_FAILED", f"query {name} stopped: {stop.code}: {stop.message}", stop.remedy)


def in_one_line(write: Callable[[], None]) -> None:
    """Run `write`; what it raises becomes a TidemarkError, and goes to the log whole.

    Spark takes the text of a failure apart with a regular expression that overflows the stack on a long one.
    """
    try:
        write()
    except TidemarkError:
        raise
    except Exception as exc:
        logging.getLogger(__name__).exception("a micro-batch failed")
        remedy = "the cause is in the log, whole; the checkpoint is kept, a new run goes on"
        raise named_stop(str(exc)) or TidemarkError("BATCH_FAILED", cause_line(str(exc)), remedy) from None


def named_stop(text: str) -> TidemarkError | None:
    """The stop that Spark's text of a failure tells of: the last of ours, or one of NAMED_STOPS; None for neither."""
    own = _own_error(text)
    if own is not None:
        code, _, rest = own.partition(": ")
        what, _, remedy = rest.rpartition("; ")
        return TidemarkError(code, what, remedy)
    for code, pattern, remedy in NAMED_STOPS:
        if re.search(pattern, text):
            return TidemarkError(code, cause_line(text).rstrip("; "), remedy)
    return None


def _own_error(text: str) -> str | None:
    ours = [line.removeprefix(OWN_ERROR) for line in PYTHON_CAUSE.findall(text) if line.startswith(OWN_ERROR)]
    return (ours or RAISED.findall(text) or [""])[-1].strip() or None


def cause_line(text: str) -> str:
    """The innermost cause that Spark's text of a failure names, on one line."""
    python = PYTHON_CAUSE.findall(text)
    first = [line for line in text.splitlines() if line.strip()][:1] or ["no cause given"]
    return _own_error(text) or (python or JAVA_CAUSE.findall(text) or first)[-1].strip()
