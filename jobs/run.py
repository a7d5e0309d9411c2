"""A run of one job: the one place that knows settings, topics, schemas, tables and checkpoints.

A job's `build(run)` reads, transforms and declares outputs; nothing moves until `start`.
"""

from collections.abc import Callable, Mapping
from copy import copy
from datetime import UTC, datetime
from functools import partial
from threading import Event

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from conf.settings import Delivery, Job, Settings, Source
from conf.topics import Topic, find_topic, load_topics
from jobs import personal, publishing, state_store, streams
from jobs.connectors import avro, delta, kafka, positions
from jobs.failures import in_one_line
from jobs.judge import Judge, rules_of
from jobs.outputs import Batch, Output, OutputMode, query_name
from jobs.progress import REJECTED, Counted
from jobs.ranges import Ranges
from jobs.schema_guard import SchemaGuard
from schemas.patience import Patience
from schemas.registry import RegisteredSchema, Registry, open_registry
from schemas.subjects import stream_of, subject_of_stream


class Run:
    """What a job's `build` works with.

    Batches wait for a schema registry that is down until `ending` is set.

    Args:
        bounds: None for a stream; positions `(start, end)` for a bounded batch over the topics that the job reads.
    """

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        job: str,
        bounds: tuple[positions.Position, positions.Position] | None = None,
    ) -> None:
        self.spark = spark
        self.settings = settings
        self.ending = Event()
        self.registry: Registry = open_registry(settings.registry, Patience(once_answered=True, ending=self.ending))
        self.topics: dict[str, Topic] = load_topics()
        self.judge = Judge(settings, self.registry, self.topics, rules_of(self.topics, settings.ingest.topics))
        self.outputs: list[Output] = []
        self.counted: dict[tuple[str, int], Counted] = {}
        self._job = job
        self._began = datetime.now(UTC)
        self._ranges = Ranges(settings.kafka, *bounds) if bounds else None
        self._tables: dict[str, delta.Table] = {}
        self._schemas = SchemaGuard(self.registry)

    def anew(self) -> "Run":
        """A run of the same job as a stream, with nothing declared yet, that counts where this one does."""
        run = copy(self)
        run.outputs, run._tables, run._schemas = [], {}, SchemaGuard(self.registry)
        return run

    def include(self, job: str, build: Callable[["Run"], None]) -> None:
        """Declare the outputs of another job in this run, under that job's name, checkpoints and settings."""
        including, self._job = self._job, job
        try:
            build(self)
        finally:
            self._job = including

    def records(self, topic: str) -> DataFrame:
        """The records of `topic` as they are, in Kafka's eight columns."""
        kafka.require_topics(self.settings.kafka, [topic])
        subscription = kafka.Subscription((topic,))
        if self._ranges is None:
            return kafka.read_stream(self.spark, self.settings.kafka, self._source(), subscription)
        start, end = self._ranges.of(topic)
        return kafka.read_batch(self.spark, self.settings.kafka, self._source(), subscription, start, end)

    def decode(self, records: DataFrame, topic: str, event: str | None = None) -> DataFrame:
        """The verdicts on `records`, of `Judge.decide`; rejects are counted, and shown with each micro-batch.

        Of a topic with several types of events, those that are not `event` are left out.
        """
        stream = stream_of(topic, event, self.topics)
        for each in self.judge.streams(topic):
            self._schemas.remember(topic, subject_of_stream(each))
        decided = self.judge.decide(records, stream, self.clock(self._began if self._ranges else None))
        observer = self._ranges.observation(topic) if self._ranges else f"decode {topic}"
        return decided.observe(observer, F.count_if(F.col("error").isNotNull()).alias(REJECTED))

    def clock(self, planned_at: datetime | None) -> Column:
        """What event times are compared with: `quarantine.as_of`, or when a batch was planned.

        Args:
            planned_at: None for a stream that is only declared; Spark puts in the time of each micro-batch.
        """
        fixed = self.settings.quarantine.as_of or planned_at
        return F.lit(fixed) if fixed else F.current_timestamp()

    def read(self, topic: str, event: str | None = None) -> DataFrame:
        """The events of `topic`, its schema's fields as columns, personal data protected.

        Rejects are counted here, and kept by `ingest`.

        Args:
            event: which, of a topic with several types of events.
        """
        protect = self.protection(stream_of(topic, event, self.topics))
        return protect(avro.accepted(self.decode(self.records(topic), topic, event)))

    def protection(self, stream: str) -> personal.Protection:
        """What treats the fields of a stream's events that its newest schema marks as personal.

        Raises:
            TidemarkError: BAD_SCHEMA or NO_HASH_KEY.
        """
        text = self.registry.latest(subject_of_stream(stream)).text
        key = self.topics[stream].compaction_key if stream in self.topics else None
        return personal.protection(self.spark, stream, text, key, self.settings.personal_data)

    def append(self, frame: DataFrame, table: str, partition_by: tuple[str, ...] = ()) -> None:
        """Append the rows of `frame` to a Delta table, exactly once; a windowed frame gives its closed windows."""
        self.write(frame, table, partial(self._write_table, table, partition_by=partition_by), "append")

    def upsert(self, frame: DataFrame, table: str, keys: tuple[str, ...], newest_by: tuple[str, ...] = ()) -> None:
        """Merge the rows of `frame` into a Delta table by `keys`, exactly once; open windows are written too."""
        self.write(frame, table, partial(self._write_table, table, keys=keys, newest_by=newest_by), "update")

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
        if self._ranges:
            kafka.check_output(frame, topic)
            self.append(frame, topic)
            return
        self.write(frame, topic, self._to_topic(frame, topic, topic, delivery, mode), output_mode)

    def write_and_publish(
        self,
        frame: DataFrame,
        table: str,
        topic: str,
        as_records: Callable[[DataFrame], DataFrame],
        keys: tuple[str, ...] = (),
        newest_by: tuple[str, ...] = (),
        delivery: Delivery | None = None,
    ) -> None:
        """Write each micro-batch to a Delta table (append, or upsert by `keys`) and to a topic: both or none.

        The table comes first. A batch that was cut short between the two is run again: the table has it already, and
        the topic gets what it lacks.

        Args:
            as_records: makes the topic's records, as `publish` takes them, of the table's rows.
        """
        to_table = partial(self._write_table, table, keys=keys, newest_by=newest_by)
        mode: OutputMode = "update" if keys else "append"
        if self._ranges:
            self.write(frame, table, to_table, mode)
            self.publish(as_records(frame), topic)
            return
        to_topic = self._to_topic(as_records(frame), table, topic, delivery, "direct")
        self.write(frame, table, publishing.InTurn(to_table, to_topic, as_records), mode)

    def _to_topic(
        self, records: DataFrame, name: str, topic: str, delivery: Delivery | None, mode: publishing.Mode
    ) -> Callable[[Batch], None]:
        kafka.check_output(records, topic)
        kafka.require_topics(self.settings.kafka, [topic])
        wanted = self._job_settings(self._job).delivery or delivery or self.settings.sink.delivery
        return publishing.writer(self.settings, query_name(self._job, name), records, topic, wanted, mode)

    def write(self, frame: DataFrame, name: str, write: Callable[[Batch], None], mode: OutputMode = "append") -> None:
        """Declare an output of your own: `write` gets every micro-batch (or the range), and must bear a second call."""
        self.outputs.append(Output(self._job, name, frame, write, mode))

    def count(self, batch: Batch, records: int, rejected: int, failed: Mapping[str, int]) -> None:
        """Report what an output of your own read and rejected in `batch`, to be shown with the batch's progress."""
        self.counted[batch.query_id, batch.version] = Counted(records, rejected, failed)

    def latest_schema(self, topic: str, event: str | None = None) -> RegisteredSchema:
        """The newest registered schema of the topic's values, to encode by."""
        find_topic(topic, self.topics)
        return self.registry.latest(subject_of_stream(stream_of(topic, event, self.topics)))

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
        how = continuous, self._schemas
        return [streams.start(self.spark, self.settings, each, folder, *how) for each, folder in declared]

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
            state_store.configure(self.spark, self.settings.spark, self._job_settings(output.job))
            batch = Batch(output.frame, output.query, id, 0, self._began, offsets, attempt=attempt)
            in_one_line(partial(output.write, batch))
        return [*self._ranges.lines(), *map(self._line, self._tables.values())]

    def _line(self, table: delta.Table) -> str:
        return f"{table.name:<28} {self.spark.read.format('delta').load(table.path).count():,} rows  {table.path}"

    def _declared(self) -> list[Output]:
        if not self.outputs:
            raise TidemarkError("NO_OUTPUT", f"job {self._job} writes nothing", "see its settings, or its build()")
        return self.outputs

    def _job_settings(self, job: str) -> Job:
        return self.settings.jobs.get(job, Job())

    def _source(self) -> Source:
        limit = self._job_settings(self._job).max_offsets_per_trigger
        return self.settings.source.model_copy(update={"max_offsets_per_trigger": limit} if limit else {})

    def _write_table(self, name: str, batch: Batch, **how: tuple[str, ...]) -> None:
        delta.write(batch.frame, self.table(name, **how), batch.commit("write"))
