"""Reports what each query keeps in its state, as a table."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import SparkSession

from jobs.connectors.causes import cause_line
from jobs.connectors.hadoop_files import Folders
from jobs.operations.maintenance.checkpoints import Checkpoint, find_checkpoints, megabytes
from jobs.pipeline import checkpoint, state_store
from jobs.pipeline.checkpoint_format import COMMITS
from jobs.pipeline.state_store import PARTITIONS, Operator, start_coordinator


@dataclass(frozen=True)
class StateReport:
    """The state that one stateful operator of a query keeps.

    Args:
        rows: None where they could not be read; `problem` says why.
        bytes: on disk, of all batches that are kept.
        schemas: `key` and `value` of each column family, as DDL.
        batch: the last that was committed, at `committed`.
    """

    query: str
    operator: int
    name: str
    partitions: int
    rows: int | None
    files: int
    bytes: int
    schemas: tuple[dict[str, str], ...]
    batch: int | None
    committed: datetime | None
    problem: str = ""

    def lines(self) -> Iterator[str]:
        rows = "rows unknown" if self.rows is None else f"{self.rows:,} rows"
        at = f"batch {self.batch}" + (f" at {self.committed:%Y-%m-%d %H:%M:%S}" if self.committed else "")
        content = f"{rows}  {megabytes(self.bytes)}  {self.partitions} partitions  {at}"
        problem = f"  PROBLEM {self.problem}" if self.problem else ""
        yield f"{self.query:<28} {self.operator} {self.name:<24} {content}{problem}"
        for schema in self.schemas:
            yield f"{'':<28}   {schema['family']}: {schema['key']} -> {schema['value']}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"committed": self.committed.isoformat() if self.committed else None}


def state_reports(spark: SparkSession, root: str) -> Iterator[StateReport]:
    """Report on every stateful operator of every query with a checkpoint under `root`."""
    folders = Folders(spark)
    start_coordinator(spark)
    for query in find_checkpoints(folders, root):
        batch = checkpoint.last_commit(spark, query.uri)
        if not query.is_replaced and batch is not None:
            for operator in state_store.operators(spark, query.uri):
                yield _report(spark, folders, query, operator, batch)


def _report(spark: SparkSession, folders: Folders, query: Checkpoint, operator: Operator, batch: int) -> StateReport:
    problem = ""
    try:
        rows: int | None = state_store.rows(spark, query.uri, operator)
    except Exception as exc:
        rows, problem = None, cause_line(exc)
    size = folders.size(f"{query.uri}/{state_store.STATE}/{operator.number}")
    commits = [entry for entry in folders.entries(f"{query.uri}/{COMMITS}") if entry.name == str(batch)]
    return StateReport(
        query.query,
        operator.number,
        operator.name,
        # The state metadata may still have an older number of partitions.
        int(checkpoint.conf(spark, query.uri, batch).get(PARTITIONS, operator.partitions)),
        rows,
        size.files,
        size.bytes,
        tuple(_schema(family) for family in operator.families),
        batch,
        commits[0].modified if commits else None,
        problem,
    )


def _schema(family: state_store.Family) -> dict[str, str]:
    name = family.name if family.store == state_store.DEFAULT_STORE else f"{family.store}.{family.name}"
    return {"family": name, "key": family.key.simpleString(), "value": family.value.simpleString()}
