"""The options every job takes; read before any JVM starts, and again by the job itself."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from conf.errors import TidemarkError, nearest
from conf.settings import ENVIRONMENTS, Settings, load
from jobs import catalog
from jobs.connectors.positions import parse_position

SECRETS = {
    "kafka.sasl_password": "TIDEMARK_KAFKA__SASL_PASSWORD",
    "registry.password": "TIDEMARK_REGISTRY__PASSWORD",
}


def parser() -> ArgumentParser:
    """JOB and its options, in the words of spark-submit.sh."""
    found = ArgumentParser(
        prog="spark-submit.sh", usage="./spark-submit.sh JOB [job options] [-- spark-submit options]"
    )
    found.add_argument(
        "job", metavar="JOB", help="the job's name; without one, the jobs are listed with their questions"
    )
    add_settings(found)
    pace = found.add_mutually_exclusive_group()
    pace.add_argument("--until-caught-up", action="store_true", help="read what is in the topics now, then end")
    pace.add_argument("--continuous", action="store_true", help="go on until stopped (the default)")
    found.add_argument(
        "--from", dest="start", metavar="POSITION", help="a bounded range, as one batch, into tables of its own"
    )
    found.add_argument(
        "--to", dest="end", metavar="POSITION", help="its end, exclusive: a time, offsets as JSON, or latest"
    )
    found.add_argument(
        "--adopt",
        action="store_true",
        help="first bring the ledgers of the job's output topics and its checkpoints together again, then go on",
    )
    return found


def add_settings(parser: ArgumentParser) -> None:
    """Add the options that `settings_of` reads."""
    parser.add_argument("--env", choices=ENVIRONMENTS, help="which conf/*.toml lies on base.toml (default: local)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; may be repeated")
    parser.add_argument("--checkpoints", metavar="ROOT", help="where checkpoints lie (paths.checkpoints)")
    parser.add_argument("--tables", metavar="ROOT", help="where tables lie (paths.tables)")


def parse(arguments: Sequence[str]) -> Namespace:
    """The arguments, checked against each other.

    Raises:
        TidemarkError: BAD_ARGUMENTS or BAD_POSITION.
    """
    args = parser().parse_args(arguments)
    if is_bounded(args) and (args.until_caught_up or args.continuous):
        remedy = "leave out --until-caught-up and --continuous"
        raise TidemarkError("BAD_ARGUMENTS", "--from and --to name a bounded range", remedy)
    if is_bounded(args) and args.adopt:
        remedy = "leave out --adopt: a range has no checkpoint"
        raise TidemarkError("BAD_ARGUMENTS", "--from and --to name a bounded range", remedy)
    refuse_secrets(args)
    for position in (args.start, args.end):
        parse_position(position or "earliest")
    return args


def refuse_secrets(args: Namespace) -> None:
    """Raises TidemarkError BAD_ARGUMENTS where --set names a secret."""
    for option in args.set:
        key = option.partition("=")[0].strip()
        if key in SECRETS:
            remedy = f"set the variable {SECRETS[key]} instead"
            raise TidemarkError("BAD_ARGUMENTS", f"--set {key} would show in the list of processes", remedy)


def is_bounded(args: Namespace) -> bool:
    """Whether a bounded range is asked for."""
    return args.start is not None or args.end is not None


def settings_of(args: Namespace) -> Settings:
    """The settings with --env, --set, --checkpoints and --tables in force; errors as `conf.settings.load` has them."""
    roots = {"paths.checkpoints": args.checkpoints, "paths.tables": args.tables}
    settings = load(args.env, [*args.set, *(f"{key}={value}" for key, value in roots.items() if value)])
    known = catalog.questions()
    for name in settings.jobs.keys() - known.keys():
        raise TidemarkError("UNKNOWN_SETTING", f"`jobs.{name}` sets a job that is not there", nearest(name, [*known]))
    return settings
