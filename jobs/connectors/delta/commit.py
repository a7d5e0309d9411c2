"""Describes one write into a Delta table, and decides whether it is still to be made.

Delta remembers, for every application id, the last version it committed, and skips a write whose version is not above
it. That makes a replayed micro-batch harmless, and makes two writes that share an id, or an id that outlives its
checkpoint or its table, lose rows. So an id names sink, query, table and statement, and every skip is decided here, in
the open, before Delta would: where it would skip or double rows in silence, the write stops by name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from conf import code_version
from conf.errors import TidemarkError
from jobs.connectors.delta.log import History, snapshot
from jobs.connectors.tally import Tally

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RANGE = "range-"  # begins the id of a bounded range, where a query has its checkpoint's
SHOWN = 200  # characters of offsets that a message shows of each side: Spark chokes on a failure's text when it is long
Repeats = Literal["stop", "last", "none"]
"""How a batch's rows of one key are treated, where no column says which is the newest: "stop": they fail the batch;
"last": they are in the order of their records, and the last one stays; "none": no key comes twice."""


@dataclass(frozen=True)
class Table:
    """A table by its name and path.

    Args:
        keys: make it an upserted table, with one row a key; nulls are equal.
        newest_by: which of two events of a key stays: the greater, the later one of equals. Left out, a batch replaces
            what is there, and `repeats` says what becomes of a key that it holds twice.
        sequence: a column, and one that only counts on among the rows of one value of it, as a partition and its
            offsets do. Of two rows of one value the count says which is the newer; only of others does `newest_by`,
            and where they are equal there too, within a batch the greater value.
        partition_by: of the table when it is made.
    """

    name: str
    path: str
    keys: tuple[str, ...] = ()
    newest_by: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ()
    repeats: Repeats = "stop"
    sequence: tuple[str, str] | None = None


class Attempt:
    """One attempt at a batch, and the writes that were begun in it; statements may run side by side."""

    def __init__(self) -> None:
        self._begun: set[str] = set()
        self._lock = Lock()

    def begin(self, app_id: str) -> bool:
        """Note that a write under `app_id` begins; return False where one was begun before."""
        with self._lock:
            is_first = app_id not in self._begun
            self._begun.add(app_id)
        return is_first


@dataclass(frozen=True)
class Commit:
    """A write of a micro-batch: which sink and query write, by which statement, which batch, from which offsets.

    Args:
        sink: the output's query name, the same over all of its checkpoints.
        query_id: the checkpoint's, or a range's own.
        offsets: of the sources, `from` to before `until`, an entry a source; `since`: where the query's first began.
        contiguous: whether the statement writes in every batch: then a batch that the table does not hold was lost.
        delete_predicate: of a table that several sinks write, an SQL condition that only this sink's rows meet.
        attempt: one for all commits of one attempt at a batch.
        keeps_state: whether the batch's rows are made by way of state, which must be made for every batch.
        tally: takes the rows and the time of the write.
    """

    sink: str
    query_id: str
    statement: str
    version: int
    offsets: Mapping[str, Any] = field(default_factory=dict)
    contiguous: bool = True
    delete_predicate: str = ""
    attempt: Attempt = field(default_factory=Attempt, compare=False, repr=False)
    keeps_state: bool = False
    tally: Tally = field(default_factory=Tally, compare=False, repr=False)

    def app_id(self, table: Table) -> str:
        """Return the id under which Delta records the version."""
        return f"{self.app_id_prefix(table)}{self.query_id}"

    def app_id_prefix(self, table: Table) -> str:
        """Return the beginning of the app ids of this sink, table and statement; the query id is the rest."""
        return f"{self.sink}/{table.name}/{self.statement}/"

    def metadata(self) -> str:
        """Return the JSON that the table's history keeps with the commit."""
        written = {
            "sink": self.sink,
            "query_id": self.query_id,
            "statement": self.statement,
            "batch": self.version,
            "offsets": dict(self.offsets),
            "code": code_version.version(),
        }
        # A statement that leaves batches out says so: the gaps between its commits are no lost batches.
        written |= {} if self.contiguous else {"every_batch": False}
        return json.dumps(written, sort_keys=True)


def require_first(table: Table, commit: Commit) -> None:
    """Begin a write; raises TidemarkError STATEMENT_REPEATED where the same attempt at a batch began it before."""
    if not commit.attempt.begin(commit.app_id(table)):
        message = (
            f"batch {commit.version} of {commit.sink} writes table {table.path} twice by statement `{commit.statement}`"
        )
        raise TidemarkError(
            "STATEMENT_REPEATED", message, "give each write a statement of its own, or Delta drops the second"
        )


def must_write(spark: "SparkSession", table: Table, commit: Commit) -> bool:
    """Return whether `commit` has not been made yet.

    Raises:
        TidemarkError: CHECKPOINT_REPLACED, where the table holds batches of the same sink from another checkpoint;
            CHECKPOINT_ROLLED_BACK, where it holds a later batch of this one; BATCH_CHANGED, where it holds this batch
            from other offsets; TABLE_BEHIND, where it does not hold the batch before, or no longer.
    """
    recorded = recorded_version(spark, table.path, commit.app_id(table))
    if recorded is None:
        _require_no_other_checkpoint(spark, table, commit)
        if commit.contiguous and commit.version > 0:
            raise _behind(table, commit, commit.version - 1, "it holds none of this query")
        return True
    if recorded > commit.version:
        what = f"table {table.path} holds batch {recorded} of this query, and batch {commit.version} asks to be written"
        remedy = "restore the newest checkpoint; an older one would lose or double rows"
        raise TidemarkError("CHECKPOINT_ROLLED_BACK", what, remedy)
    if recorded == commit.version:
        _require_same_offsets(spark, table, commit)
        return False
    if commit.contiguous:
        if recorded != commit.version - 1:
            raise _behind(table, commit, commit.version - 1, f"the last that it holds is {recorded}")
        _require_kept(History(spark, table.path), table, commit, recorded)
    return True


def recorded_version(spark: "SparkSession", path: str, app_id: str) -> int | None:
    """Return the last version that `app_id` committed to the table at `path`; None for a first one."""
    return snapshot(spark, path).transaction(app_id)


def _require_no_other_checkpoint(spark: "SparkSession", table: Table, commit: Commit) -> None:
    recorded = snapshot(spark, table.path).transactions()
    prefix = commit.app_id_prefix(table)
    ids = {app_id.removeprefix(prefix): version for app_id, version in recorded.items() if app_id.startswith(prefix)}
    # Two ranges may lie in one table: each is written once, and says which records it takes.
    is_range = commit.query_id.startswith(RANGE)
    others = {id: version for id, version in ids.items() if not (is_range and id.startswith(RANGE))}
    predicate = commit.delete_predicate
    if others and not (predicate and spark.read.format("delta").load(table.path).where(predicate).isEmpty()):
        id, version = min(others.items())
        held = f"table {table.path} holds {commit.sink} up to batch {version} of the checkpoint with query id {id}"
        message = f"{held}, and batch {commit.version} of a new one would read its topics into it again"
        remedy = "restore that checkpoint, or delete the table with it, or write into a new table"
        if predicate:
            message += "; other sinks write this table too, and may go on"
            remedy = f"restore that checkpoint, or, to read again, DELETE FROM delta.`{table.path}` WHERE {predicate}"
        raise TidemarkError("CHECKPOINT_REPLACED", message, remedy)


def _require_same_offsets(spark: "SparkSession", table: Table, commit: Commit) -> None:
    history = History(spark, table.path)
    made = _require_kept(history, table, commit, commit.version)
    # What is too old to be in the log cannot be compared.
    then: Mapping[str, Any] = history.metadata(made)["offsets"] if made is not None else {}
    now = json.loads(json.dumps(dict(commit.offsets)))
    for edge in ("from", "until"):
        before, after = then.get(edge), now.get(edge)
        if before is not None and after is not None and before != after:
            held = f"table {table.path} holds batch {commit.version} of {commit.sink} {edge} {_short(before)}"
            again = "to read a range again, --from and --to write it into tables of its own"
            what = f"{held}, and now asks for {edge} {_short(after)}"
            raise TidemarkError("BATCH_CHANGED", what, f"restore the query's own checkpoint; {again}")


def _require_kept(history: History, table: Table, commit: Commit, batch: int) -> int | None:
    """Find the table's version that recorded `batch`, None where it is too old to be in the log.

    Delta's records of batches survive a RESTORE of the table, its rows do not.
    """
    made = history.find(
        {"sink": commit.sink, "query_id": commit.query_id, "statement": commit.statement, "batch": batch}
    )
    undone = history.undone_at(made) if made is not None else None
    if made is not None and undone is not None:
        restored = f"its version {made} held it, and its version {undone} restored an older one"
        raise _behind(table, commit, batch, restored, f"restore it to its version {undone - 1}")
    return made


def _behind(
    table: Table, commit: Commit, batch: int, found: str, restore: str = "restore the newest state of it"
) -> TidemarkError:
    message = f"table {table.path} lacks batch {batch} of {commit.sink}: {found}"
    return TidemarkError(
        "TABLE_BEHIND", message, f"{restore}, or delete it and the checkpoint, both, to read the topics again"
    )


def _short(offsets: Any) -> str:
    text = json.dumps(offsets, sort_keys=True)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
