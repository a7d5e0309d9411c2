"""The command line of `local/tidemark checkpoint`."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs import catalog
from jobs.arguments import add_settings, refuse_secrets

DESCRIPTION = "Do the checkpoints of a job fit its code as it is now? See docs/checkpoint-doctor.md."
EXIT_CODES = (
    "exit code: 0 every query is safe or new (or the action is done), 1 something must be done or went wrong, "
    "2 wrong usage"
)


def parse(argv: Sequence[str]) -> Namespace:
    """The arguments; raises SystemExit(2) where they are wrong, TidemarkError UNKNOWN_JOB or BAD_ARGUMENTS."""
    args = parser().parse_args(argv)
    refuse_secrets(args)
    catalog.require(args.job)
    return args


def parser() -> ArgumentParser:
    """The whole command line."""
    usage = "local/tidemark checkpoint ACTION JOB [options] [-- spark-submit options]"
    found = ArgumentParser(prog="local/tidemark checkpoint", usage=usage, description=DESCRIPTION, epilog=EXIT_CODES)
    actions = found.add_subparsers(dest="action", required=True, metavar="doctor|repartition|rename")
    doctor = actions.add_parser("doctor", help="compare, before a deploy; changes nothing", epilog=EXIT_CODES)
    doctor.add_argument("job", metavar="JOB")
    doctor.add_argument("--json", action="store_true", help="one JSON object a query")
    repartition = actions.add_parser("repartition", help="bring state into the partitions that settings say")
    rename = actions.add_parser("rename", help="let an output go on with the checkpoint and table of another name")
    for action in (repartition, rename):
        action.add_argument("job", metavar="JOB")
        action.add_argument("output", metavar="OUTPUT", help="as the job declares it")
    rename.add_argument("source", metavar="OLD_JOB/OLD_OUTPUT", help="its folder under the checkpoints root")
    for action in (doctor, repartition, rename):
        add_settings(action)
    return found
