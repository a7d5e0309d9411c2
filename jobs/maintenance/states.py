"""What each query keeps in its state, as a table."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import SparkSession

from jobs import checkpoint, checkpoint_state
from jobs.checkpoint_state import Operator
from jobs.failures import cause_line
from jobs.folders import Folders
from jobs.maintenance.checkpoints import Checkpoint, checkpoints
from jobs.maintenance.reading import megabytes
from jobs.state_store import PARTITIONS, start_coordinator


@dataclass(frozen=True)
class StateReport:
    """One stateful operator of a query.

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
        told = f"{rows}  {megabytes(self.bytes)}  {self.partitions} partitions  {at}"
        problem = f"  PROBLEM {self.problem}" if self.problem else ""
        yield f"{self.query:<28} {self.operator} {self.name:<24} {told}{problem}"
        for each in self.schemas:
            yield f"{'':<28}   {each['family']}: {each['key']} -> {each['value']}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"committed": self.committed.isoformat() if self.committed else None}


def reports(spark: SparkSession, root: str) -> Iterator[StateReport]:
    """Every stateful operator of every query with a checkpoint under `root`."""
    folders = Folders(spark)
    start_coordinator(spark)
    for each in checkpoints(folders, root):
        batch = checkpoint.last_commit(spark, each.uri)
        if not each.is_replaced and batch is not None:
            for operator in checkpoint_state.operators(spark, each.uri):
                yield _report(spark, folders, each, operator, batch)


def _report(spark: SparkSession, folders: Folders, of: Checkpoint, operator: Operator, batch: int) -> StateReport:
    problem = ""
    try:
        rows: int | None = checkpoint_state.rows(spark, of.uri, operator)
    except Exception as exc:
        rows, problem = None, cause_line(str(exc))
    size = folders.size(f"{of.uri}/{checkpoint_state.STATE}/{operator.number}")
    committed = [each.modified for each in folders.entries(f"{of.uri}/commits") if each.name == str(batch)]
    return StateReport(
        of.query,
        operator.number,
        operator.name,
        # The state metadata may have an older number.
        int(checkpoint.conf(spark, of.uri, batch).get(PARTITIONS, operator.partitions)),
        rows,
        size.files,
        size.bytes,
        tuple(_schema(each) for each in operator.families),
        batch,
        committed[0] if committed else None,
        problem,
    )


def _schema(family: checkpoint_state.Family) -> dict[str, str]:
    name = family.name if family.store == checkpoint_state.DEFAULT_STORE else f"{family.store}.{family.name}"
    return {"family": name, "key": family.key.simpleString(), "value": family.value.simpleString()}
