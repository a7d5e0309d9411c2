"""Follows a streaming query while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.errors import StreamingQueryException
from pyspark.sql.streaming.listener import StreamingQueryProgress
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from jobs.connectors.causes import cause_line

LOOK_EVERY_S = 1


@contextmanager
def following(query: StreamingQuery) -> Iterator[Iterator[StreamingQueryProgress]]:
    """Give the progress of the newest micro-batch, each time one has finished; ends with the query.

    The query is stopped at the end of the block, however that comes: a kernel that is interrupted leaves none running.

    Raises:
        TidemarkError: QUERY_FAILED, with the query's name and the cause in one line.
    """
    try:
        yield _finished_batches(query)
    finally:
        query.stop()


def _finished_batches(query: StreamingQuery) -> Iterator[StreamingQueryProgress]:
    newest, ended = -1, False
    while not ended:
        ended = _has_ended(query)
        progress = query.lastProgress
        if progress is not None and progress.batchId > newest:
            newest = progress.batchId
            yield progress


def _has_ended(query: StreamingQuery) -> bool:
    try:
        return bool(query.awaitTermination(LOOK_EVERY_S))
    except StreamingQueryException as exc:
        message = f"query {query.name} stopped: {cause_line(exc)}"
        raise TidemarkError("QUERY_FAILED", message, "mend the cause and run the cell again") from exc
