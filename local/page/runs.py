"""Reads what runs and ran: queries as they are now, the history of their micro-batches, and replays of the past."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from conf.errors import TidemarkError
from conf.settings import Job, Settings
from jobs.connectors.exactly_once.process import is_gone
from jobs.operations.history import HEADINGS, NUMBERS, SHOWN, attempts, cells, explained, rows_of, wanted
from jobs.operations.replay.record import Replay, Replays
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.monitoring.lag import PartitionLag, Positions, freshness
from local.page.background import Brokers
from local.page.charts import rate

DAYS = 7  # queries of these days are listed; where there are none, all that are kept
State = Literal["running", "ended", "failed", "killed", "elsewhere"]
COMMAND = "local/tidemark history"
NEXT_STEPS = {"planned": "run", "ran": "verify", "verified": "cutover", "done": "undo"}


@dataclass(frozen=True)
class Query:
    """A query as its newest micro-batch and the brokers tell of it.

    Args:
        state: "elsewhere", where its driver is on another machine or in another container: nothing is known of it here.
        last: the row of the newest micro-batch.
        lag_records: not read yet; as the last micro-batch said, where the brokers cannot be asked.
        lag_seconds: age of the first record that is not read; None where no broker can be asked.
        fresh_seconds: age of the newest time up to which the output is complete.
        promised: `fresh_within` of its job; empty for none.
    """

    name: str
    state: State
    last: Mapping[str, Any]
    lag_records: int | None
    lag_seconds: float | None
    fresh_seconds: float | None
    promised: str

    @property
    def rate(self) -> float | None:
        return rate(self.last)


@dataclass(frozen=True)
class Queries:
    """All queries, those that ended badly first; `broker` is why the brokers cannot be asked."""

    queries: tuple[Query, ...]
    broker: TidemarkError | None

    def named(self, state: State) -> list[str]:
        return [query.name for query in self.queries if query.state == state]


def read_queries(settings: Settings, brokers: Brokers) -> Queries:
    """Read the newest micro-batch of every query of the last DAYS, and ask the brokers how far each is behind."""
    by_query: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(_newest_of_each(settings)):
        by_query.setdefault(row["query"], []).append(row)
    lags, down = _lags(settings, brokers, by_query)
    known = ((row["job"], name, row["watermark"]) for name, rows in by_query.items() for row in rows)
    fresh = freshness(lags, {(job, name): watermark for job, name, watermark in known if watermark is not None})
    queries = []
    for name, rows in by_query.items():
        last, job = rows[-1], rows[-1]["job"]
        behind = [lag for lag in lags if (lag.job, lag.query) == (job, name)]
        records = sum(lag.records for lag in behind) if behind else last["lag"]
        seconds = max(lag.seconds for lag in behind) if behind else None
        promised = settings.jobs.get(job, Job()).fresh_within or ""
        queries.append(Query(name, _state(last), last, records, seconds, fresh.get((job, name)), promised))
    order = ("failed", "killed", "running", "elsewhere", "ended")
    return Queries(tuple(sorted(queries, key=lambda query: (order.index(query.state), query.name))), down)


def _newest_of_each(settings: Settings) -> pa.Table:
    """Return the newest finished micro-batch of each query that goes on, and the newest one of whatever outcome,
    oldest first.

    They are of the last DAYS; where there are none, of all times.
    """
    where = (pc.field("run") == "stream") | pc.field("run").is_null()
    recent = micro_batch_table.since(datetime.now(UTC) - timedelta(days=DAYS))
    columns = [*micro_batch_table.ORDER, "outcome"]
    known = micro_batch_table.micro_batches(settings, where & recent, columns)
    if not known.num_rows:
        known = micro_batch_table.micro_batches(settings, where, columns)
    # All columns are read of these alone, and of the files alone that may have them.
    times = pc.unique(_newest(known)["began_at"])
    return _newest(micro_batch_table.micro_batches(settings, where & pc.field("began_at").isin(times)))


def _newest(batches: pa.Table) -> pa.Table:
    numbered = batches.append_column("row", pa.array(range(batches.num_rows), pa.int64()))
    kept: set[int] = set()
    for some in (numbered, numbered.filter(pc.field("outcome") == "done")):
        kept |= set(some.group_by("query").aggregate([("row", "max")])["row_max"].to_pylist())
    return batches.take(pa.array(sorted(kept), pa.int64()))


def _lags(
    settings: Settings, brokers: Brokers, by_query: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[list[PartitionLag], TidemarkError | None]:
    _, down = brokers.ask(settings.kafka)
    if down is not None:
        return [], down
    positions = Positions(settings.kafka)
    for name, rows in by_query.items():
        for row in rows:
            if row["outcome"] == "done":
                ends = {(span["topic"], span["partition"]): span["end"] for span in row["offsets"] or []}
                positions.advance(row["job"], name, ends)
    return positions.measure(), None


def _state(last: Mapping[str, Any]) -> State:
    if last["outcome"] in ("failed", "killed"):
        return "killed" if last["outcome"] == "killed" else "failed"
    gone = is_gone(micro_batch_table.process_of(last))
    if gone is None:
        return "elsewhere"
    return "ended" if gone else "running"


@dataclass(frozen=True)
class Selection:
    """Which micro-batches; `since` as the option takes it, empty fields choose all."""

    name: str = ""
    since: str = ""
    failed: bool = False

    @property
    def command(self) -> str:
        words = [*([self.name] if self.name else []), *(["--since", self.since] if self.since else [])]
        return " ".join([COMMAND, *map(shlex.quote, words), *(["--failed"] if self.failed else [])])


@dataclass(frozen=True)
class History:
    """The newest SHOWN micro-batches, newest first, each with its texts by heading; `has_more`: of older ones."""

    rows: tuple[tuple[Mapping[str, Any], tuple[tuple[str, str], ...]], ...]
    has_more: bool
    headings: tuple[str, ...] = HEADINGS
    numbers: tuple[str, ...] = NUMBERS


def read_history(settings: Settings, chosen: Selection) -> History:
    """Read the micro-batches that are chosen; raises TidemarkError BAD_ARGUMENTS."""
    where = wanted(chosen.name or None, chosen.since or None, chosen.failed)
    newest = rows_of(micro_batch_table.newest(settings, SHOWN + 1, where))
    rows = ((row, tuple(zip(HEADINGS, cells(row), strict=True))) for row in reversed(newest[-SHOWN:]))
    return History(tuple(rows), len(newest) > SHOWN)


def read_batch(settings: Settings, query: str, batch: int) -> list[list[str]]:
    """Return all that is known of a micro-batch, by its attempts; raises TidemarkError UNKNOWN_BATCH."""
    rows = attempts(settings, query, batch)
    if not rows:
        raise TidemarkError("UNKNOWN_BATCH", f"no micro-batch {batch} of {query} is known", "see the view History")
    return [explained(row) for row in rows]


@dataclass(frozen=True)
class ReplayRow:
    """One replay; `tables` has what comparing gave, by table, and is empty before it was compared."""

    replay: Replay
    tables: Mapping[str, Mapping[str, Any]]

    @property
    def span(self) -> str:
        whole = self.replay.kind == "backfill"
        return "the whole history" if whole else f"{self.replay.request['from']} to {self.replay.request['to']}"

    @property
    def is_wrong(self) -> bool:
        """Return whether rows differ from an independent recomputation."""
        return any(table["unlike_check"] for table in self.tables.values())

    @property
    def unexplained(self) -> int:
        """Count rows that differ from live tables for no known reason."""
        compared = [table for table in self.tables.values() if table["version"] is not None]
        return sum(int(table["unexplained"]) for table in compared)

    @property
    def verdict(self) -> str:
        if not self.tables:
            return "not compared yet"
        if self.is_wrong:
            return "unlike its recomputation"
        if self.unexplained:
            return f"as recomputed; {self.unexplained:,} rows differ from the live tables for no known reason"
        return "as recomputed; every difference from the live tables is explained"

    @property
    def next(self) -> str:
        """Return the command of the next step; empty where there is none."""
        step = NEXT_STEPS.get(self.replay.state, "")
        is_last = self.replay.state == "done" and self.replay.kind == "backfill"
        return f"local/tidemark replay {step} {self.replay.id}" if step and not is_last else ""


def read_replays(settings: Settings) -> tuple[ReplayRow, ...]:
    """Return every replay, the newest first; raises TidemarkError BAD_REPLAY."""
    replays = reversed(Replays(settings).all())
    return tuple(ReplayRow(replay, replay.findings.get("tables", {})) for replay in replays)
