"""The `quarantine` command: what was rejected, why, and sending it back."""

import argparse
import json
import sys
from collections.abc import Collection, Sequence

from conf import settings
from conf.errors import TidemarkError, exit_on_error
from conf.settings import Settings
from producers.option_types import whole
from producers.quarantine import audit, inspection, listing, redrive
from producers.quarantine import register as registers
from producers.quarantine.arguments import add_selection, selection
from producers.quarantine.queue_commands import add_queue
from producers.quarantine.redrive_command import add_redrive
from producers.quarantine.register import Register
from producers.quarantine.table import Quarantine, slices
from schemas.registries import open_registry

DESCRIPTION = "Records that were rejected: how many, why, and the way back; see docs/redrive.md."
EXIT_CODES = "exit code: 0 done, 1 failure, 2 wrong usage, 130 interrupted (what is committed is counted)"
NOTHING = "nothing is in quarantine there"
SHOWN = 10


def main(argv: Sequence[str]) -> int:
    """Run `quarantine ARGV`; returns the exit code, raises TidemarkError and, for wrong usage, SystemExit(2)."""
    options = build_parser().parse_args(argv)
    code: int = options.run(settings.load(options.env, options.set), options)
    return code


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="local/tidemark quarantine", description=DESCRIPTION, epilog=EXIT_CODES)
    commands = parser.add_subparsers(required=True, metavar="list|inspect|redrive|audit|queue")
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group("settings")
    group.add_argument("--env", metavar="NAME", help="settings overlay: local (default) or cluster")
    group.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; may be repeated")
    _add_list(commands.add_parser("list", parents=[common], help="count them by topic, error and rule"))
    _add_inspect(commands.add_parser("inspect", parents=[common], help="show them, read as far as they can be"))
    add_redrive(commands.add_parser("redrive", parents=[common], help="send them back, once and only once"))
    told = "Bring the tables `redrives` and `resolutions` up to date; `redrive` and `queue work` do it at their end."
    own = commands.add_parser(
        "audit", parents=[common], help="bring tables of what was done up to date", description=told
    )
    own.set_defaults(run=_audit)
    add_queue(commands, common)
    return parser


def _add_list(parser: argparse.ArgumentParser) -> None:
    add_selection(parser, record=False)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=_list)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--limit", type=whole, default=SHOWN, metavar="N", help=f"show so many; default {SHOWN}")
    parser.add_argument("--skip", type=whole, default=0, metavar="N", help="leave out the first N")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, bytes in base64")
    parser.set_defaults(run=_inspect)


def _list(loaded: Settings, options: argparse.Namespace) -> int:
    wanted, table = selection(options), Quarantine(loaded)
    topics = {topic for batch in table.batches(wanted, ["topic"]) for topic in batch["topic"].unique().to_pylist()}
    counts = listing.count(table, wanted, _redriven(loaded, topics))
    if options.json:
        for each in counts:
            print(json.dumps(each.to_json()))
    else:
        print("\n".join(listing.lines(counts) if counts else [NOTHING]))
    return 0


def _inspect(loaded: Settings, options: argparse.Namespace) -> int:
    table, wanted, registry = Quarantine(loaded), selection(options), open_registry(loaded.registry)
    index = table.index(wanted).slice(options.skip, options.limit)
    redriven = _redriven(loaded, index["topic"].unique().to_pylist())
    for part in slices(index, redrive.MOST_RECORDS, redrive.MOST_BYTES):
        for row in table.rows(wanted, part):
            known = None if redriven is None else redriven.has(row.at)
            reading = inspection.read(row, registry)
            if options.json:
                print(json.dumps(inspection.to_json(row, reading, known)))
            else:
                print("\n".join([*inspection.lines(row, reading, known), ""]))
    if not index.num_rows and not options.json:
        print(NOTHING)
    return 0


def _audit(loaded: Settings, options: argparse.Namespace) -> int:
    admin = registers.connect(loaded)
    for name, rows in audit.bring_up_to_date(loaded, admin).items():
        print(f"{loaded.paths.tables}/{name}: {rows:,} rows added")
    return 0


def _redriven(loaded: Settings, topics: Collection[str]) -> Register | None:
    """What was redriven; None, which is said, where no broker can be asked."""
    try:
        admin = registers.connect(loaded)
    except TidemarkError as error:
        print(f"what was redriven is not known: {error}", file=sys.stderr)
        return None
    return registers.known(loaded, admin, registers.redriven_topic(loaded), topics)


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
