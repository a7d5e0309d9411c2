"""What a job declares, an output, and what its writer is given, a batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

from pyspark.sql import DataFrame

from conf.errors import TidemarkError
from jobs.connectors import delta

OutputMode = Literal["append", "update", "complete"]


def query_name(job: str, output: str) -> str:
    """The name of the query that feeds an output: the job's own, where both have the same name."""
    return job if output == job.rsplit(".", 1)[-1] else f"{job}.{output}"


@dataclass(frozen=True)
class Batch:
    """A micro-batch, or a whole range, as a writer sees it; one that is run again is another Batch.

    Args:
        planned_at: when Spark fixed the micro-batch's offsets, or the range was begun; one that is run again keeps it.
        files: the texts of the checkpoint's files that fix a micro-batch, by path in it; none for a range.
        keeps_state: whether the query keeps state in its checkpoint.
    """

    frame: DataFrame
    sink: str
    query_id: str
    version: int
    planned_at: datetime
    offsets: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    attempt: delta.Attempt = field(default_factory=delta.Attempt, compare=False, repr=False)
    keeps_state: bool = False

    def commit(self, statement: str, every_batch: bool = True, own_rows: str = "") -> delta.Commit:
        """What `delta.write` makes once: `statement` names the write among all of the batch's into one table.

        Args:
            every_batch: False for a statement that leaves batches out, as one that writes only when there are rejects.
            own_rows: see `delta.Commit`.
        """
        said = self.sink, self.query_id, statement, self.version, self.offsets
        return delta.Commit(*said, every_batch, own_rows, self.attempt, self.keeps_state)

    def starts(self, topic: str) -> dict[int, int]:
        """The batch's first offset in each partition of `topic`; none where the checkpoint no longer says."""
        sources = self.offsets.get("from")
        of_topic = [at[topic] for at in sources if at and topic in at] if isinstance(sources, list) else []
        return {int(partition): int(offset) for at in of_topic for partition, offset in at.items()}


@dataclass(frozen=True)
class Replaceable:
    """A table that an output writes, and how to tell which of its rows a range of records makes.

    With neither an event time nor coordinates nobody can tell, and a replay leaves the table as it is.

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
    def is_told(self) -> bool:
        """Whether rows of a range can be told from others."""
        return self.event_time is not None or self.coordinates is not None

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Of what `dataclasses.asdict` gave, be it from JSON."""
        tuples = {name: tuple(value) for name, value in fields.items() if isinstance(value, list | tuple)}
        return cls(**{**fields, **tuples})


def replaceable(frame: DataFrame, table: str, keys: tuple[str, ...], event_time: str | None) -> Replaceable:
    """The table of the rows of `frame`: its event time as named, or the only column that can be one.

    Raises:
        TidemarkError: BAD_EVENT_TIME, where `event_time` is no timestamp or date of `frame`.
    """
    times = [each.name for each in frame.schema.fields if each.dataType.typeName() in ("timestamp", "date")]
    if event_time is not None and event_time not in times:
        remedy = f"name one of: {', '.join(times)}" if times else "leave it out: there is no such column"
        raise TidemarkError("BAD_EVENT_TIME", f"`{event_time}` is no timestamp or date of table {table}", remedy)
    among_keys = [name for name in times if name in keys]
    for candidates in ([event_time] if event_time else [], among_keys, times):
        if len(candidates) == 1:
            return Replaceable(table, keys, candidates[0])
    return Replaceable(table, keys)


@dataclass(frozen=True)
class Output:
    """A declared output: `write` gets every micro-batch, or the whole range at once.

    Args:
        tables: those that it writes, as far as they are known beforehand.
        topic: that it publishes to; None for none.
    """

    job: str
    name: str
    frame: DataFrame
    write: Callable[[Batch], None]
    mode: OutputMode
    tables: tuple[Replaceable, ...] = ()
    topic: str | None = None

    @property
    def query(self) -> str:
        return query_name(self.job, self.name)
