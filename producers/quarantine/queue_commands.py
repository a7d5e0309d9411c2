"""`quarantine queue fill|work|status`: the options, and how each ends."""

import argparse
import os
import sys
import uuid
from typing import Any

from conf.settings import Settings
from producers.interrupt import Interrupt
from producers.option_types import positive, whole
from producers.quarantine import audit, work_queue
from producers.quarantine import register as registers
from producers.quarantine.arguments import add_into_compacted, add_selection, selection
from producers.quarantine.resolving import KINDS, Resolve, always, asking, by_command
from producers.quarantine.table import Quarantine
from producers.quarantine.worker import Worker
from schemas.registries import open_registry

EXEC = "run CMD for each record, its envelope as JSON on stdin: exit code 0 accepts, 75 releases, any other rejects"


def add_queue(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands of the queue."""
    parser = commands.add_parser("queue", help="resolve them one by one: fill | work | status")
    own = parser.add_subparsers(required=True, metavar="fill|work|status")
    fill = own.add_parser("fill", parents=[common], help="put records into it, each once")
    add_selection(fill)
    fill.add_argument("--all", action="store_true", help="everything that is not in the queue yet")
    fill.set_defaults(run=_fill, parser=fill)
    _add_work(own.add_parser("work", parents=[common], help="resolve records; without --exec or --always, by hand"))
    own.add_parser("status", parents=[common], help="counts").set_defaults(run=_status)


def _add_work(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--exec", metavar="CMD", help=EXEC)
    how.add_argument("--always", choices=KINDS, help="resolve every record so")
    parser.add_argument("--redrive", action="store_true", help="redrive what is accepted, once and only once")
    parser.add_argument("--idle", type=positive, metavar="SECONDS", help="end when nothing came for so long")
    parser.add_argument("--limit", type=whole, metavar="N", help="end after so many records")
    parser.add_argument("--lock", type=positive, metavar="SECONDS", help="how long a worker may take; of the group")
    add_into_compacted(parser)
    parser.set_defaults(run=_work)


def _fill(loaded: Settings, options: argparse.Namespace) -> int:
    wanted = selection(options)
    if wanted.is_everything and not options.all:
        options.parser.error("say which records: a selection, or --all")
    interrupt = Interrupt()
    run = work_queue.Filling(loaded, uuid.uuid4().hex, interrupt)
    try:
        with interrupt:
            run.fill(Quarantine(loaded), wanted)
    finally:
        print(f"queued {run.queued:,}, left out {run.skipped:,} that were queued before")
    return _ended(interrupt)


def _work(loaded: Settings, options: argparse.Namespace) -> int:
    interrupt = Interrupt()
    name = f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    ends = (options.idle, options.limit, options.lock)
    worker = Worker(loaded, name, _resolve(loaded, options), *ends, options.into_compacted, interrupt)
    try:
        with interrupt:
            worker.work()
    finally:
        counts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(worker.resolved.items()))
        print(f"resolved {worker.resolved.total():,}: {counts}" if counts else "resolved nothing")
    admin = registers.connect(loaded)
    audit.bring_up_to_date(loaded, admin)
    return _ended(interrupt)


def _resolve(loaded: Settings, options: argparse.Namespace) -> Resolve:
    if options.exec:
        return by_command(options.exec, options.redrive)
    if options.always:
        return always(options.always, options.redrive)
    return asking(open_registry(loaded.registry))


def _status(loaded: Settings, options: argparse.Namespace) -> int:
    admin = registers.connect(loaded)
    print(", ".join(f"{name} {count:,}" for name, count in work_queue.status(loaded, admin).items()))
    return 0


def _ended(interrupt: Interrupt) -> int:
    if interrupt():
        print("interrupted", file=sys.stderr)
        return 128 + interrupt.signum
    return 0
