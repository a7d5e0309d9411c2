"""The `coverage` command: which offsets each table and output topic holds, and whether that is all, each once."""

import argparse
import json
import sys
from collections.abc import Sequence

from confluent_kafka.admin import AdminClient

from conf import settings
from conf.errors import TidemarkError, exit_on_error
from conf.settings import Settings
from jobs.connectors.committed import CommittedReader, connect
from jobs.coverage import checking, showing
from jobs.coverage.findings import shortened
from jobs.coverage.reading import covered

DESCRIPTION = "What tables and output topics hold of their topics, offset by offset; see docs/coverage.md."
EXIT_CODES = "exit code: 0 all is well, 1 a check found something, or a failure, 2 wrong usage"
NAMES = "a table, a folder of tables, a query, an output topic, or a topic that is read; all, if left out"


def main(argv: Sequence[str]) -> int:
    """Run `coverage ARGV`; returns the exit code, raises TidemarkError and, for wrong usage, SystemExit(2)."""
    options = build_parser().parse_args(argv)
    code: int = options.run(settings.load(options.env, options.set), options)
    return code


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="local/tidemark coverage", description=DESCRIPTION, epilog=EXIT_CODES)
    commands = parser.add_subparsers(required=True, metavar="show|check")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("names", nargs="*", metavar="NAME", help=NAMES)
    common.add_argument("--json", action="store_true", help="one JSON object a line")
    group = common.add_argument_group("settings")
    group.add_argument("--env", metavar="NAME", help="settings overlay: local (default) or cluster")
    group.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; may be repeated")
    own = commands.add_parser("show", parents=[common], help="from which offset to which, by what commits recorded")
    own.set_defaults(run=_show)
    own = commands.add_parser("check", parents=[common], help="contiguous, disjoint, complete? with each row's record")
    own.add_argument("--complete", action="store_true", help="being behind the end of a topic is a problem too")
    own.set_defaults(run=_check)
    return parser


def _show(loaded: Settings, options: argparse.Namespace) -> int:
    admin = _admin_if_any(loaded)
    with CommittedReader({} if admin is None else loaded.kafka.client_config()) as reader:
        found = covered(loaded, admin, reader, verify=False).only(options.names)
    if options.json:
        for each in showing.objects(found):
            print(json.dumps(each))
    else:
        print("\n".join(showing.lines(found)))
    return 0


def _check(loaded: Settings, options: argparse.Namespace) -> int:
    admin = connect(loaded.kafka)
    with CommittedReader(loaded.kafka.client_config()) as reader:
        everything = covered(loaded, admin, reader, verify=True)
        found = everything.only(options.names)
        report = checking.check(loaded, admin, reader, found, everything, options.complete)
    if options.json:
        for each in report.findings:
            print(json.dumps(each.to_json()))
        print(json.dumps(report.to_json()))
    else:
        print("\n".join([*(each.line() for each in shortened(report.findings)), report.summary()]))
    return 1 if report.problems else 0


def _admin_if_any(loaded: Settings) -> AdminClient | None:
    """None, which is said, where no broker can be asked."""
    try:
        return connect(loaded.kafka)
    except TidemarkError as error:
        print(f"what the output topics hold is not known: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
