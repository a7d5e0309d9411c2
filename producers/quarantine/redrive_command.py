"""`quarantine redrive`: its options, what a dry run says, and how it ends."""

import argparse
import sys
import uuid
from collections.abc import Iterator

import pyarrow as pa

from conf.settings import Settings
from producers.interrupt import Interrupt
from producers.option_types import positive
from producers.quarantine import audit
from producers.quarantine import register as registers
from producers.quarantine.arguments import add_into_compacted, add_selection, selection
from producers.quarantine.redrive import Redrive, counts, estimate
from producers.quarantine.table import Quarantine, first_coordinates

SHOWN_COORDINATES = 5


def add_redrive(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    add_selection(parser)
    parser.add_argument("--all", action="store_true", help="everything that was not redriven yet")
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    parser.add_argument("--rate", type=positive, metavar="N", help="at most N records per second")
    add_into_compacted(parser)
    parser.set_defaults(run=_redrive, parser=parser)


def _redrive(loaded: Settings, options: argparse.Namespace) -> int:
    wanted = selection(options)
    if wanted.is_everything and not options.all:
        options.parser.error("say which records: a selection, or --all")
    table = Quarantine(loaded)
    if options.dry_run:
        print("\n".join(_dry_run(loaded, table.index(wanted), options.rate)))
        return 0
    interrupt = Interrupt()
    run = Redrive(loaded, uuid.uuid4().hex, options.rate, options.into_compacted, interrupt)
    with interrupt:
        report = run.send(table, wanted)
    print(f"redriven {report}")
    if run.skipped:
        print(f"left out {run.skipped:,} that were redriven before")
    if report.delivered_count:
        admin = registers.connect(loaded)
        audit.bring_up_to_date(loaded, admin)
        print(f"redrive id {run.run}; each is a row of {loaded.paths.tables}/redrives")
    if report.interrupted:
        print("interrupted: what comes after that was not redriven", file=sys.stderr)
        return 128 + interrupt.signum
    report.require_complete()
    return 0


def _dry_run(loaded: Settings, index: pa.Table, rate: float | None) -> Iterator[str]:
    due = _due(loaded, index)
    if done := index.num_rows - due.num_rows:
        yield f"{done:,} were redriven before, and would be left out"
    for (topic, error), number in sorted(counts(due).items()):
        yield f"  {topic}  {error}  {number:,}"
    size = sum(due["bytes"].to_pylist())
    seconds = estimate(due, rate)
    yield f"would redrive {due.num_rows:,} records, {size:,} bytes, in about {seconds:,.0f} s; nothing was sent"
    first = first_coordinates(due, SHOWN_COORDINATES)
    if first:
        more = ", ..." if due.num_rows > len(first) else ""
        yield f"first: {', '.join(map(str, first))}{more}"


def _due(loaded: Settings, index: pa.Table) -> pa.Table:
    """Those that were not redriven before."""
    admin = registers.connect(loaded)
    topics = index["topic"].unique().to_pylist()
    register = registers.known(loaded, admin, registers.redriven_topic(loaded), topics)
    return index.filter(pa.array(~register.among_rows(index)))
