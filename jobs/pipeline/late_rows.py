"""Writes the table `late`: every row that a watermark has dropped, once, with the record it came from.

Spark says with each micro-batch how many rows were dropped, not which. So where there are any, its records are read
once more, before the next is written, and what its stateful operators took in is compared with the same watermark. A
query without late rows pays nothing.
"""

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from conf.settings import Settings
from jobs.connectors.causes import cause_line, causes
from jobs.connectors.delta import table as delta_table
from jobs.pipeline import checkpoint, checkpoint_format, paths, plan_analysis
from jobs.pipeline.errors import known_error
from jobs.pipeline.late_detection import FOUND, Reread, RereadError, dropped_rows
from jobs.pipeline.outputs import Output
from jobs.pipeline.paths import LATE, LATE_FILE

COLUMNS = (
    *("job", "query", "query_id", "batch", "operator", "watermark", "event_time"),
    *("topic", "partition", "offset", "row", "dropped", "note", "listed_at"),
)


@dataclass(frozen=True)
class _Batch:
    """A micro-batch that is over.

    Args:
        dropped: how many rows Spark counted; None where it was not asked in time.
        watermark_ms: what event times were late by; None where the checkpoint no longer says.
    """

    number: int
    query_id: str
    dropped: int | None
    offsets: Mapping[str, Any]
    planned_at: datetime
    watermark_ms: int | None


class LateRows:
    """Lists what the watermark of one query dropped, each micro-batch after it is over; `tables_root`: where the table
    `late` lies."""

    def __init__(self, spark: SparkSession, settings: Settings, output: Output, folder: str, tables_root: str) -> None:
        self._spark, self._settings, self._output, self._folder = spark, settings, output, folder
        self.query = output.query
        self._table = delta_table.Table(LATE, paths.table(tables_root, LATE))
        self._is_needed = plan_analysis.drops_late_rows(output.frame)
        self._query: StreamingQuery | None = None
        self._done: int | None = None

    def follow(self, query: StreamingQuery) -> None:
        """Ask `query`, which has just been started, how many rows each micro-batch dropped."""
        self._query = query

    def before(self, session: SparkSession, batch: int) -> None:
        """List what the micro-batch before `batch` dropped; to be called before `batch` is written."""
        if self._is_needed and batch:
            self._list_once(session, batch - 1)

    def settle(self) -> None:
        """List what the last micro-batch dropped, once the query has ended; the next start need not look at it."""
        last = checkpoint.last_commit(self._spark, self._folder) if self._is_needed else None
        if last is not None and self._list_once(self._spark, last):
            checkpoint.write(self._spark, f"{self._folder}/{LATE_FILE}", json.dumps({"batch": last}))

    def _list_once(self, session: SparkSession, batch: int) -> bool:
        """List what `batch` dropped; return False where it was known to be listed."""
        if self._done is None:
            # A micro-batch begins after the one before it has been looked at: only the last can be open.
            self._done = self._settled()
        if batch == self._done:
            return False
        dropped = self._dropped(batch)
        if dropped != 0:
            self._list(session, batch, dropped)
        self._done = batch
        return True

    def _settled(self) -> int | None:
        text = checkpoint.read(self._spark, f"{self._folder}/{LATE_FILE}")
        try:
            return int(json.loads(text)["batch"]) if text else None
        except (ValueError, KeyError, TypeError):
            return None  # a damaged mark is none: the last batch is looked at again, and listed once

    def _dropped(self, batch: int) -> int | None:
        """Return Spark's own count; None where this run has not seen the batch."""
        progress = self._query.lastProgress if self._query else None
        if progress is None or progress.batchId != batch:
            return None
        return sum(operator.numRowsDroppedByWatermark for operator in progress.stateOperators)

    def _list(self, session: SparkSession, number: int, dropped: int | None) -> None:
        files = checkpoint.opening(session, self._folder, number)
        offsets = checkpoint_format.batch_offsets(files, number)
        if dropped is None and offsets["from"] == offsets["until"]:
            return
        id = str(checkpoint.query_id(session, self._folder))
        planned = checkpoint_format.planned_at(files, number)
        batch = _Batch(number, id, dropped, offsets, planned, checkpoint_format.late_watermark_ms(files, number))
        name = self._output.query
        commit = delta_table.Commit(
            name, id, LATE, number, offsets, contiguous=False, delete_predicate=f"query = '{name}'"
        )
        if delta_table.recorded_version(session, self._table.path, commit.app_id(self._table)) != number:
            self._write(session, batch, commit)

    def _write(self, session: SparkSession, batch: _Batch, commit: delta_table.Commit) -> None:
        rows, note = session.createDataFrame([], FOUND), ""
        try:
            rows = self._read(session, batch).persist()
            listed = _count(rows)
        except RereadError as exc:
            listed, note = 0, str(exc)
        if batch.dropped is not None and batch.dropped != listed:
            note = note or f"Spark counted {batch.dropped:,} rows, and {listed:,} were found"
        try:
            frames = [rows.withColumn("note", F.lit(None).cast("string"))] if listed else []
            frames += [self._unlisted(session, batch, listed, note)] if note else []
            if frames:
                delta_table.write(self._with_names(reduce(DataFrame.unionByName, frames), batch), self._table, commit)
        finally:
            rows.unpersist()

    def _read(self, session: SparkSession, batch: _Batch) -> DataFrame:
        """Return the late rows, in the columns of `dropped_rows`; raises RereadError where the batch cannot be computed
        again, and never will be."""
        if batch.watermark_ms is None:
            raise RereadError("the checkpoint no longer holds the batch before it")
        settings, complete = self._settings, self._output.mode == "complete"
        try:
            again = Reread(
                session, self._output.frame, settings.kafka, settings.source, batch.offsets, batch.planned_at
            )
            rows = dropped_rows(again, batch.watermark_ms, complete)
        except RereadError:
            raise
        except Exception as exc:
            # A plan that this cannot follow must not keep its query from going on.
            logging.getLogger(__name__).exception("the plan of %s cannot be computed again", self._output.query)
            raise RereadError(f"its plan cannot be computed again: {cause_line(exc)}") from exc
        return session.createDataFrame([], FOUND) if rows is None else rows

    def _unlisted(self, session: SparkSession, batch: _Batch, listed: int, note: str) -> DataFrame:
        """Return a row for the rows that were dropped and are not listed."""
        missing = None if batch.dropped is None else batch.dropped - listed
        count = "an unknown number of" if missing is None else f"{missing:,}"
        what = f"batch {batch.number} of {self._output.query}: {count} late rows are counted without their records"
        print(f"warning: {what}: {note}", file=sys.stderr, flush=True)
        nothing = (None,) * len(FOUND.split(", "))
        row = session.createDataFrame([nothing], FOUND)
        return row.withColumns({"dropped": F.lit(missing).cast("long"), "note": F.lit(note)})

    def _with_names(self, rows: DataFrame, batch: _Batch) -> DataFrame:
        names = {
            "job": F.lit(self._output.job),
            "query": F.lit(self._output.query),
            "query_id": F.lit(batch.query_id),
            "batch": F.lit(batch.number).cast("long"),
            "watermark": F.timestamp_millis(F.lit(batch.watermark_ms)),
            "listed_at": F.lit(datetime.now(UTC)),
        }
        return rows.withColumns(names).select(*COLUMNS)


def _count(rows: DataFrame) -> int:
    """Return how many rows Spark's own count has for `rows`; raises RereadError where records of the batch are gone."""
    try:
        return int(rows.agg(F.coalesce(F.sum("dropped"), F.lit(0))).first()[0])  # type: ignore[index]
    except Exception as exc:
        stop = known_error(causes(exc))
        if stop is None or stop.code != "DATA_LOST":
            raise
        raise RereadError("retention has passed its records") from exc
