"""Reads the history: micro-batches as `local/tidemark history` lists and explains them, the newest first."""

import shlex
from dataclasses import dataclass

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.operations.history import HEADINGS, NUMBERS, SHOWN, attempts, cells, explained, rows_of, wanted
from jobs.pipeline.monitoring import micro_batch_table

COMMAND = "local/tidemark history"


@dataclass(frozen=True)
class Chosen:
    """Which micro-batches; `since` as the option takes it, empty fields choose all."""

    name: str = ""
    since: str = ""
    failed: bool = False

    @property
    def command(self) -> str:
        words = [*([self.name] if self.name else []), *(["--since", self.since] if self.since else [])]
        return " ".join([COMMAND, *map(shlex.quote, words), *(["--failed"] if self.failed else [])])


@dataclass(frozen=True)
class Row:
    """A micro-batch: its texts by heading, what leads to the whole of it, and the error that ended it."""

    cells: tuple[tuple[str, str], ...]
    query: str
    batch: int
    error: str


@dataclass(frozen=True)
class Listed:
    """The newest SHOWN, newest first; `has_more` where there are older ones."""

    rows: tuple[Row, ...]
    has_more: bool
    headings: tuple[str, ...] = HEADINGS
    numbers: tuple[str, ...] = NUMBERS


def read_history(settings: Settings, chosen: Chosen) -> Listed:
    """Read the micro-batches that are chosen; raises TidemarkError BAD_ARGUMENTS."""
    where = wanted(chosen.name or None, chosen.since or None, chosen.failed)
    newest = rows_of(micro_batch_table.newest(settings, SHOWN + 1, where))
    rows = (
        Row(tuple(zip(HEADINGS, cells(row), strict=True)), row["query"], row["batch"], row["error"] or "")
        for row in reversed(newest[-SHOWN:])
    )
    return Listed(tuple(rows), len(newest) > SHOWN)


def read_batch(settings: Settings, query: str, batch: int) -> list[list[str]]:
    """Return all that is known of a micro-batch, by its attempts; raises TidemarkError UNKNOWN_BATCH."""
    rows = attempts(settings, query, batch)
    if not rows:
        raise TidemarkError("UNKNOWN_BATCH", f"no micro-batch {batch} of {query} is known", "see the view History")
    return [explained(row) for row in rows]
