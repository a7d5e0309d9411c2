"""A run of one job: the one place that knows settings, topics, schemas, tables and checkpoints.

A job's `build(run)` reads, transforms and declares outputs; nothing moves until `start`.
"""

from collections.abc import Callable, Mapping
from copy import copy
from functools import partial

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from conf.settings import Delivery, Settings
from jobs import publishing, state_store, streams
from jobs.connectors import delta, kafka, positions
from jobs.failures import in_one_line
from jobs.inputs import Inputs
from jobs.late.listing import LateRows
from jobs.outputs import Batch, Output, OutputMode, Replaceable, query_name, replaceable
from jobs.progress import Counted
from jobs.schema_guard import SchemaGuard


class Run(Inputs):
    """What a job's `build` works with: `Inputs`, and outputs that are declared."""

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        job: str,
        bounds: tuple[positions.Position, positions.Position] | None = None,
    ) -> None:
        super().__init__(spark, settings, job, bounds)
        self.outputs: list[Output] = []
        self.counted: dict[tuple[str, int], Counted] = {}
        self._tables: dict[str, delta.Table] = {}
        self._late: dict[str, LateRows] = {}

    def anew(self) -> "Run":
        """A run of the same job as a stream, with nothing declared yet, that counts where this one does."""
        run = copy(self)
        run.outputs, run._tables, run.schemas = [], {}, SchemaGuard(self.registry)
        return run

    def include(self, job: str, build: Callable[["Run"], None]) -> None:
        """Declare the outputs of another job in this run, under that job's name, checkpoints and settings."""
        including, self._job = self._job, job
        try:
            build(self)
        finally:
            self._job = including

    def append(
        self, frame: DataFrame, table: str, partition_by: tuple[str, ...] = (), event_time: str | None = None
    ) -> None:
        """Append the rows of `frame` to a Delta table, exactly once; a windowed frame gives its closed windows.

        Args:
            event_time: see `upsert`.
        """
        rows = replaceable(frame, table, (), event_time)
        self.write(frame, table, partial(self._write_table, table, partition_by=partition_by), "append", (rows,))

    def upsert(
        self,
        frame: DataFrame,
        table: str,
        keys: tuple[str, ...],
        newest_by: tuple[str, ...] = (),
        event_time: str | None = None,
    ) -> None:
        """Merge the rows of `frame` into a Delta table by `keys`, exactly once; open windows are written too.

        Args:
            event_time: the column, timestamp or date, that tells the event time of a row (of a window, its start): a
                replay replaces rows by it. Left out, it is the only such column among the keys, or of all columns.
        """
        rows = replaceable(frame, table, keys, event_time)
        self.write(frame, table, partial(self._write_table, table, keys=keys, newest_by=newest_by), "update", (rows,))

    def publish(
        self,
        frame: DataFrame,
        topic: str,
        delivery: Delivery | None = None,
        mode: publishing.Mode = "direct",
        output_mode: OutputMode = "append",
    ) -> None:
        """Write `frame` (columns value, and key, headers, partition if there are any) to a topic.

        Of a range the records go into a table of the topic's name: a live topic is no place to try out the past.

        Args:
            delivery: the settings' (of this job, then of all), where it is left out; see `jobs.publishing`.
            mode: "outbox" freezes each micro-batch in a table first, for plans that give other rows when run again.
        """
        if self.is_apart:
            kafka.check_output(frame, topic)
            to_table = partial(self._write_table, topic)
            self.write(frame, topic, to_table, output_mode, (Replaceable(topic),), topic)
            return
        self.write(frame, topic, self._to_topic(frame, topic, topic, delivery, mode), output_mode, (), topic)

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
            as_records: makes the topic's records, as `publish` takes them, of the table's rows.
            event_time: see `upsert`.
        """
        to_table = partial(self._write_table, table, keys=keys, newest_by=newest_by)
        mode: OutputMode = "update" if keys else "append"
        rows = (replaceable(frame, table, keys, event_time),)
        if self.is_apart:
            self.write(frame, table, to_table, mode, rows)
            self.publish(as_records(frame), topic, output_mode=mode)
            return
        to_topic = self._to_topic(as_records(frame), table, topic, delivery, "direct")
        self.write(frame, table, publishing.InTurn(to_table, to_topic, as_records), mode, rows, topic)

    def _to_topic(
        self, records: DataFrame, name: str, topic: str, delivery: Delivery | None, mode: publishing.Mode
    ) -> Callable[[Batch], None]:
        kafka.check_output(records, topic)
        kafka.require_topics(self.settings.kafka, [topic])
        wanted = self.job_settings(self._job).delivery or delivery or self.settings.sink.delivery
        return publishing.writer(self.settings, query_name(self._job, name), records, topic, wanted, mode)

    def write(
        self,
        frame: DataFrame,
        name: str,
        write: Callable[[Batch], None],
        mode: OutputMode = "append",
        tables: tuple[Replaceable, ...] = (),
        topic: str | None = None,
    ) -> None:
        """Declare an output of your own: `write` gets every micro-batch (or the range), and must bear a second call.

        Args:
            tables, topic: what it writes, for replays.
        """
        self.outputs.append(Output(self._job, name, frame, write, mode, tables, topic))

    @property
    def is_apart(self) -> bool:
        """Whether outputs go to places of their own, and records for topics into tables: the past is tried out."""
        return self._ranges is not None

    def count(self, batch: Batch, records: int, rejected: int, failed: Mapping[str, int]) -> None:
        """Report what an output of your own read and rejected in `batch`, to be shown with the batch's progress."""
        self.counted[batch.query_id, batch.version] = Counted(records, rejected, failed)

    def table(
        self, name: str, keys: tuple[str, ...] = (), newest_by: tuple[str, ...] = (), partition_by: tuple[str, ...] = ()
    ) -> delta.Table:
        """The Delta table `name` under the tables root; for a range, once `build` has read its topics."""
        self._tables[name] = delta.Table(name, f"{self.tables_root}/{name}", keys, newest_by, partition_by)
        return self._tables[name]

    @property
    def tables_root(self) -> str:
        """Where tables lie: a range has a folder of its own there, and leaves the live tables alone."""
        root = self.settings.paths.tables
        return f"{root}/{self._ranges.id}" if self._ranges else root

    def checkpoint(self, output: Output) -> str:
        """The checkpoint folder of `output`."""
        return f"{self.settings.paths.checkpoints}/{output.job}/{output.name}"

    def start(self, continuous: bool, only: str = "") -> list[StreamingQuery]:
        """Start every declared output (or the one query `only`); without `continuous` each ends when caught up."""
        declared = [(each, self.checkpoint(each)) for each in self._declared() if only in ("", each.query)]
        return [self._start(each, folder, continuous) for each, folder in declared]

    def _start(self, output: Output, folder: str, continuous: bool) -> StreamingQuery:
        late = self._late[folder] = LateRows(self.spark, self.settings, output, folder, self.tables_root)
        return streams.start(self.spark, self.settings, output, folder, continuous, self.schemas, late)

    def settle(self) -> None:
        """List what the last micro-batch of each query dropped, once all have ended well."""
        for late in self._late.values():
            in_one_line(late.settle)

    def adopt(self) -> list[str]:
        """Bring the ledgers of all outputs to topics and their checkpoints together again; lines on what was done."""
        lines = []
        for output in self._declared():
            ledger = publishing.ledger_of(output.write)
            lines += ledger.adopt(self.spark, self.checkpoint(output)) if ledger else []
        return lines or ["no output of this job has a ledger: there is nothing to adopt"]

    def write_range(self) -> list[str]:
        """Write every declared output once, over the whole range; a range written before is left as it is.

        Returns:
            a line for each topic that was read, and for each table with the rows it holds now.
        """
        if self._ranges is None:
            raise ValueError("a run without bounds has no range")
        id, offsets, attempt = self._ranges.id, self._ranges.offsets, delta.Attempt()
        for output in self._declared():
            state_store.configure(self.spark, self.settings.spark, self.job_settings(output.job))
            batch = Batch(output.frame, output.query, id, 0, self._began, offsets, attempt=attempt)
            in_one_line(partial(output.write, batch))
        return [*self._ranges.lines(), *map(self._line, self._tables.values())]

    def _line(self, table: delta.Table) -> str:
        return f"{table.name:<28} {self.spark.read.format('delta').load(table.path).count():,} rows  {table.path}"

    def _declared(self) -> list[Output]:
        if not self.outputs:
            raise TidemarkError("NO_OUTPUT", f"job {self._job} writes nothing", "see its settings, or its build()")
        return self.outputs

    def _write_table(self, name: str, batch: Batch, **how: tuple[str, ...]) -> None:
        delta.write(batch.frame, self.table(name, **how), batch.commit("write"))
