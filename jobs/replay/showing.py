"""Replays in the words of a terminal."""

from collections.abc import Iterator, Mapping

import pyarrow.compute as pc
from deltalake import DeltaTable

from conf.settings import Settings
from jobs.connectors.files import table_uri
from jobs.replay.comparing import Difference
from jobs.replay.live import table_version
from jobs.replay.record import Part, Replacement, Replay
from jobs.replay.verifying import Finding

UNMEASURED = 50_000  # records a second, where no replay of the job has run yet


def plan_lines(settings: Settings, replay: Replay, speed: float | None) -> Iterator[str]:
    """What a plan says, a line each.

    Args:
        speed: of the job's last replay, records/s; None for none.
    """
    asked = f"{replay.asked['from']} to {replay.asked['to']}" if replay.kind == "range" else "the whole history"
    yield f"replay {replay.id} of {replay.job}: {asked}"
    for topic, starts in replay.starts.items():
        untils = replay.untils[topic]
        count = sum(untils[number] - at for number, at in starts.items())
        spans = ", ".join(f"{number}: {at:,} to {untils[number]:,}" for number, at in sorted(starts.items()))
        yield f"  reads     {topic:<24} {count:,} offsets  {spans}"
    for part in replay.parts:
        for each in part.tables:
            yield f"  replaces  {each.rows.table:<24} {_replaced(settings, part, each)}"
        if part.topic:
            yield f"  sends to  {part.topic:<24} each record once, with a header that names the replay"
    rate = speed or UNMEASURED
    how = "as the job's last replay" if speed else "a guess: no replay of this job has run yet"
    size = f"about {replay.bytes / 1e6:,.1f} MB, {replay.records / rate:,.0f} s"
    yield f"  slices    {len(replay.slices)}, {size} at {rate:,.0f} records/s ({how})"
    held = sum(each.trusted < 0 for each in replay.slices[:-1])
    if held:
        yield "  the watermark is held until all is read: without bronze nobody knows how late the latest record is"


def _replaced(settings: Settings, part: Part, each: Replacement) -> str:
    rows = each.rows
    if rows.coordinates:
        return "the rows of these records"
    if rows.event_time is None:
        return "nothing: no column tells which rows a range makes (event_time=)"
    if each.version is None:
        return "all: the table is new"
    start, until = (at.isoformat(" ", "minutes") if at else "" for at in (each.start, each.until))
    windows, count = _touched(settings, each)
    span = f"{rows.event_time} from {start or 'the first'} to {until or 'the last'}"
    return f"{span}: {windows:,} windows or times, {count:,} rows now"


def _touched(settings: Settings, each: Replacement) -> tuple[int, int]:
    """Different event times, and rows, that the live table has in the range."""
    if table_version(settings, each.rows.table) is None:
        return 0, 0
    dataset = DeltaTable(table_uri(f"{settings.paths.tables}/{each.rows.table}")).to_pyarrow_dataset()
    name = each.rows.event_time
    kind = dataset.schema.field(name).type
    condition = None
    for at, compare in ((each.start, pc.Expression.__ge__), (each.until, pc.Expression.__lt__)):
        if at is not None:
            # A date is before a time of its day.
            edge = pc.scalar(at).cast(kind)
            part = compare(pc.field(name), edge)
            condition = part if condition is None else condition & part
    column = dataset.to_table(columns=[name], filter=condition)[name]
    return int(pc.count_distinct(column).as_py()), len(column)


def finding_lines(found: list[Finding]) -> Iterator[str]:
    """What was found by comparing, tables one by one."""
    for each in found:
        right = "as recomputed" if not each.unlike_check else f"{each.unlike_check:,} rows UNLIKE the recomputation"
        line = f"{each.table:<28} {each.rows:,} rows, {right}"
        if each.version is not None:
            known = each.unlike_live - each.unexplained
            line += f"; {each.unlike_live:,} unlike version {each.version} of the live table"
            line += f", {known:,} of them explained" if each.unlike_live else ""
        yield line
        for difference in each.shown:
            yield f"  {_difference(difference)}"


def _difference(each: Difference) -> str:
    key = ", ".join(f"{name} {value}" for name, value in each.key.items())
    cause = f"  [{each.cause}]" if each.cause else "  [cause unknown]"
    if each.left is None or each.right is None:
        return f"{key}: only in {'the replay' if each.left is None else 'the other'}{cause}"
    changed = (
        f"{name} {value} -> {each.right[name]}" for name, value in each.left.items() if value != each.right[name]
    )
    return f"{key}: {', '.join(changed)}{cause}"


def list_lines(replays: list[Replay]) -> Iterator[str]:
    """All replays, a line each."""
    for each in replays:
        span = f"{each.asked['from']} to {each.asked['to']}"
        planned = each.planned_at.isoformat(timespec="minutes")
        yield f"{each.id}  {each.state:<10} {each.job:<28} {span:<48} planned {planned}"


def as_fields(replays: list[Replay]) -> list[Mapping[str, object]]:
    """The same, for machines."""
    named = ("id", "job", "kind", "state", "findings")
    return [{name: getattr(each, name) for name in named} | dict(each.asked) for each in replays]
