"""Listens to a driver's queries, and feeds progress lines, the journal, metrics and consumer groups.

Observing never stops the work: what fails here is said once, and the queries go on.
"""

import logging
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
    StreamingQueryProgress,
)
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from conf.setting_types import milliseconds
from conf.settings import Job
from jobs.pipeline import checkpoint, checkpoint_format, plan_analysis
from jobs.pipeline.monitoring.exporter import Exporter
from jobs.pipeline.monitoring.lag import ConsumerGroups, Positions
from jobs.pipeline.monitoring.recorder import Recorder, counts
from jobs.pipeline.outputs import Batch
from jobs.pipeline.progress import (
    ProgressLines,
    count_published,
    counts_of,
    is_real_time,
    lag,
    newest_event_time,
    offsets_of_batch,
    watermark_of,
)
from jobs.pipeline.run import Run
from jobs.pipeline.session import tell_batch

FOLD_SECONDS = 60.0
LAG_SECONDS = 15.0
TICK_SECONDS = 1.0
DRAIN_SECONDS = 20.0

logger = logging.getLogger(__name__)


class Monitor(StreamingQueryListener):
    """Observes every query of a session from `with` to its end; `run`: whose outputs are declared."""

    def __init__(self, run: Run) -> None:
        self._run, self._settings = run, run.settings
        self._recorder = Recorder(run.settings, run)
        self._lines = ProgressLines(run.counted)
        self._exporter = Exporter(run.settings.metrics)
        self._groups = ConsumerGroups(run.settings)
        self._positions = Positions(run.settings.kafka)
        self._names: dict[str, str] = {}
        self._said: set[str] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="monitor", daemon=True)

    def __enter__(self) -> Self:
        self._run.on_batch, self._run.recording = self._began, self._writing
        self._run.left_out.on_left_out = self._left_out
        self._run.spark.streams.addListener(self)
        self._exporter.serve()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        # Spark reports a written batch a moment later: wait for that, but not after a signal.
        is_hurried = kind is not None and not issubclass(kind, Exception)
        until = time.monotonic() + (0.0 if is_hurried else DRAIN_SECONDS)
        while self._recorder.is_waiting and time.monotonic() < until:
            self._closing.wait(0.02)
        self._closing.set()
        self._thread.join(timeout=FOLD_SECONDS)
        self._recorder.close()
        with self._saying("the table of micro-batches"):
            self._recorder.fold()
        self._exporter.close(self._run.job)
        # What Spark has not reported yet, it reports when the session ends.
        if not (is_hurried or self._recorder.is_waiting):
            with suppress(Py4JError, OSError):  # the JVM may be gone
                self._run.spark.streams.removeListener(self)

    def _began(self, batch: Batch, run_id: str) -> None:
        """Note that a micro-batch is about to be written, and where a query stands that has finished none yet."""
        with self._saying("the beginning of a micro-batch"):
            self._recorder.note_begin(batch, run_id)
            spans = offsets_of_batch(batch.offsets)
            starts = {(span["topic"], span["partition"]): span["start"] or 0 for span in spans}
            self._positions.begin(self._recorder.job_of(batch.sink), batch.sink, starts)

    def _places(self, query: str) -> list[str]:
        outputs = [output for output in self._run.outputs if output.query == query]
        tables = [rows.table for output in outputs for rows in output.tables]
        return tables + [output.topic for output in outputs if output.topic]

    def _left_out(self, query: str, stop: TidemarkError) -> None:
        self._exporter.count_left_out(self._recorder.job_of(query), query, stop.code)

    def stopped(self, name: str, stop: TidemarkError, query: StreamingQuery | None) -> None:
        """Note what stopped a query, and with it the micro-batch that it was at; None for one that did not start."""
        self._exporter.count_stop(self._recorder.job_of(name), name, stop.code)
        if query is None:
            return
        run_id = str(query.runId)
        last = query.lastProgress
        # A batch may be done whose progress Spark has not reported yet.
        self._recorder.note_failure(run_id, -1 if last is None else last.batchId, stop)

    def ending(self) -> None:
        """Note that the run is about to end: its batches stop waiting (`Run.ending`), and it is no longer ready."""
        self._run.ending.set()
        self._exporter.is_ending = True

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802
        self._lines.onQueryStarted(event)
        name = event.name or str(event.id)
        self._names[str(event.runId)] = name
        job = self._recorder.job_of(name)
        promised = self._settings.jobs.get(job, Job()).fresh_within
        self._exporter.note_start(job, name, milliseconds(promised) / 1000 if promised else None, self._places(name))

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        with self._saying("the line of a micro-batch"):
            self._lines.onQueryProgress(event)
        key = (str(event.progress.runId), event.progress.batchId)
        with self._saying("the progress of a micro-batch"):
            if is_real_time(event.progress):
                self._began(self._real_time_batch(event.progress), key[0])
            # Query and start offsets were noted when the batch began: Spark's progress lacks them for the first one.
            self._recorder.note_written(key, count_published(event.progress))
            row = self._recorder.note_end(key, self._outcome(event.progress))
            self._exporter.add_row(row)
            tell_batch(row)
            positions = {(span["topic"], span["partition"]): span["end"] for span in row["offsets"]}
            self._positions.advance(row["job"], row["query"], positions)
        self._run.counted.pop((str(event.progress.id), event.progress.batchId), None)
        # This comes last: the end of the run waits for it.
        self._recorder.forget(key)

    def _real_time_batch(self, progress: StreamingQueryProgress) -> Batch:
        """Return a batch that Spark published in real time, which it reports only at its end."""
        (output,) = (output for output in self._run.outputs if output.query == progress.name)
        number = progress.batchId
        files = checkpoint.opening(self._run.spark, self._run.checkpoint(output), number)
        planned_at, offsets = (
            checkpoint_format.planned_at(files, number),
            checkpoint_format.batch_offsets(files, number),
        )
        identity = output.query, str(progress.id), number, planned_at, self._settings.paths.tables
        return Batch(output.frame, *identity, offsets)

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802
        self._lines.onQueryIdle(event)

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802
        self._lines.onQueryTerminated(event)
        name = self._names.pop(str(event.runId), None)
        # Spark may report the start of a query's next run before the end of its earlier one.
        if name is not None and name not in self._names.values():
            self._exporter.note_end(self._recorder.job_of(name), name)

    def _outcome(self, progress: StreamingQueryProgress) -> dict[str, Any]:
        """Return the columns that a finished micro-batch adds to its row of the table of micro-batches."""
        counted = counts_of(progress, self._run.counted.get((str(progress.id), progress.batchId)))
        operators = progress.stateOperators
        return {
            "began_at": datetime.fromisoformat(progress.timestamp),
            "ended_at": datetime.now(UTC),
            "outcome": "done",
            "lag": lag(progress),
            "late": sum(operator.numRowsDroppedByWatermark for operator in operators),
            "watermark": watermark_of(progress),
            "max_event_time": newest_event_time(progress),
            "state_rows": sum(operator.numRowsTotal for operator in operators) if operators else None,
            "state_bytes": sum(operator.memoryUsedBytes for operator in operators) if operators else None,
            "phases": {name: int(value) for name, value in progress.durationMs.items()},
        } | counts(counted)

    @contextmanager
    def _writing(self, batch: Batch) -> Iterator[None]:
        """Record a range, and count it in the metrics, which may be pushed at the end."""
        try:
            with self._recorder.writing(batch, "range") as row:
                yield
        except TidemarkError as stop:
            self._exporter.count_stop(self._recorder.job_of(batch.sink), batch.sink, stop.code)
            raise
        with self._saying("the metrics of a range"):
            self._exporter.add_row(row)

    def _work(self) -> None:
        """Do what needs the brokers or the table, away from the queries' threads."""
        folded = measured = time.monotonic()
        while not self._closing.wait(TICK_SECONDS):
            now = time.monotonic()
            with self._saying("consumer groups"):
                self._groups.commit(self._positions.known())
            if now - measured >= LAG_SECONDS and self._exporter.is_serving:
                measured = now
                self._measure_disks()
                with self._saying("where the queries stand"):
                    self._find_positions()
                with self._saying("the lag of partitions"):
                    self._exporter.set_lags(self._positions.measure())
                with self._saying("the open transactions of output topics and ledgers"):
                    topics = {topic for output in self._run.outputs for topic in output.topics}
                    self._exporter.set_unstable(self._positions.unstable(topics))
            if now - folded >= FOLD_SECONDS:
                folded = now
                with self._saying("the table of micro-batches"):
                    self._recorder.fold()
        with self._saying("consumer groups"):
            self._groups.commit(self._positions.known())

    def _find_positions(self) -> None:
        """Look up in its checkpoint where a query stands that has begun no batch since it was started.

        It may be idle, or wait for the registry or the topic's guard with its first one.
        """
        known = self._positions.known()
        started = set(self._names.values())
        for output in self._run.outputs:
            key = (self._recorder.job_of(output.query), output.query)
            if output.query in started and key not in known:
                spans = offsets_of_batch({"until": checkpoint.positions(self._run.spark, self._run.checkpoint(output))})
                topics = plan_analysis.topics_read(output.frame)
                # Offsets of a topic that the job no longer reads would stand still for ever.
                found = {(at["topic"], at["partition"]): at["end"] for at in spans if at["topic"] in topics}
                if found:
                    self._positions.begin(*key, found)

    def _measure_disks(self) -> None:
        """Measure what the disks of paths have left; an object store does not say."""
        for place, path in self._settings.paths:
            with suppress(OSError):
                if not urlsplit(path).scheme:
                    self._exporter.set_free_bytes(place, shutil.disk_usage(path).free)

    @contextmanager
    def _saying(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as exc:
            logger.exception("%s", what)
            if what not in self._said:
                self._said.add(what)
                line = str(exc).partition("\n")[0]
                print(f"note: {what}: {line}; the queries go on", file=sys.stderr, flush=True)
