"""What a job declares, an output, and what its writer is given, a batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pyspark.sql import DataFrame

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
    """

    frame: DataFrame
    sink: str
    query_id: str
    version: int
    planned_at: datetime
    offsets: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    attempt: delta.Attempt = field(default_factory=delta.Attempt, compare=False, repr=False)

    def commit(self, statement: str, every_batch: bool = True, own_rows: str = "") -> delta.Commit:
        """What `delta.write` makes once: `statement` names the write among all of the batch's into one table.

        Args:
            every_batch: False for a statement that leaves batches out, as one that writes only when there are rejects.
            own_rows: see `delta.Commit`.
        """
        return delta.Commit(
            self.sink, self.query_id, statement, self.version, self.offsets, every_batch, own_rows, self.attempt
        )

    def starts(self, topic: str) -> dict[int, int]:
        """The batch's first offset in each partition of `topic`; none where the checkpoint no longer says."""
        sources = self.offsets.get("from")
        of_topic = [at[topic] for at in sources if at and topic in at] if isinstance(sources, list) else []
        return {int(partition): int(offset) for at in of_topic for partition, offset in at.items()}


@dataclass(frozen=True)
class Output:
    """A declared output: `write` gets every micro-batch, or the whole range at once."""

    job: str
    name: str
    frame: DataFrame
    write: Callable[[Batch], None]
    mode: OutputMode

    @property
    def query(self) -> str:
        return query_name(self.job, self.name)
