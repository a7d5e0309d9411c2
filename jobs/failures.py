"""How queries end: awaited together, and what stopped one said in one line."""

import logging
import re
from collections.abc import Callable

from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from jobs.parallel import in_parallel

OWN_ERROR = "conf.errors.TidemarkError:"
# The line below a Python traceback, and Java's exceptions: py4j writes the outermost after a colon.
PYTHON_CAUSE = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t].*\n)*(\S.*)")
JAVA_CAUSE = re.compile(r"^(?:Caused by)?: (.*)", re.MULTILINE)


def await_all(spark: SparkSession, queries: list[StreamingQuery]) -> None:
    """Wait until every query has ended; the first failure stops the others.

    Raises:
        TidemarkError: QUERY_FAILED, with the query's name and the cause in one line.
    """
    # The session remembers how queries ended, those of an earlier run too.
    spark.streams.resetTerminated()
    try:
        while any(query.isActive for query in queries):
            spark.streams.awaitAnyTermination()
            spark.streams.resetTerminated()
            _raise_first(queries)
        _raise_first(queries)
    except StreamingQueryException as exc:
        raise _first_failure(queries) or _failed("a query", str(exc)) from exc
    finally:
        # One after the other, the last would go on for as long as all before it take to end.
        in_parallel(spark, *(query.stop for query in queries))


def _raise_first(queries: list[StreamingQuery]) -> None:
    failure = _first_failure(queries)
    if failure is not None:
        raise failure


def _first_failure(queries: list[StreamingQuery]) -> TidemarkError | None:
    for query in queries:
        error = None if query.isActive else query.exception()
        if error is not None:
            return _failed(query.name, str(error))
    return None


def _failed(name: str, text: str) -> TidemarkError:
    return TidemarkError(
        "QUERY_FAILED",
        f"query {name} stopped: {cause_line(text)}",
        "see the log; the checkpoint is kept, a new run goes on",
    )


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
        raise TidemarkError("BATCH_FAILED", cause_line(str(exc)), "the cause is in the log, whole") from None


def cause_line(text: str) -> str:
    """The innermost cause that Spark's text of a failure names, on one line."""
    python = PYTHON_CAUSE.findall(text)
    ours = [line.removeprefix(OWN_ERROR) for line in python if line.startswith(OWN_ERROR)]
    first = [line for line in text.splitlines() if line.strip()][:1] or ["no cause given"]
    return (ours or python or JAVA_CAUSE.findall(text) or first)[-1].strip()
