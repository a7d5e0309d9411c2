"""Reads the queries: what each does now, how far it is behind, and how its micro-batches went."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from conf.errors import TidemarkError
from conf.settings import Job, Settings
from jobs.connectors.exactly_once.authors import is_gone
from jobs.operations.history import rows_of
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.monitoring.lag import PartitionLag, Positions, freshness
from local.page.charts import Chart
from local.page.cluster import Brokers

DAYS = 7  # queries of these days are listed; where there are none, all that are kept
CHARTED = 300  # micro-batches
State = Literal["running", "ended", "failed", "killed", "elsewhere"]
WHOLE = "triggerExecution"


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
    job: str
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
    watermarks = {
        (row["job"], name): row["watermark"]
        for name, rows in by_query.items()
        for row in rows
        if row["watermark"] is not None
    }
    fresh = freshness(lags, watermarks)
    found = (_query(settings, name, rows[-1], lags if down is None else None, fresh) for name, rows in by_query.items())
    order = ("failed", "killed", "running", "elsewhere", "ended")
    return Queries(tuple(sorted(found, key=lambda query: (order.index(query.state), query.name))), down)


def read_charts(settings: Settings, query: str) -> tuple[Chart, ...]:
    """Return the newest micro-batches of a query as charts, oldest first; those that show nothing are left out.

    Raises:
        TidemarkError: UNKNOWN_QUERY.
    """
    where = (pc.field("query") == query) & (pc.field("outcome") == "done")
    rows = rows_of(micro_batch_table.newest(settings, CHARTED, where))
    if not rows:
        what = f"no micro-batch of a query `{query}` has been finished"
        raise TidemarkError("UNKNOWN_QUERY", what, "the view Queries has those that are known")
    return tuple(chart for chart in charts(rows) if chart.has_values)


def charts(rows: Sequence[Mapping[str, Any]]) -> Iterable[Chart]:
    """Draw what micro-batches say, over time."""
    times = tuple(row["began_at"].timestamp() for row in rows)

    def chart(title: str, **values: Iterable[float | None]) -> Chart:
        names = tuple(name.replace("_", " ") for name in values)
        return Chart(title, names, (times, *(tuple(column) for column in values.values())))

    yield chart("Records in each micro-batch", records=(row["rows_in"] for row in rows))
    yield chart("Records a second", records_a_second=map(rate, rows))
    yield chart("Records behind the end of the topics", lag=(row["lag"] for row in rows))
    yield chart("Seconds a micro-batch takes", seconds=(_seconds(row, WHOLE) for row in rows))
    yield _phases("Seconds by phase", times, [_without_whole(row["phases"]) for row in rows])
    yield _phases("Seconds of the parts of a write", times, [row["write_phases"] or {} for row in rows])
    yield chart("Hours from the newest event time back to the watermark", hours=map(_watermark_hours, rows))
    yield chart("Rows in the state", rows=(row["state_rows"] for row in rows))
    yield chart("Megabytes of state", megabytes=(_scaled(row["state_bytes"], 1e6) for row in rows))
    yield chart("Rejected and late", rejected=(row["rejected"] for row in rows), late=(row["late"] for row in rows))


def _phases(title: str, times: tuple[float, ...], phases: Sequence[Mapping[str, int]]) -> Chart:
    names = sorted({name for each in phases for name in each})
    lines = (tuple(_scaled(each.get(name), 1000) for each in phases) for name in names)
    return Chart(title, tuple(names), (times, *lines))


def _without_whole(phases: Mapping[str, int] | None) -> dict[str, int]:
    return {name: took for name, took in (phases or {}).items() if name != WHOLE}


def rate(row: Mapping[str, Any]) -> float | None:
    """Count records a second of a micro-batch; None for one that did not say how long it took."""
    seconds = _seconds(row, WHOLE)
    return row["rows_in"] / seconds if seconds and row["rows_in"] is not None else None


def _seconds(row: Mapping[str, Any], phase: str) -> float | None:
    return _scaled((row["phases"] or {}).get(phase), 1000)


def _scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value / by


def _watermark_hours(row: Mapping[str, Any]) -> float | None:
    if row["watermark"] is None or row["max_event_time"] is None or row["watermark"].year < 1971:
        return None
    hours: float = (row["max_event_time"] - row["watermark"]).total_seconds() / 3600
    return hours


def _newest_of_each(settings: Settings) -> pa.Table:
    """Return the newest finished micro-batch of each query that goes on, and the newest one of whatever outcome,
    oldest first.

    They are of the last DAYS; where there are none, of all times.
    """
    where = (pc.field("run") == "stream") | pc.field("run").is_null()
    recent, columns = (
        where & micro_batch_table.since(datetime.now(UTC) - timedelta(days=DAYS)),
        [*micro_batch_table.ORDER, "outcome"],
    )
    known = micro_batch_table.micro_batches(settings, recent, columns)
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


def _query(
    settings: Settings,
    name: str,
    last: Mapping[str, Any],
    lags: Sequence[PartitionLag] | None,
    fresh: Mapping[tuple[str, str], float],
) -> Query:
    job = last["job"]
    own = [lag for lag in lags or () if (lag.job, lag.query) == (job, name)]
    records = sum(lag.records for lag in own) if own else last["lag"]
    seconds = max(lag.seconds for lag in own) if own else None
    promised = settings.jobs.get(job, Job()).fresh_within or ""
    return Query(name, job, _state(last), last, records, seconds, fresh.get((job, name)), promised)


def _state(last: Mapping[str, Any]) -> State:
    if last["outcome"] in ("failed", "killed"):
        return "killed" if last["outcome"] == "killed" else "failed"
    gone = is_gone(micro_batch_table.process_of(last))
    if gone is None:
        return "elsewhere"
    return "ended" if gone else "running"
