"""Defines a run of one job: the one place that knows settings, topics, schemas, tables and checkpoints.

A job's `build(run)` reads, transforms and declares outputs; nothing moves until `start`.
"""

import sys
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import replace
from functools import partial

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from conf.sections import Delivery
from conf.settings import Settings
from jobs.connectors.delta import table as delta_table
from jobs.connectors.kafka import offsets as kafka_offsets
from jobs.connectors.kafka import source_sink
from jobs.connectors.kafka.access import Right
from jobs.pipeline import checkpoint, paths, plan_analysis, query, state_store, topic_sink
from jobs.pipeline.errors import with_rights
from jobs.pipeline.guards import SchemaGuard
from jobs.pipeline.late_rows import LateRows
from jobs.pipeline.outputs import (
    Batch,
    FunctionOutput,
    OnBatch,
    Output,
    OutputMode,
    Recording,
    RowSelector,
    TableOutput,
    event_time_column,
    query_name,
    require_columns,
)
from jobs.pipeline.progress import Counted, counting_published
from jobs.pipeline.sources import Sources
from jobs.pipeline.termination import OUTAGES, LeftOut, single_line_errors, topics_refused
from jobs.pipeline.topic_sink import TableThenTopic, TopicOutput


class Run(Sources):
    """A job's `build` gets one: it reads from its topics (`Sources`) and declares outputs."""

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        job: str,
        bounds: tuple[kafka_offsets.Position, kafka_offsets.Position] | None = None,
    ) -> None:
        super().__init__(spark, settings, job, bounds)
        self.outputs: list[Output] = []
        self.counted: dict[tuple[str, int], Counted] = {}
        self.on_batch: OnBatch = lambda batch, run_id: None
        self.left_out = LeftOut()
        self.recording: Recording = lambda batch: nullcontext()
        self._tables: dict[str, delta_table.Table] = {}
        self._late: dict[str, LateRows] = {}

    def fresh_copy(self) -> "Run":
        """Return a new run of the same job as a stream: nothing is declared yet, and both count into the same place."""
        run = copy(self)
        run.outputs, run._tables, run.schemas = [], {}, SchemaGuard(self.registry)
        run._decodings = Counter()
        run.left_out = LeftOut(self.left_out.is_allowed)
        return run

    def under_name(self, job: str, build: Callable[["Run"], None]) -> None:
        """Declare the outputs of another job in this run, under that job's name, checkpoints and settings."""
        including, self.job = self.job, job
        try:
            build(self)
        finally:
            self.job = including

    def append(
        self, frame: DataFrame, table: str, partition_by: tuple[str, ...] = (), event_time: str | None = None
    ) -> None:
        """Append the rows of `frame` to a Delta table, exactly once; a windowed frame gives its closed windows.
        `event_time`: see `upsert`."""
        output = self._table_output(frame, table, (), (), event_time)
        self.declare(replace(output, partition_by=partition_by))

    def upsert(
        self,
        frame: DataFrame,
        table: str,
        keys: tuple[str, ...],
        newest_by: tuple[str, ...] = (),
        event_time: str | None = None,
    ) -> None:
        """Merge the rows of `frame` into a Delta table by `keys`, exactly once; open windows are written too.

        If a micro-batch has a key twice, the newest row stays: by `newest_by`, or, where `frame` is made of one
        topic's records one by one, by their offsets. Where neither tells, the micro-batch stops by KEY_REPEATED.

        Args:
            newest_by: columns whose greatest values make a row the newest (NaN is the greatest, null the least).
            event_time: the column, timestamp or date, that tells the event time of a row (of a window, its start): a
                replay replaces rows by it. Left out, it is the only such column among the keys, or of all columns.
        """
        self.declare(self._table_output(frame, table, keys, newest_by, event_time))

    def publish(
        self,
        frame: DataFrame,
        topic: str,
        delivery: Delivery | None = None,
        mode: topic_sink.Mode = "direct",
        output_mode: OutputMode = "append",
    ) -> None:
        """Write `frame` (columns value, and key, headers, partition, timestamp if there are any) to a topic.

        `timestamp` is the record's time; null means the time of publishing. Left out, it is the event time that the
        topic is declared with, read out of `value`. Spark's own sink (at-least-once, real-time) takes none.

        A range writes its records into a table of the topic's name: the past is not tried out in a live topic.

        Args:
            delivery: the settings' (of this job, then of all), where it is left out; see `jobs.pipeline.topic_sink`.
            mode: "outbox" freezes each micro-batch in a table first, for plans that give other rows when run again.
        """
        frame = self._timing(frame, topic, delivery)(frame)
        if self.is_apart:
            self.declare(TableOutput(self.job, topic, frame, output_mode, RowSelector(topic), topic))
            return
        if self._delivery(delivery) in topic_sink.AT_LEAST_ONCE:
            frame = counting_published(frame, topic)
        self.declare(self._topic_output(frame, topic, topic, delivery, mode, output_mode))

    def write_and_publish(
        self,
        frame: DataFrame,
        table: str,
        topic: str,
        as_records: Callable[[DataFrame], DataFrame],
        keys: tuple[str, ...] = (),
        newest_by: tuple[str, ...] = (),
        delivery: Delivery | None = None,
        event_time: str | None = None,
    ) -> None:
        """Write each micro-batch to a Delta table (append, or upsert by `keys`) and to a topic: both or none.

        The table comes first. A batch that was cut short between the two is run again: the table has it already, and
        the topic gets what it lacks.

        Args:
            as_records: makes the topic's records, as `publish` takes them, of the table's rows; if a key comes twice,
                the topic gets both.
            keys, newest_by, event_time: see `upsert`.
        """
        to_table = self._table_output(frame, table, keys, newest_by, event_time)
        if self.is_apart:
            self.declare(to_table)
            self.publish(as_records(frame), topic, output_mode=to_table.mode)
            return

        if self._delivery(delivery) == "real-time":
            why = f"it writes table {table} with each batch, too"
            raise topic_sink.not_real_time(self.job, topic, why, f"publish to {topic} in a job of its own")
        timed = self._timing(as_records(frame), topic, delivery)

        def timed_records(written: DataFrame) -> DataFrame:
            return timed(as_records(written))

        # What is declared of the records is checked here, with the rows of the table in their place afterwards.
        to_topic = self._topic_output(timed_records(frame), table, topic, delivery, "direct", to_table.mode)
        declared = self.job, table, frame, to_table.mode, to_table.rows, topic, to_topic.delivery
        self.declare(TableThenTopic(*declared, settings=self.settings, to_table=to_table, as_records=timed_records))

    def _table_output(
        self, frame: DataFrame, table: str, keys: tuple[str, ...], newest_by: tuple[str, ...], event_time: str | None
    ) -> TableOutput:
        require_columns(frame, table, keys, newest_by)
        rows = RowSelector(table, keys, event_time_column(frame, table, keys, event_time))
        repeats = plan_analysis.repeats(frame, keys) if keys else "none"
        mode: OutputMode = "update" if keys else "append"
        return TableOutput(self.job, table, frame, mode, rows, newest_by=newest_by, repeats=repeats)

    def _topic_output(
        self,
        records: DataFrame,
        name: str,
        topic: str,
        delivery: Delivery | None,
        how: topic_sink.Mode,
        mode: OutputMode,
    ) -> TopicOutput:
        source_sink.check_output(records, topic)
        output = TopicOutput(
            self.job, name, records, mode, None, topic, self._delivery(delivery), how, settings=self.settings
        )
        output.require_publishable()
        return output

    def _delivery(self, declared: Delivery | None) -> Delivery:
        return self.job_settings(self.job).delivery or declared or self.settings.sink.delivery

    def _timing(self, records: DataFrame, topic: str, delivery: Delivery | None) -> Callable[[DataFrame], DataFrame]:
        """Returns a function that gives frames like `records` the event time that `topic` is declared with.

        It leaves frames that have a `timestamp` as they are. The registry is asked here, not with each micro-batch.
        """
        source_sink.check_output(records, topic)
        declared = self.topics.get(topic)
        if declared is None or not declared.event_time or source_sink.TIMESTAMP in records.columns:
            return lambda frame: frame
        if self._delivery(delivery) in topic_sink.AT_LEAST_ONCE:
            what = f"event_time of topic {topic} is not its records' timestamp"
            why = "with at-least-once and real-time, which are Spark's own sink, that is the time of publishing"
            print(f"note: {what}: {why}", file=sys.stderr, flush=True)
            return lambda frame: frame
        versions = self.validator.versions(topic)
        return partial(topic_sink.with_event_time, field=declared.event_time, versions=versions)

    def declare(self, output: Output) -> None:
        """Declare an output of a class of your own."""
        self.outputs.append(output)

    def do_without(self, failures: Mapping[str, TidemarkError], topics: Sequence[str], setting: str) -> None:
        """Go on without those of `topics` that cannot be read, each an output of this job and of its own.

        Args:
            failures: why, by topic.
            setting: the one that lists `topics`.

        Raises:
            TidemarkError: where nothing would be left, where one of them never ran, and in a run that may not leave
                anything out: with the failures of all.
        """
        folders = (paths.checkpoint(self.settings.paths, self.job, topic) for topic in failures)
        may = self.left_out.is_allowed and len(failures) < len(topics)
        if failures and not (may and all(checkpoint.has_begun(self.spark, folder) for folder in folders)):
            raise topics_refused(failures, topics, setting)
        for topic, stop in failures.items():
            self.left_out.add(query_name(self.job, topic), stop)

    def write(
        self,
        frame: DataFrame,
        name: str,
        write: Callable[[Batch], None],
        mode: OutputMode = "append",
        tables: tuple[RowSelector, ...] = (),
        topic: str | None = None,
    ) -> None:
        """Declare an output of your own: `write` gets every micro-batch (or the range), and must be idempotent.

        Args:
            tables, topic: what it writes, for replays.
        """
        self.declare(FunctionOutput(self.job, name, frame, mode, topic=topic, function=write, tables=tables))

    def rights(self) -> list[Right]:
        """Return the rights on the brokers that the declared outputs of a stream need together."""
        return [right for output in self.outputs for right in output.rights(self.settings)]

    @property
    def is_apart(self) -> bool:
        """Return whether the past is tried out: outputs go to places of their own, records for topics into tables."""
        return self._ranges is not None

    def count(self, batch: Batch, counted: Counted) -> None:
        """Report what an output of your own read and rejected in `batch`, to be shown with the batch's progress."""
        self.counted[batch.query_id, batch.version] = counted

    def table(
        self,
        name: str,
        keys: tuple[str, ...] = (),
        newest_by: tuple[str, ...] = (),
        sequence: tuple[str, str] | None = None,
    ) -> delta_table.Table:
        """Return the Delta table `name` under the tables root; for a range, once `build` has read its topics."""
        path = paths.table(self.tables_root, name)
        self._tables[name] = delta_table.Table(name, path, keys, newest_by, sequence=sequence)
        return self._tables[name]

    @property
    def tables_root(self) -> str:
        """Return the folder of the run's tables. A range has its own below the live tables, and leaves those alone."""
        live = self.settings.paths.tables
        return paths.table(live, self._ranges.id) if self._ranges else live

    def checkpoint(self, output: Output) -> str:
        """Return the checkpoint folder of `output`."""
        return paths.checkpoint(self.settings.paths, output.job, output.name)

    def start(self, continuous: bool, only: str = "") -> list[StreamingQuery]:
        """Start every declared output (or the one query `only`); without `continuous` each ends when caught up."""
        started = (start() for start in self.starts(continuous, only).values())
        return [query for query in started if query is not None]

    def starts(self, continuous: bool, only: str = "") -> dict[str, Callable[[], StreamingQuery | None]]:
        """Open all outputs, and return by each query's name what starts it as `start` does, or leaves it out.

        Raises:
            TidemarkError: what `Output.open` raises; why the query `only` is left out; BAD_SETTING, where a run that is
                to catch up would leave records because they are fewer than `min_offsets_per_trigger`.
        """
        if not continuous:
            self._require_no_waiting()
        self.left_out.require_included(only)
        outputs = [output for output in self._declared() if only in ("", output.query)]
        if continuous:
            query.require_slots(self.spark, self.settings.kafka, self.outputs)
        for output in outputs:
            output.open()
        start = self._start if only else self._start_or_leave_out
        if not only:
            self.left_out.report()
        return {output.query: partial(start, output, self.checkpoint(output), continuous) for output in outputs}

    def _require_no_waiting(self) -> None:
        for job in sorted({output.job for output in self.outputs}):
            if least := self.settings.source_of(job).min_offsets_per_trigger:
                message = f"a run of {job} that ends when it is caught up would leave the last records unread"
                why = f"its batches wait for {least:,} (min_offsets_per_trigger)"
                raise TidemarkError("BAD_SETTING", f"{message}: {why}", "give the run `settings.without_waiting()`")

    def _start_or_leave_out(self, output: Output, folder: str, continuous: bool) -> StreamingQuery | None:
        """Start the query of `output`; None for an independent one that cannot start and may be left out."""
        try:
            return self._start(output, folder, continuous)
        except TidemarkError as stop:
            if not (self.left_out.is_allowed and output.is_independent) or stop.code in OUTAGES:
                raise
            self.left_out.add(output.query, stop)
            self.left_out.report(output.query)
            return None

    def _start(self, output: Output, folder: str, continuous: bool) -> StreamingQuery:
        if continuous and isinstance(output, TopicOutput) and output.is_real_time:
            require_slots = partial(query.require_slots, self.spark, self.settings.kafka, self.outputs)
            return query.start_real_time_query(self.spark, self.settings, output, folder, self.schemas, require_slots)
        late = self._late[folder] = LateRows(self.spark, self.settings, output, folder, self.tables_root)
        observers = late, self.on_batch, self.counted
        return query.start_query(
            self.spark, self.settings, output, folder, continuous, self.schemas, *observers, self.skips_lost
        )

    def settle(self, failed: Container[str] = ()) -> None:
        """List what the last micro-batch of each query dropped, once all but the `failed` have ended well."""
        for late in self._late.values():
            if late.query not in failed:
                with single_line_errors():
                    late.settle()

    def adopt(self) -> list[str]:
        """Bring ledgers and checkpoints of all outputs to topics together again; return lines on what was done."""
        lines: list[str] = []
        for output in self._declared():
            output.open()
            if isinstance(output, TopicOutput) and output.keeps_ledger:
                lines += output.adopt(self.spark, self.checkpoint(output))
        return lines or ["no output of this job has a ledger: there is nothing to adopt"]

    def write_range(self) -> list[str]:
        """Write every declared output once, over the whole range; a range written before is left as it is.

        Returns:
            a line for each topic that was read, and for each table with the rows it holds now.
        """
        if self._ranges is None:
            raise ValueError("a run without bounds has no range")
        id, offsets, attempt = self._ranges.id, self._ranges.offsets, delta_table.Attempt()
        for output in self._declared():
            state_store.configure(self.spark, self.settings.spark, self.job_settings(output.job))
            root = self.tables_root
            batch = Batch(output.frame, output.query, id, 0, self._began, root, offsets, attempt=attempt)
            tell = partial(with_rights, connection=self.settings.kafka.client_config(), read=self._ranges.topics)
            with self.recording(batch), single_line_errors(tell):
                output.write(batch)
            if output.table:
                self.table(output.table)
        rows = [(table, delta_table.read(self.spark, table.path).count()) for table in self._tables.values()]
        return [*self._ranges.lines(), *(f"{table.name:<28} {count:,} rows  {table.path}" for table, count in rows)]

    def _declared(self) -> list[Output]:
        if not self.outputs:
            raise TidemarkError("NO_OUTPUT", f"job {self.job} writes nothing", "see its settings, or its build()")
        return self.outputs


class DeclaredRun(Run):
    """Takes what a job declares, and asks no broker whether its topics are there."""

    def records(self, topic: str) -> DataFrame:
        subscription = source_sink.Subscription((topic,))
        return source_sink.read_stream(self.spark, self.settings.kafka, self._source(), subscription)
