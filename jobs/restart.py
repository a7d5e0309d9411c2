"""A query that a new schema version has stopped, started again with a plan that reads it."""

from collections.abc import Callable

from pyspark.sql.streaming.query import StreamingQuery

from jobs.run import Run


def restarts(run: Run, build: Callable[[Run], None], continuous: bool) -> Callable[[str], StreamingQuery]:
    """What `failures.await_all` calls with a query's name: `build` plans the job of `run` anew, and the query goes on
    from its checkpoint.
    """

    def again(query: str) -> StreamingQuery:
        anew = run.anew()
        build(anew)
        (started,) = anew.start(continuous, only=query)
        return started

    return again
