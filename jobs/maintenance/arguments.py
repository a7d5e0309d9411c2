"""The command line of `local/tidemark maintain`."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.arguments import add_settings, refuse_secrets

DESCRIPTION = "Keep tables, checkpoints and ledgers small while jobs run; see docs/maintenance.md."
EXIT_CODES = "exit code: 0 done (or left alone, for a reason that is said), 1 something failed, 2 wrong usage"


def parse(argv: Sequence[str]) -> Namespace:
    """The arguments; raises SystemExit(2) where they are wrong, TidemarkError BAD_ARGUMENTS for a secret."""
    args = parser().parse_args(argv)
    refuse_secrets(args)
    return args


def parser() -> ArgumentParser:
    """The whole command line."""
    usage = "local/tidemark maintain ACTION [options] [-- spark-submit options]"
    found = ArgumentParser(prog="local/tidemark maintain", usage=usage, description=DESCRIPTION, epilog=EXIT_CODES)
    actions = found.add_subparsers(dest="action", required=True, metavar="tables|checkpoints|ledgers|state")
    told = {
        "tables": "make large files of small ones, remove the files of old versions",
        "checkpoints": "remove replaced checkpoints, finished replays and what writes left over",
        "ledgers": "are the ledgers of output topics compacted, are their sinks still there",
        "state": "what each query keeps in its state",
    }
    for name, help in told.items():
        action = actions.add_parser(name, help=help, epilog=EXIT_CODES)
        add_settings(action)
        action.add_argument("--json", action="store_true", help="one JSON object a line")
        if name != "state":
            action.add_argument("--dry-run", action="store_true", help="only say what would be done")
        if name == "ledgers":
            remove = "delete this ledger; refused while its sink is there; may be repeated"
            action.add_argument("--remove", action="append", default=[], metavar="TOPIC", help=remove)
    return found
