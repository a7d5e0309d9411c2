"""Describes one write into a Delta table: into which table, by whom, of which batch, from which offsets."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal

from conf import code_version
from conf.errors import TidemarkError
from jobs.connectors.tally import Tally

# What helps where no copy is left of a table that a query writes.
ANEW = "delete the table and its checkpoint, both, to read the topics again"
REPLAYS = "replays"  # the folder of what replays write beside the live tables
RANGE = "range-"  # begins the id of a bounded range, where a query has its checkpoint's
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


def no_table(path: str) -> TidemarkError:
    """Return the NO_TABLE of a path at which there is none."""
    return TidemarkError("NO_TABLE", f"there is no Delta table at {path}", "check the path")
