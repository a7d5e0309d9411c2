"""Runs `quarantine`: lists rejects, looks into them, sends them again, or has them resolved from a work queue."""

import argparse
import json
import os
import sys
import uuid
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa

from conf import command_line
from conf.command_line import positive_count, positive_number, whole_number
from conf.errors import TidemarkError, exit_on_error
from conf.settings import Settings
from jobs.pipeline import paths
from producers.kafka.pacing import Interrupt
from producers.kafka.preflight import connect
from producers.quarantine import inspection, marker_log, redrive
from producers.quarantine.marker_log import MarkerLog
from producers.quarantine.records import Coordinates
from producers.quarantine.redrive import Redrive
from producers.quarantine.selection import Selection, add_into_compacted, add_selection, selection
from producers.quarantine.table import Quarantine, count_lines, count_rejects, slices
from producers.quarantine.work_queue import QueueFiller, status
from producers.quarantine.worker import KINDS, Worker, ask_command, ask_person, decide_always
from schemas.open_registry import open_registry

DESCRIPTION = "Records that were rejected: how many, why, and the way back; see docs/redrive.md."
EXIT_CODES = "exit code: 0 done, 1 failure, 2 wrong usage, 130 interrupted (what is committed is counted)"
NOTHING = "nothing is in quarantine there"
AUDIT = "Bring the tables `redrives` and `resolutions` up to date; `redrive` and `queue work` do it at their end."
EXEC = "run CMD for each record, its envelope as JSON on stdin: exit code 0 accepts, 75 releases, any other rejects"
SHOWN_COORDINATES = 5


def main(argv: Sequence[str]) -> int:
    """Run `quarantine ARGV`; returns the exit code, raises TidemarkError and, for wrong usage, SystemExit(2)."""
    return command_line.run(build_parser(), argv)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="local/tidemark quarantine", description=DESCRIPTION, epilog=EXIT_CODES)
    commands = parser.add_subparsers(required=True, metavar="list|inspect|redrive|audit|queue")
    common = command_line.settings_options()
    rejects = commands.add_parser("list", parents=[common], help="count them by topic, error and rule")
    add_selection(rejects, record=False)
    rejects.add_argument("--json", action="store_true", help="one JSON object a line")
    rejects.set_defaults(run=_list)
    _add_inspect(commands.add_parser("inspect", parents=[common], help="show them, read as far as they can be"))
    _add_redrive(commands.add_parser("redrive", parents=[common], help="send them back, once and only once"))
    text = "bring tables of what was done up to date"
    commands.add_parser("audit", parents=[common], help=text, description=AUDIT).set_defaults(run=_audit)
    _add_queue(commands, common)
    return parser


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--limit", type=positive_count, default=10, metavar="N", help="show so many; default 10")
    parser.add_argument("--skip", type=whole_number, default=0, metavar="N", help="leave out the first N")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, bytes in base64")
    shows = "show what schemas mark as personal data too, and the bytes of records that may hold it"
    parser.add_argument("--personal", action="store_true", help=shows)
    parser.set_defaults(run=_inspect)


def _add_redrive(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--all", action="store_true", help="everything that was not redriven yet")
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    parser.add_argument("--rate", type=positive_number, metavar="N", help="at most N records per second")
    add_into_compacted(parser)
    parser.set_defaults(run=_redrive, parser=parser)


def _add_queue(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("queue", help="resolve them one by one: fill | work | status")
    steps = parser.add_subparsers(required=True, metavar="fill|work|status")
    fill = steps.add_parser("fill", parents=[common], help="put records into it, each once")
    add_selection(fill)
    fill.add_argument("--all", action="store_true", help="everything that is not in the queue yet")
    fill.set_defaults(run=_fill, parser=fill)
    _add_work(steps.add_parser("work", parents=[common], help="resolve records; without --exec or --always, by hand"))
    steps.add_parser("status", parents=[common], help="counts").set_defaults(run=_status)


def _add_work(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--exec", metavar="CMD", help=EXEC)
    how.add_argument("--always", choices=KINDS, help="resolve every record so")
    parser.add_argument("--redrive", action="store_true", help="redrive what is accepted, once and only once")
    parser.add_argument("--idle", type=positive_number, metavar="SECONDS", help="end when nothing came for so long")
    parser.add_argument("--limit", type=positive_count, metavar="N", help="end after so many records")
    parser.add_argument(
        "--lock", type=positive_number, metavar="SECONDS", help="how long a worker may take; of the group"
    )
    add_into_compacted(parser)
    parser.set_defaults(run=_work)


def _list(settings: Settings, options: argparse.Namespace) -> int:
    table, selected = _open(settings, options)
    topics = {topic for batch in table.batches(selected, ["topic"]) for topic in batch["topic"].unique().to_pylist()}
    counts = count_rejects(table, selected, _redriven(settings, topics))
    if options.json:
        for count in counts:
            print(json.dumps(count.to_json()))
    else:
        print("\n".join(count_lines(counts) if counts else [NOTHING]))
    return 0


def _inspect(settings: Settings, options: argparse.Namespace) -> int:
    table, selected = _open(settings, options)
    registry, whole_index = open_registry(settings.registry), table.index(selected)
    if options.skip > whole_index.num_rows:
        # A page that begins at the end is empty, which ends a walk through all pages.
        what = f"--skip {options.skip} is behind the end: {whole_index.num_rows:,} records are in quarantine there"
        raise TidemarkError("BAD_ARGUMENTS", what, "skip fewer, or select more")
    index = whole_index.slice(options.skip, options.limit)
    redriven = _redriven(settings, index["topic"].unique().to_pylist())
    for part in slices(index, redrive.MOST_RECORDS, redrive.MOST_BYTES):
        for row in table.rows(selected, part):
            is_redriven = None if redriven is None else redriven.has(row.at)
            reading = inspection.read(row, registry, options.personal)
            if options.json:
                print(json.dumps(inspection.to_json(row, reading, is_redriven), default=str))
            else:
                print("\n".join([*inspection.lines(row, reading, is_redriven), ""]))
    if not index.num_rows and not options.json:
        print(f"there are no more than {whole_index.num_rows:,}" if whole_index.num_rows else NOTHING)
    return 0


def _audit(settings: Settings, options: argparse.Namespace) -> int:
    added = marker_log.bring_up_to_date(settings, connect(settings.kafka))
    for name, rows in added.items():
        print(f"{paths.table(settings.paths.tables, name)}: {rows:,} rows added")
    if not added:
        print("nothing was redriven or resolved yet")
    return 0


def _redrive(settings: Settings, options: argparse.Namespace) -> int:
    table, selected = _open(settings, options)
    if options.dry_run:
        print("\n".join(_dry_run(settings, table.index(selected), options.rate)))
        return 0
    interrupt = Interrupt()
    redriven = Redrive(settings, uuid.uuid4().hex, options.rate, options.into_compacted, interrupt)
    with interrupt:
        report = redriven.send(table, selected)
    print(f"redriven {report}")
    if redriven.skipped:
        print(f"left out {redriven.skipped:,} that were redriven before")
    if report.delivered_count:
        marker_log.bring_up_to_date(settings, connect(settings.kafka))
        table_path = paths.table(settings.paths.tables, paths.REDRIVES)
        print(f"redrive id {redriven.run}; each is a row of {table_path}")
    if report.interrupted:
        return interrupt.exit_code("interrupted: what comes after that was not redriven")
    report.require_complete()
    return 0


def _dry_run(settings: Settings, index: pa.Table, rate: float | None) -> Iterator[str]:
    admin = connect(settings.kafka)
    redriven = marker_log.load_redriven(settings, admin, index["topic"].unique().to_pylist())
    due = index.filter(pa.array(~redriven.among_rows(index)))
    if done := index.num_rows - due.num_rows:
        yield f"{done:,} were redriven before, and would be left out"
    counts = due.group_by(["topic", "error"]).aggregate([([], "count_all")]).to_pylist()
    yield from sorted(f"  {row['topic']}  {row['error']}  {row['count_all']:,}" for row in counts)
    size = sum(due["bytes"].to_pylist())
    transactions = sum(1 for _ in slices(due, redrive.MOST_RECORDS, redrive.MOST_BYTES))
    seconds = max(transactions * redrive.TRANSACTION_SECONDS, due.num_rows / rate if rate else 0.0)
    yield f"would redrive {due.num_rows:,} records, {size:,} bytes, in about {seconds:,.0f} s; nothing was sent"
    if due.num_rows:
        first = due.slice(0, SHOWN_COORDINATES).select(["topic", "partition", "offset"]).to_pylist()
        more = ", ..." if due.num_rows > len(first) else ""
        yield f"first: {', '.join(str(Coordinates(**row)) for row in first)}{more}"


def _fill(settings: Settings, options: argparse.Namespace) -> int:
    table, selected = _open(settings, options)
    interrupt = Interrupt()
    with interrupt:
        index = table.index(selected)
        filler = QueueFiller(settings, uuid.uuid4().hex, index["topic"].unique().to_pylist(), interrupt)
        try:
            filler.fill(table, selected, index)
        finally:
            print(f"queued {filler.queued:,}, left out {filler.skipped:,} that were queued before")
    return interrupt.exit_code("interrupted")


def _work(settings: Settings, options: argparse.Namespace) -> int:
    interrupt = Interrupt()
    name = f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    if options.exec:
        resolve = ask_command(options.exec, options.redrive)
    elif options.always:
        resolve = decide_always(options.always, options.redrive)
    else:
        resolve = ask_person(open_registry(settings.registry))
    ends = (options.idle, options.limit, options.lock)
    worker = Worker(settings, name, resolve, *ends, options.into_compacted, interrupt)
    try:
        with interrupt:
            worker.work()
    finally:
        counts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(worker.resolved.items()))
        print(f"resolved {worker.resolved.total():,}: {counts}" if counts else "resolved nothing")
    marker_log.bring_up_to_date(settings, connect(settings.kafka))
    return interrupt.exit_code("interrupted")


def _status(settings: Settings, options: argparse.Namespace) -> int:
    print(", ".join(f"{name} {count:,}" for name, count in status(settings, connect(settings.kafka)).items()))
    return 0


def _open(settings: Settings, options: argparse.Namespace) -> tuple[Quarantine, Selection]:
    """Return the table, and what the options select of it; commands with `--all` select nothing without being told."""
    selected = selection(options)
    if selected.is_everything and not getattr(options, "all", True):
        options.parser.error("say which records: a selection, or --all")
    table = Quarantine(settings)
    table.require_known(selected)
    return table, selected


def _redriven(settings: Settings, topics: Collection[str]) -> MarkerLog | None:
    """Return the log of what was redriven; None, after a line on stderr, where no broker can be asked."""
    try:
        admin = connect(settings.kafka)
    except TidemarkError as error:
        print(f"what was redriven is not known: {error}", file=sys.stderr)
        return None
    return marker_log.load_redriven(settings, admin, topics)


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
