"""Makes what the terminal shows of replays: a plan, what comparing found, a list."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import pyarrow.compute as pc

from conf.settings import Settings
from jobs.operations.replay.compare import Difference
from jobs.operations.replay.record import Part, Replacement, Replay
from jobs.operations.replay.verify import TableComparison
from jobs.pipeline.paths import find_stored

UNMEASURED = 50_000  # records a second, where no replay of the job has run yet


def plan_lines(settings: Settings, replay: Replay, speed: float | None) -> Iterator[str]:
    """Say in lines what is planned.

    Args:
        speed: of the job's last replay, records/s; None for none.
    """
    span = f"{replay.request['from']} to {replay.request['to']}"
    yield f"replay {replay.id} of {replay.job}: {span if replay.kind == 'range' else 'the whole history'}"
    for topic, starts in replay.starts.items():
        untils = replay.untils[topic]
        count = sum(untils[partition] - start for partition, start in starts.items())
        spans = ", ".join(
            f"{partition}: {start:,} to {untils[partition]:,}" for partition, start in sorted(starts.items())
        )
        yield f"  reads     {topic:<24} {count:,} offsets  {spans}"
    for part in replay.parts:
        for table in part.tables:
            yield f"  replaces  {table.rows.table:<24} {_replaced(settings, table)}"
        if part.topic:
            yield f"  sends to  {part.topic:<24} {_sent(part)}, each once, with a header that names the replay"
    rate = speed or UNMEASURED
    how = "as the job's last replay" if speed else "a guess: no replay of this job has run yet"
    size = f"about {replay.bytes / 1e6:,.1f} MB, {replay.records / rate:,.0f} s"
    yield f"  slices    {len(replay.slices)}, {size} at {rate:,.0f} records/s ({how})"
    if any(slice.watermark_slice < 0 for slice in replay.slices[:-1]):
        yield "  the watermark is held until all is read: without bronze nobody knows how late the latest record is"


def _replaced(settings: Settings, table: Replacement) -> str:
    rows = table.rows
    if rows.coordinates:
        return "the rows of these records"
    if rows.event_time is None:
        return "nothing: no column tells which rows a range makes (event_time=)"
    if table.version is None:
        return "all: the table is new"
    windows, count = _touched(settings, table)
    return f"{rows.event_time} {_span(table.start, table.until)}: {windows:,} windows or times, {count:,} rows now"


def _sent(part: Part) -> str:
    if part.sends_since is None and part.sends_until is None:
        return "the records"
    return f"the records of event times {_span(part.sends_since, part.sends_until)}"


def _span(start: datetime | None, until: datetime | None) -> str:
    first, last = (edge.isoformat(" ", "minutes") if edge else "" for edge in (start, until))
    return f"from {first or 'the first'} to {last or 'the last'}"


def _touched(settings: Settings, table: Replacement) -> tuple[int, int]:
    """Return how many different event times, and rows, the live table has in the range."""
    live = find_stored(settings, table.rows.table)
    if live is None:
        return 0, 0
    name = str(table.rows.event_time)  # each table whose rows a range replaces has one
    kind = live.columns.field(name).type
    condition = None
    for edge, compare in ((table.start, pc.Expression.__ge__), (table.until, pc.Expression.__lt__)):
        if edge is not None:
            # A date is before a time of its day.
            part = compare(pc.field(name), pc.scalar(edge).cast(kind))
            condition = part if condition is None else condition & part
    column = live.rows([name], condition)[name]
    return int(pc.count_distinct(column).as_py()), len(column)


def comparison_lines(comparisons: list[TableComparison]) -> Iterator[str]:
    """Say in lines what comparing found, table by table."""
    for table in comparisons:
        right = "as recomputed" if not table.unlike_check else f"{table.unlike_check:,} rows UNLIKE the recomputation"
        line = f"{table.table:<28} {table.rows:,} rows, {right}"
        if table.version is not None:
            known = table.unlike_live - table.unexplained
            line += f"; {table.unlike_live:,} unlike version {table.version} of the live table"
            line += f", {known:,} of them explained" if table.unlike_live else ""
        yield line
        for difference in table.shown:
            yield f"  {_difference_text(difference)}"


def _difference_text(difference: Difference) -> str:
    left, right = difference.left, difference.right
    key = ", ".join(f"{name} {value}" for name, value in difference.key.items())
    cause = f"  [{difference.cause}]" if difference.cause else "  [cause unknown]"
    if left is None or right is None:
        return f"{key}: only in {'the replay' if left is None else 'the other'}{cause}"
    changed = (f"{name} {value} -> {right[name]}" for name, value in left.items() if value != right[name])
    return f"{key}: {', '.join(changed)}{cause}"


def list_lines(replays: list[Replay]) -> Iterator[str]:
    """Yield all replays, a line each."""
    for replay in replays:
        span = f"{replay.request['from']} to {replay.request['to']}"
        planned = replay.planned_at.isoformat(timespec="minutes")
        yield f"{replay.id}  {replay.state:<10} {replay.job:<28} {span:<48} planned {planned}"


def as_fields(replays: list[Replay]) -> list[Mapping[str, object]]:
    """Return the same for programs."""
    names = ("id", "job", "kind", "state", "findings")
    return [{name: getattr(replay, name) for name in names} | dict(replay.request) for replay in replays]
