"""Defines what a job declares, an output, and what an output writes, a batch.

An output is data with one method, `write`: other code reads its fields to know what it is.
Outputs that are topics are in `jobs.pipeline.topic_sink`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal, Self

from pyspark.sql import DataFrame

from conf.errors import TidemarkError, nearest
from conf.settings import Settings
from jobs.connectors.delta import table as delta_table
from jobs.connectors.kafka.access import Right, publishing
from jobs.connectors.tally import Tally
from jobs.pipeline import paths, plan_analysis
from jobs.pipeline.checkpoint_format import topic_offsets

OutputMode = Literal["append", "update", "complete"]


def query_name(job: str, output: str) -> str:
    """Return the name of the query that feeds an output: the job's own, where both have the same name."""
    return job if output == job.rsplit(".", 1)[-1] else f"{job}.{output}"


def group_of(settings: Settings, query: str) -> str:
    """Return the group that shows the lag of a query: the installation's name, then the query's."""
    return f"{settings.ledger.application}.{query}"


def reading_rights(settings: Settings, topics: Iterable[str], query: str) -> list[Right]:
    """Return the rights that reading needs; none on the groups of Spark's consumers, which join none."""
    rights = [Right("topic", topic, ("Read",)) for topic in topics]
    if settings.source.commit_to_group:
        without = "its lag in tools that show that of groups (source.commit_to_group)"
        rights.append(Right("group", group_of(settings, query), ("Read",), without=without))
    return rights


@dataclass(frozen=True)
class Batch:
    """A micro-batch, or a whole range, as an output writes it; one that is run again is another Batch.

    Args:
        planned_at: when Spark fixed the micro-batch's offsets, or the range was begun; one that is run again keeps it.
        tables_root: where its tables lie.
        files: the texts of the checkpoint's files that fix a micro-batch, by path in it; none for a range.
        keeps_state: whether the query keeps state in its checkpoint.
        tally: takes the rows and the time of each write.
        may_lack: whether records of it may be gone that an earlier attempt at it has read.
    """

    frame: DataFrame
    sink: str
    query_id: str
    version: int
    planned_at: datetime
    tables_root: str
    offsets: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    attempt: delta_table.Attempt = field(default_factory=delta_table.Attempt, compare=False, repr=False)
    keeps_state: bool = False
    tally: Tally = field(default_factory=Tally, compare=False, repr=False)
    may_lack: bool = False

    def commit(self, statement: str, contiguous: bool = True, delete_predicate: str = "") -> delta_table.Commit:
        """Identify a write, which `delta.write` makes once: `statement` names it among the batch's into one table.

        Args:
            contiguous: False for a statement that leaves batches out, as one that writes only when there are rejects.
            delete_predicate: see `delta.Commit`.
        """
        identity = self.sink, self.query_id, statement, self.version, self.offsets
        return delta_table.Commit(*identity, contiguous, delete_predicate, self.attempt, self.keeps_state, self.tally)

    def starts(self, topic: str) -> dict[int, int]:
        """Return the batch's first offset in each partition of `topic`; none where the checkpoint no longer says."""
        sources = self.offsets.get("from")
        of_topic = [topic_offsets(at).get(topic, {}) for at in sources] if isinstance(sources, list) else []
        return {partition: offset for at in of_topic for partition, offset in at.items()}


# Called with each micro-batch before it is written, and the id of the query's run.
OnBatch = Callable[[Batch, str], object]
# What is entered while a range, or a slice of a replay, is written.
Recording = Callable[[Batch], AbstractContextManager[object]]


@dataclass(frozen=True)
class RowSelector:
    """Which rows of a table a range of records makes: by event time, or by the record's coordinates.

    Without either of them, those rows cannot be selected, and a replay leaves the table as it is.

    Args:
        keys: one row a key, where the table is merged into.
        event_time: the column, timestamp or date, that tells the event time of a row: for a window, its start.
        coordinates: the columns of topic, partition and offset, where a row is made of one record.
        stamps: columns that say when or by which code a row was written: they may differ between two runs.
    """

    table: str
    keys: tuple[str, ...] = ()
    event_time: str | None = None
    coordinates: tuple[str, str, str] | None = None
    stamps: tuple[str, ...] = ()

    @property
    def can_select(self) -> bool:
        """Return whether the rows of a range can be selected among others."""
        return self.event_time is not None or self.coordinates is not None

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return the selector that `dataclasses.asdict` made `fields` of, be it by way of JSON."""
        tuples = {name: tuple(value) for name, value in fields.items() if isinstance(value, list | tuple)}
        return cls(**{**fields, **tuples})


@dataclass(frozen=True)
class Output(ABC):
    """A declared output: it writes every micro-batch of the stream `frame`, or the whole range at once.

    Args:
        rows: of the table whose rows are the rows of `frame`; None for an output that has none, or makes other rows.
        topic: that is published to; None for none.

    Attributes:
        is_independent: whether a run's other outputs go on where this one's query cannot start, or fails before their
            turn.
        counts_itself: whether it reports what it read of each batch (`Run.count`), which else Spark counts, and of a
            batch that is computed for several writes the first.
    """

    is_independent: ClassVar[bool] = False
    counts_itself: ClassVar[bool] = False
    job: str
    name: str
    frame: DataFrame
    mode: OutputMode = "append"
    rows: RowSelector | None = None
    topic: str | None = None

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Write `batch` so that one that is run again changes nothing."""

    def open(self) -> None:
        """Check, before the first batch, that the output can be written. A table needs no check."""
        return

    def rights(self, settings: Settings) -> list[Right]:
        topics = sorted(set(plan_analysis.topics_read(self.frame)))
        return reading_rights(settings, topics, self.query) + self.writing_rights()

    def writing_rights(self) -> list[Right]:
        return publishing([self.topic]) if self.topic else []

    @property
    def query(self) -> str:
        return query_name(self.job, self.name)

    @property
    def table(self) -> str:
        return self.rows.table if self.rows else ""

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the columns that `table` is merged by; none for a table that is appended to."""
        return self.rows.keys if self.rows else ()

    @property
    def tables(self) -> tuple[RowSelector, ...]:
        """Return the tables that are written, as far as they are known beforehand."""
        return (self.rows,) if self.rows else ()

    @property
    def topics(self) -> tuple[str, ...]:
        """Return the topics that are written, a ledger among them."""
        return (self.topic,) if self.topic else ()

    @property
    def is_real_time(self) -> bool:
        """Return whether Spark's real-time trigger is to publish it, record by record."""
        return False

    @property
    def keeps_ledger(self) -> bool:
        """Return whether a ledger, beside the checkpoint, knows which batches were published."""
        return False


@dataclass(frozen=True, kw_only=True)
class TableOutput(Output):
    """Appends rows to a Delta table, or merges them into it by keys. With a `topic` the table stands in for that topic.

    Args:
        newest_by: columns whose greatest values make a row the newest of its key.
        repeats: what rows of one key within a batch are; see `delta.Repeats`.
    """

    newest_by: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ()
    repeats: delta_table.Repeats = "stop"

    def write(self, batch: Batch) -> None:
        delta_table.write(batch.frame, self.at(batch.tables_root), batch.commit("write"))

    def at(self, tables_root: str) -> delta_table.Table:
        path = paths.table(tables_root, self.table)
        how = self.keys, self.newest_by, self.partition_by, self.repeats
        return delta_table.Table(self.table, path, *how)


@dataclass(frozen=True, kw_only=True)
class FunctionOutput(Output):
    """Gives every batch to a function of the job's own, which must be idempotent; `tables`: that the function writes,
    for replays."""

    function: Callable[[Batch], None]
    tables: tuple[RowSelector, ...] = ()

    def write(self, batch: Batch) -> None:
        self.function(batch)


def event_time_column(frame: DataFrame, table: str, keys: tuple[str, ...], event_time: str | None) -> str | None:
    """Return the column that tells the event time of the rows of `frame`: as named, or the only one that can; raises
    TidemarkError BAD_EVENT_TIME, where `event_time` is no timestamp or date of `frame`."""
    times = [column.name for column in frame.schema.fields if column.dataType.typeName() in ("timestamp", "date")]
    if event_time is not None and event_time not in times:
        remedy = f"name one of: {', '.join(times)}" if times else "leave it out: there is no such column"
        raise TidemarkError("BAD_EVENT_TIME", f"`{event_time}` is no timestamp or date of table {table}", remedy)
    among_keys = [name for name in times if name in keys]
    for candidates in ([event_time] if event_time else [], among_keys, times):
        if len(candidates) == 1:
            return candidates[0]
    return None


def require_columns(frame: DataFrame, table: str, keys: tuple[str, ...], newest_by: tuple[str, ...]) -> None:
    """Check that `frame` has the columns that a table is merged by, and that they have an order; raises TidemarkError
    BAD_KEYS."""
    kinds = {column.name.lower(): column.dataType for column in frame.schema.fields}
    for name in (*keys, *newest_by):
        if name.lower() not in kinds:
            what = f"table {table} is to be merged by `{name}`, and what is written has no such column"
            raise TidemarkError("BAD_KEYS", what, nearest(name, frame.columns))
        if kinds[name.lower()].typeName() in ("map", "variant"):
            what = f"table {table} is to be merged by `{name}`, a {kinds[name.lower()].typeName()}, which has no order"
            raise TidemarkError("BAD_KEYS", what, "name other columns")
