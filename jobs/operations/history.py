"""Runs `history`: it shows the micro-batches of every query, those of processes that are gone included; no JVM."""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from conf import command_line
from conf.errors import TidemarkError, exit_on_error, nearest
from conf.setting_types import LONG, milliseconds
from conf.settings import Settings
from jobs import catalog
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.monitoring.micro_batch_table import COLUMNS

EXIT_CODES = "exit code: 0, or 1 for a failure, 2 for wrong usage"
HEADINGS = ("BEGAN", "QUERY", "BATCH", "OUTCOME", "ROWS", "REJECTED", "LATE", "LAG", "SECONDS", "WATERMARK")
NUMBERS = ("BATCH", "ROWS", "REJECTED", "LATE", "LAG", "SECONDS")
SHOWN = 50


def main(argv: Sequence[str]) -> int:
    """Run `history ARGV`; returns the exit code, raises TidemarkError and, for wrong usage, SystemExit(2)."""
    words = list(argv)
    if words[:1] == ["explain"]:
        return _explain(words[1:])
    return _list(words)


def _list(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="local/tidemark history",
        usage="local/tidemark history [JOB] [--since WHEN] [--failed] | history explain QUERY BATCH",
        description="What each micro-batch read, rejected and took, and how it ended; see docs/operate.md.",
        epilog=EXIT_CODES,
        parents=[command_line.settings_options()],
    )
    parser.add_argument("name", nargs="?", metavar="JOB", help="a job or a query; all, if left out")
    parser.add_argument(
        "--since", metavar="WHEN", help="a duration before now (`2 hours`) or a time (2026-01-31T12:00Z)"
    )
    parser.add_argument("--failed", action="store_true", help="only micro-batches that failed or were killed")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, with every column")
    options = command_line.parse(parser, words)
    settings, where = command_line.settings_of(options), wanted(options.name, options.since, options.failed)
    if options.json:
        for row in rows_of(micro_batch_table.micro_batches(settings, where)):
            print(json.dumps(row, default=datetime.isoformat))
        return 0
    batches = micro_batch_table.newest(settings, SHOWN + 1, where)
    if not batches.num_rows:
        whose = f" of {options.name}" if options.name is not None else ""
        if options.name is not None:
            _require_known(settings, options.name)
        print(f"no micro-batch{whose} failed or was killed" if options.failed else f"no micro-batch{whose} is known")
        return 0
    print("\n".join(lines(rows_of(batches.slice(max(0, batches.num_rows - SHOWN))))))
    if batches.num_rows > SHOWN:
        print(f"these are the newest {SHOWN}; --since shows fewer, --json all")
    return 0


def _explain(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="local/tidemark history explain",
        description="Everything that is known of one micro-batch, and the command that runs its records again.",
        epilog=EXIT_CODES,
        parents=[command_line.settings_options()],
    )
    parser.add_argument("query")
    parser.add_argument("batch", type=command_line.whole_number)
    options = command_line.parse(parser, words)
    rows = attempts(command_line.settings_of(options), options.query, options.batch)
    if not rows:
        what = f"no micro-batch {options.batch} of {options.query} is known"
        raise TidemarkError("UNKNOWN_BATCH", what, f"see local/tidemark history {options.query}")
    print("\n\n".join("\n".join(explained(row)) for row in rows))
    return 0


def wanted(name: str | None, since: str | None, failed: bool) -> pc.Expression:
    """Return whether a micro-batch is of that job or query, began since then, and did not end well,
    as far as that is asked.

    Raises:
        TidemarkError: BAD_ARGUMENTS, where `since` is neither a duration nor a time.
    """
    where = micro_batch_table.ALL
    if name is not None:
        where &= (pc.field("job") == name) | (pc.field("query") == name)
    if since is not None:
        where &= micro_batch_table.since(_time(since))
    return where & (pc.field("outcome") != "done") if failed else where


def _require_known(settings: Settings, name: str) -> None:
    """Raise TidemarkError UNKNOWN_JOB for a name that is neither a job's nor that of a query with a micro-batch."""
    seen = micro_batch_table.micro_batches(settings, columns=(*micro_batch_table.ORDER, "job"))
    known = {*catalog.questions(), *seen["job"].to_pylist(), *seen["query"].to_pylist()}
    if name not in known:
        what = f"there is no job `{name}`, and no query of that name has a micro-batch"
        raise TidemarkError("UNKNOWN_JOB", what, nearest(name, sorted(filter(None, known))))


def attempts(settings: Settings, query: str, batch: int) -> list[dict[str, Any]]:
    """Return what is known of one micro-batch of a query, by its attempts; none where no batch has such a number."""
    if batch > LONG:
        return []
    return rows_of(
        micro_batch_table.micro_batches(settings, (pc.field("query") == query) & (pc.field("batch") == batch))
    )


def rows_of(batches: pa.Table) -> list[dict[str, Any]]:
    """Return the micro-batches as dicts by column, maps as dicts too."""
    rows: list[dict[str, Any]] = batches.to_pylist(maps_as_pydicts="strict")
    return rows


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the micro-batches as a table for people, one a line; the cause below one that did not end well."""
    table = [HEADINGS, *map(cells, rows)]
    found = []
    for line, batch in zip(command_line.table_lines(table, NUMBERS), [None, *rows], strict=True):
        found.append(line)
        if batch and batch["error"]:
            found.append(f"    {batch['error']}")
    return found


def explained(row: dict[str, Any]) -> list[str]:
    """Return every column of one micro-batch with its unit, and what to type to run its records again."""
    width = max(len(column.name) for column in COLUMNS)
    found = []
    for column in COLUMNS:
        value = row[column.name]
        if value not in (None, [], {}):
            found.append(f"{column.name:<{width}}  {_shown(value)} {column.unit}".rstrip())
    start, end = (_by_topic(row["offsets"] or [], side) for side in ("start", "end"))
    if start:
        bounds = f"--from '{json.dumps(start)}' --to '{json.dumps(end)}'"
        found += ["", "run its records again, beside the live tables:", f"  ./spark-submit.sh {row['job']} {bounds}"]
    return found


def _by_topic(spans: Sequence[dict[str, Any]], side: str) -> dict[str, dict[str, int]]:
    """Return the offsets as `--from` and `--to` take them."""
    offsets: dict[str, dict[str, int]] = {}
    for span in spans:
        offsets.setdefault(span["topic"], {})[str(span["partition"])] = span[side] or 0
    return offsets


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a micro-batch as texts, in the order of HEADINGS."""
    seconds = (row["phases"] or {}).get("triggerExecution")
    numbers = [_number(row[name]) for name in ("rows_in", "rejected", "late", "lag")]
    taken = "" if seconds is None else f"{seconds / 1000:.1f}"
    watermark = f"{row['watermark']:%Y-%m-%d %H:%M}" if row["watermark"] else ""
    began = f"{row['began_at']:%Y-%m-%d %H:%M:%S}Z"
    query = row["query"] if row["run"] in (None, "stream") else f"{row['query']} ({row['run']})"
    return (began, query, str(row["batch"]), row["outcome"], *numbers, taken, watermark)


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z"
    if isinstance(value, list):
        return ", ".join(f"{span['topic']}/{span['partition']}: {span['start']} to {span['end']}" for span in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:,}" for name, number in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _time(text: str) -> datetime:
    try:
        return datetime.now(UTC) - timedelta(milliseconds=milliseconds(text))
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        what = f"--since takes a duration or a time, not `{text}`"
        raise TidemarkError("BAD_ARGUMENTS", what, "for example `2 hours`, or 2026-01-31T12:00:00Z") from None


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
