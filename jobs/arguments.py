"""The command lines of jobs, `replay`, `maintain` and `checkpoint`; read before any JVM starts, then in it.

Each `parse_` raises SystemExit(2) where the command line is wrong, and TidemarkError BAD_ARGUMENTS for a secret.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from conf import command_line
from conf.errors import TidemarkError, nearest
from conf.settings import Settings
from jobs import catalog
from jobs.connectors.kafka.offsets import parse_position

RUN = "run"  # what `jobs/main.py` calls a run of a job


def settings_of(args: Namespace) -> Settings:
    """Return the settings that the command line asks for; UNKNOWN_SETTING for those of a job that is not there."""
    settings = command_line.settings_of(args)
    known = catalog.questions()
    for name in settings.jobs.keys() - known.keys():
        raise TidemarkError("UNKNOWN_SETTING", f"`jobs.{name}` sets a job that is not there", nearest(name, [*known]))
    return settings


def parse_job(words: Sequence[str]) -> Namespace:
    """Return the arguments of a run of a job, checked against each other.

    Raises:
        TidemarkError: BAD_ARGUMENTS or BAD_POSITION.
    """
    args = command_line.parse(job_parser(), words)
    if is_bounded(args) and (args.until_caught_up or args.continuous):
        remedy = "leave out --until-caught-up and --continuous"
        raise TidemarkError("BAD_ARGUMENTS", "--from and --to name a bounded range", remedy)
    if is_bounded(args) and args.adopt:
        remedy = "leave out --adopt: a range has no checkpoint"
        raise TidemarkError("BAD_ARGUMENTS", "--from and --to name a bounded range", remedy)
    if args.skip_lost and not args.until_caught_up:
        what = "--skip-lost reads on behind lost records, which is for a run that ends"
        raise TidemarkError("BAD_ARGUMENTS", what, "add --until-caught-up")
    for position in (args.start, args.end):
        parse_position(position or "earliest")
    return args


def is_bounded(args: Namespace) -> bool:
    """Return whether a bounded range is asked for."""
    return args.start is not None or args.end is not None


def job_parser() -> ArgumentParser:
    """Return JOB and its options, in the words of spark-submit.sh."""
    parser = ArgumentParser(
        prog="spark-submit.sh",
        usage="./spark-submit.sh JOB [job options] [-- spark-submit options]",
        parents=[command_line.settings_options(with_roots=True)],
    )
    parser.add_argument(
        "job", metavar="JOB", help="the job's name; without one, the jobs are listed with their questions"
    )
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--until-caught-up", action="store_true", help="read what is in the topics now, then end")
    pace.add_argument("--continuous", action="store_true", help="go on until stopped (the default)")
    parser.add_argument(
        "--from", dest="start", metavar="POSITION", help="a bounded range, as one batch, into tables of its own"
    )
    parser.add_argument(
        "--to", dest="end", metavar="POSITION", help="its end, exclusive: a time, offsets as JSON, or latest"
    )
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="first bring the ledgers of the job's output topics and its checkpoints together again, then go on",
    )
    parser.add_argument(
        "--skip-lost",
        action="store_true",
        help="read on behind records that are gone from the topics, and say which they are; with --until-caught-up",
    )
    return parser


LAST_STEPS = ("run", "verify", "cutover")  # that `--through` may name


def parse_replay(words: Sequence[str]) -> Namespace:
    """Return the arguments of `replay`."""
    codes = "0 done or nothing to do, 1 failure, 2 wrong usage, 3 differences that nobody can explain, 4 locked"
    parser = ArgumentParser(
        prog="local/tidemark replay",
        description="Any range of the past run again beside the live tables, verified, and swapped in; "
        "see docs/replay.md.",
        epilog=f"exit code: {codes}",
    )
    common = [command_line.settings_options(with_roots=True)]
    steps = parser.add_subparsers(
        dest="step", required=True, metavar="plan|run|verify|cutover|undo|abandon|list|catch-up"
    )
    plan = steps.add_parser("plan", parents=common, help="what would be read, replaced, and how long it would take")
    _add_request(plan)
    plan.add_argument("--json", action="store_true", help="the whole plan as JSON")
    run = steps.add_parser("run", parents=common, help="run it beside the live tables, from where it was cut short")
    _add_request(run)
    run.add_argument("--through", choices=LAST_STEPS, default="run", help="then verify, or verify and cut over, too")
    _add_accept(run)
    verify = steps.add_parser("verify", parents=common, help="compare it with a recomputation and the live tables")
    cutover = steps.add_parser("cutover", parents=common, help="swap its rows in, a transaction a table")
    _add_accept(cutover)
    undo = steps.add_parser("undo", parents=common, help="put the replaced rows back")
    abandon = steps.add_parser("abandon", parents=common, help="remove what it has written beside the live tables")
    for step in (verify, cutover, undo, abandon):
        step.add_argument("id", metavar="ID", help="of the replay")
    listing = steps.add_parser("list", parents=common, help="all replays and how far they are")
    listing.add_argument("--json", action="store_true", help="as JSON")
    catch_up = steps.add_parser("catch-up", parents=common, help="every period that is due, in turn")
    catch_up.add_argument("job", metavar="JOB")
    catch_up.add_argument("--every", default="1 day", metavar="PERIOD", help='as "1 day" (the default), "1 hour"')
    catch_up.add_argument("--since", metavar="TIME", help="of the first period (default: the end of the last replay)")
    catch_up.add_argument("--through", choices=LAST_STEPS, default="cutover", help="how far (default: cutover)")
    catch_up.add_argument("--dry-run", action="store_true", help="only say which periods are due")
    _add_accept(catch_up)
    return command_line.parse(parser, words)


def _add_request(parser: ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB|ID", help="the job's name, or the id of a replay that was planned")
    parser.add_argument("--from", dest="start", metavar="POSITION", help="a time, offsets as JSON, or earliest")
    parser.add_argument("--to", dest="end", metavar="POSITION", help="its end, exclusive: a time, offsets, or latest")
    parser.add_argument("--backfill", action="store_true", help="the whole history, for a job that has never run")
    parser.add_argument(
        "--context", metavar="DURATION", help="read so much more on both sides (default: the job's own)"
    )
    parser.add_argument("--hold-watermark", action="store_true", help="trust no watermark before all is read")
    parser.add_argument("--again", action="store_true", help="also where the same replay is done: once more")


def _add_accept(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--accept-differences", action="store_true", help="cut over though rows differ for no known reason"
    )


MAINTAIN_EXIT_CODES = "exit code: 0 done (or left alone, for a reason that is said), 1 something failed, 2 wrong usage"
MAINTAIN_ACTIONS = {
    "tables": "make large files of small ones, remove the files of old versions",
    "checkpoints": "remove replaced checkpoints, finished replays and what writes left over",
    "ledgers": "are the ledgers of output topics compacted, are their sinks still there",
    "state": "what each query keeps in its state",
}


def parse_maintain(words: Sequence[str]) -> Namespace:
    """Return the arguments of `maintain`."""
    parser = ArgumentParser(
        prog="local/tidemark maintain",
        usage="local/tidemark maintain ACTION [options] [-- spark-submit options]",
        description="Keep tables, checkpoints and ledgers small while jobs run; see docs/maintenance.md.",
        epilog=MAINTAIN_EXIT_CODES,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="|".join(MAINTAIN_ACTIONS))
    common = [command_line.settings_options(with_roots=True)]
    for name, help in MAINTAIN_ACTIONS.items():
        action = actions.add_parser(name, parents=common, help=help, epilog=MAINTAIN_EXIT_CODES)
        action.add_argument("--json", action="store_true", help="one JSON object a line")
        if name != "state":
            action.add_argument("--dry-run", action="store_true", help="only say what would be done")
        if name == "ledgers":
            remove = "delete this ledger; refused while its sink is there; may be repeated"
            action.add_argument("--remove", action="append", default=[], metavar="TOPIC", help=remove)
    return command_line.parse(parser, words)


CHECKPOINT_EXIT_CODES = (
    "exit code: 0 every query is safe or new (or the action is done), 1 something must be done or went wrong, "
    "2 wrong usage"
)


def parse_checkpoint(words: Sequence[str]) -> Namespace:
    """Return the arguments of `checkpoint`; UNKNOWN_JOB for a job that is not there."""
    parser = ArgumentParser(
        prog="local/tidemark checkpoint",
        usage="local/tidemark checkpoint ACTION JOB [options] [-- spark-submit options]",
        description="Do the checkpoints of a job fit its code as it is now? See docs/checkpoint-doctor.md.",
        epilog=CHECKPOINT_EXIT_CODES,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="doctor|repartition|rename")
    common = [command_line.settings_options(with_roots=True)]
    doctor = actions.add_parser(
        "doctor", parents=common, help="compare, before a deploy; changes nothing", epilog=CHECKPOINT_EXIT_CODES
    )
    doctor.add_argument("job", metavar="JOB")
    doctor.add_argument("--json", action="store_true", help="one JSON object a query")
    repartition = actions.add_parser(
        "repartition", parents=common, help="bring state into the partitions that settings say"
    )
    rename = actions.add_parser(
        "rename", parents=common, help="let an output go on with the checkpoint and table of another name"
    )
    for action in (repartition, rename):
        action.add_argument("job", metavar="JOB")
        action.add_argument("output", metavar="OUTPUT", help="as the job declares it")
    rename.add_argument("source", metavar="OLD_JOB/OLD_OUTPUT", help="its folder under the checkpoints root")
    args = command_line.parse(parser, words)
    catalog.require(args.job)
    return args


# Of the operations that are carried out by Spark alone, by their folders in jobs/operations/.
PARSERS = {"maintenance": parse_maintain, "checkpoint_doctor": parse_checkpoint}
